"""lm-evaluation-harness on our engine: its own scores of a made task against logits by hand."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from puna.errors import UserError
from puna.evaluate import harness
from puna.generate.engine import Engine
from puna.generate.load import Loaded
from tests.evaluate import made

OPTIONS = (" grass", " a condor of 1", " stones and leaves")
TASK = """
task: made_animals
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_target: label
doc_to_choice: "{{choices}}"
target_delimiter: ""
metric_list: [{metric: acc}, {metric: acc_norm}]
"""


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return made.loaded(context=64)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="pip install 'puna[lm-eval]'")
    for name, value in {"HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)


def log_probs(loaded: Loaded, ids: list[int]) -> Any:
    """Of every next token after each of the ids, in float64."""
    with torch.inference_mode():
        return loaded.model(torch.tensor([ids]))[0].double().log_softmax(-1)


def score(loaded: Loaded, given: list[int], option: list[int]) -> float:
    rows = log_probs(loaded, [*given, *option[:-1]])[len(given) - 1 :]
    return float(sum(row[token] for row, token in zip(rows, option, strict=True)))


def request(*arguments: Any) -> Any:
    return SimpleNamespace(args=arguments)


def adapter(loaded: Loaded) -> Any:
    return harness.adapter(loaded, Engine(loaded.model, loaded.tokenizer))


@pytest.mark.usefixtures("offline")
@pytest.mark.filterwarnings("ignore")
def test_its_scores_are_those_of_the_logits(loaded: Loaded, tmp_path: Path) -> None:
    rows = [{"question": f"What eats llama {n}?", "choices": OPTIONS, "label": n % 3} for n in range(6)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "made.yaml").write_text(TASK.replace("DATA", str(tmp_path / "rows.jsonl")))
    found = harness.run(loaded, ["made_animals"], folder=tmp_path, samples=True)
    chosen, encode = [], loaded.tokenizer.encode
    for row, told in zip(rows, found["samples"]["made_animals"], strict=True):
        given = [*loaded.tokenizer.bos, *encode(row["question"])]
        sums = []
        for option, (log_prob, greedy) in zip(OPTIONS, told["filtered_resps"], strict=True):
            scored = encode(row["question"] + option)[len(given) - len(loaded.tokenizer.bos) :]
            sums.append(score(loaded, given, scored))
            assert log_prob == pytest.approx(sums[-1], abs=1e-4) and not greedy
        chosen.append(sums.index(max(sums)) == row["label"])
    assert found["results"]["made_animals"]["acc,none"] == sum(chosen) / 6
    assert len(set(chosen)) == 2  # some right, some wrong
    assert "samples" not in harness.run(loaded, ["made_animals"], folder=tmp_path, limit=1)


@pytest.mark.usefixtures("offline")
def test_what_is_too_long_is_cut_at_its_beginning(loaded: Loaded) -> None:
    encode, asked = loaded.tokenizer.encode, adapter(loaded)
    context, option = "The herder told a llama that it could go home. " * 5, "She slept."
    ((log_prob, _),) = asked.loglikelihood([request(context, option)])
    whole, given = [loaded.tokenizer.bos + encode(text) for text in (context + option, context.rstrip())]
    scored = whole[len(given) :]
    assert len(whole) > 65
    expected = score(loaded, whole[-65 : -len(scored)], scored)
    assert log_prob == pytest.approx(expected, abs=1e-4)


@pytest.mark.usefixtures("offline")
def test_a_long_text_is_read_in_windows(loaded: Loaded) -> None:
    text = "The herder told a llama that it could go home. " * 5
    ids, begin = loaded.tokenizer.encode(text), loaded.tokenizer.bos_id
    assert 64 < len(ids) < 128
    expected = score(loaded, [begin], ids[:64]) + score(loaded, ids[len(ids) - 65 : 64], ids[64:])
    assert adapter(loaded).loglikelihood_rolling([request(text)]) == [pytest.approx(expected, abs=1e-3)]
    assert adapter(loaded).loglikelihood([request("", text[:20])])[0][0] == pytest.approx(
        score(loaded, [begin], loaded.tokenizer.encode(text[:20])), abs=1e-4
    )


@pytest.mark.usefixtures("offline")
def test_texts_end_at_their_own_stops(loaded: Loaded) -> None:
    prompts, asked = ["What eats llama 1?", "Feed llama 2."], adapter(loaded)
    whole = asked.generate_until([request(text, {"until": [], "max_gen_toks": 12}) for text in prompts])
    for prompt, text in zip(prompts, whole, strict=True):
        ids = [*loaded.tokenizer.bos, *loaded.tokenizer.encode(prompt)]
        start = len(ids)
        for _ in range(12):
            ids.append(int(log_probs(loaded, ids)[-1, : loaded.tokenizer.vocab_size].argmax()))
        assert text == loaded.tokenizer.decode(ids[start:])
    stop = whole[1][len(whole[1]) // 2 :]
    wanted = [{"until": [], "max_gen_toks": 12}, {"until": stop, "max_gen_toks": 12, "do_sample": False}]
    cut = asked.generate_until(list(map(request, prompts, wanted)))
    assert cut == [whole[0], whole[1][: whole[1].index(stop)]]


@pytest.mark.usefixtures("offline")
def test_a_task_that_it_does_not_have(loaded: Loaded) -> None:
    with pytest.raises(UserError, match="no task nonesuch"):
        harness.run(loaded, ["piqa", "nonesuch"])


def test_without_it_what_to_install_is_said(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(UserError, match=r"pip install 'puna\[lm-eval\]'"):
        harness.run(loaded, ["piqa"])
