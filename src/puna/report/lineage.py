"""From a token of a training batch back to its document."""

import json
from pathlib import Path
from typing import Any

from puna.errors import UserError
from puna.report import summary
from puna.tokens import tokenizer
from puna.tokens.batches import BATCH_PLAN, PLAN_VERSION, Batches, Phases, planned
from puna.tokens.shards import load

AROUND = 16


def trace(run: Path, step: int, row: int, position: int) -> dict[str, Any]:
    """A token with what stands around it in its sequence, and the document it comes from: source, URL,
    licence, file, offset, language and scores, and how its text begins.

    step counts from 1, row and position from 0. Raises UserError when there is no such token.
    """
    import pyarrow.parquet as pq

    known = json.loads((summary.stage_folder(run, "train") / BATCH_PLAN).read_bytes())
    if known.get("version") != PLAN_VERSION:
        raise UserError(f"{run} was trained by another version of Puna; run its recipe again to trace it")
    phases = known["phases"]
    _inside("this run", "step", step, 1, sum(phase["steps"] for phase in phases))
    phase = phases[0] if step <= phases[0]["steps"] else phases[1]
    _inside(f"step {step}", "row", row, 0, phase["batch_sequences"] - 1)
    _inside(f"step {step}", "position", position, 0, phase["sequence_length"] - 1)
    tokens, vocab_size = summary.stage_folder(run, "tokens"), known["vocab_size"]
    batches = planned(known, lambda source: load(tokens, source, "train", vocab_size))
    found = batches.trace(step - 1, row, position)
    if found is None:
        raise UserError(f"step {step}, row {row}, position {position} is padding: its source ends before it")
    source, place = found
    here = _here(run, batches, step - 1, row, position)
    with pq.ParquetFile(summary.stage_folder(run, "documents") / f"{source}.parquet") as file:
        for group in range(file.num_row_groups):
            size = file.metadata.row_group(group).num_rows
            if place < size:
                (document,) = file.read_row_group(group).slice(place, 1).to_pylist()
                return {**here, **document, "text": document["text"][:200]}
            place -= size
    raise UserError(f"{run}: the documents of {source} do not fit its tokens; verify the folder")


def _inside(where: str, name: str, value: int, first: int, last: int) -> None:
    if not first <= value <= last:
        raise UserError(f"{name} {value} is outside {where}: it has {name}s {first} to {last}")


def _here(run: Path, batches: Batches | Phases, step: int, row: int, position: int) -> dict[str, str]:
    """The token, and the text of up to AROUND tokens of its document on each side of it in its sequence."""
    words = tokenizer.load(summary.stage_folder(run, "train") / "tokenizer.model")
    batch = batches.batch(step)
    ids, document_ids = batch.tokens[row], batch.document_ids[row]
    near = [
        at
        for at in range(max(0, position - AROUND), min(len(ids), position + AROUND + 1))
        if document_ids[at] == document_ids[position]
    ]
    return {"token": words.piece(int(ids[position])), "around": words.decode([int(ids[at]) for at in near])}
