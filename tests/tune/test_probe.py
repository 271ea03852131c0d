"""What tuning forgets: the questions, how answers are judged, what is told."""

import copy
import json
import math
from typing import Any

import pytest
import torch

from puna.model.config import LlamaConfig
from puna.model.llama import Llama
from puna.tokens import chat
from puna.tokens import tokenizer as sentencepiece
from puna.tokens.conversations import Turn
from puna.tokens.settings import TokenizerSettings
from puna.tune import probe


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    entries = probe.shipped()
    texts = [*entries["texts"], *(entry["question"] for entry in entries["questions"])] * 3
    return sentencepiece.Tokenizer(sentencepiece.train(texts, TokenizerSettings(vocab_size=400)))


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> Llama:
    shape = LlamaConfig(dim=32, n_layers=2, n_heads=2, ffn_dim=64, vocab_size=400, max_seq_len=512)
    model = Llama(shape)
    model.init_weights(1)
    return model


@pytest.mark.parametrize(
    ("answer", "accepted", "right"),
    [
        ("The capital of France is Paris.", ["Paris"], True),
        ("It is PARIS!", ["Paris"], True),
        ("Parisians live there.", ["Paris"], False),
        ("A spider has eight legs", ["8", "eight"], True),
        ("A spider has 18 legs", ["8", "eight"], False),
        ("They take in CO₂.", ["CO2", "CO₂"], True),
        ("", ["Paris"], False),
    ],
)
def test_an_answer_is_right_where_an_accepted_string_stands_as_words(
    answer: str, accepted: list[str], right: bool
) -> None:
    assert probe.is_right(answer, accepted) is right


def test_the_questions_are_twenty_and_tell_no_answer() -> None:
    entries = probe.shipped()["questions"]
    assert len({entry["question"] for entry in entries}) == len(entries) == 20
    for entry in entries:
        assert entry["accepted"] and not probe.is_right(entry["question"], entry["accepted"])


def test_bits_per_byte_are_the_sum_over_all_tokens_after_the_begin_token(
    model: Llama, tokenizer: Any
) -> None:
    texts, bits, size = probe.shipped()["texts"][:2], 0.0, 0
    for text in texts:
        ids = torch.tensor([[*tokenizer.bos, *tokenizer.encode(text)]])
        scores = model(ids[:, :-1])[0].log_softmax(-1)
        bits -= scores[torch.arange(ids.shape[1] - 1), ids[0, 1:]].sum().item() / math.log(2)
        size += len(text.encode())
    assert probe.bits_per_byte(model, tokenizer, texts) == pytest.approx(bits / size, rel=1e-5)


def test_without_a_begin_token_the_first_token_is_given_and_not_counted(model: Llama, tokenizer: Any) -> None:
    text = "peas do not mind the cold"
    bare = copy.copy(tokenizer)
    bare.adds_bos = False
    ids = bare.encode(text)
    scores = model(torch.tensor([ids[:-1]]))[0].log_softmax(-1)
    bits = -scores[torch.arange(len(ids) - 1), torch.tensor(ids[1:])].sum().item() / math.log(2)
    counted = len(text.encode()) - len(bare.decode(ids[:1]).encode())
    assert probe.bits_per_byte(model, bare, [text]) == pytest.approx(bits / counted, rel=1e-5)


def test_a_model_without_a_format_is_continued_line_by_line(model: Llama, tokenizer: Any) -> None:
    found = probe.probe(model, tokenizer, None)
    assert json.loads(json.dumps(found)) == found
    assert found["format"] is None and found["ended"] is None
    assert len(found["questions"]) == 20 and found["right"] == sum(e["right"] for e in found["questions"])
    assert not any("\n" in entry["answer"] for entry in found["questions"] + found["samples"])
    assert found["bits_per_byte"] > 0
    assert probe.probe(model, tokenizer, None) == found


def result(right: int, ended: float | None = 1.0, bits: float = 1.0) -> dict[str, Any]:
    questions = [
        {"question": f"Q{number}?", "answer": "", "right": number < right, "ended": True}
        for number in range(20)
    ]
    return {"questions": questions, "right": right, "ended": ended, "bits_per_byte": bits}


def test_what_was_lost_and_what_is_told() -> None:
    assert probe.warnings(result(14), result(12)) == []
    assert probe.lost(result(14), result(12)) == ["Q12?", "Q13?"]
    assert probe.lost(result(12), result(14)) == []
    (told,) = probe.warnings(result(14), result(11))
    assert told.startswith("3 of 14 plain questions") and "Q11?" in told
    (told,) = probe.warnings(result(14), result(14, ended=0.5))
    assert told.startswith("only 50% of the answers end by themselves")
    assert probe.warnings(result(14), result(14, ended=0.9)) == []
    (told,) = probe.warnings(result(14), result(14, bits=1.03))
    assert told.startswith("plain text takes 3.0% more bits")
    assert probe.warnings(result(14, ended=None), result(14, ended=None, bits=1.019)) == []


def test_in_a_chat_format_answers_end_by_the_formats_own_token(model: Llama, tokenizer: Any) -> None:
    form = chat.FORMATS["vicuna_v1.1"]
    (cut,) = probe.ask(model, tokenizer, form, ["Which planet do we live on?"], max_new_tokens=4)
    assert cut.ended is False
    ids = chat.encode([Turn("user", "Which planet do we live on?")], form, tokenizer, open=True).ids
    likeliest = int(model(torch.tensor([ids]))[0, -1].argmax())
    swapped = copy.deepcopy(model)  # the end token is what this model writes first
    with torch.no_grad():
        rows = swapped.output.weight[[likeliest, tokenizer.eos_id]]
        swapped.output.weight[[tokenizer.eos_id, likeliest]] = rows
    (ended,) = probe.ask(swapped, tokenizer, form, ["Which planet do we live on?"], max_new_tokens=4)
    assert ended == probe.Answer("", True)
    found = probe.probe(model, tokenizer, form)
    assert found["format"] == "vicuna_v1.1"
    answers = [*found["questions"], *found["samples"]]
    assert found["ended"] == sum(entry["ended"] for entry in answers) / len(answers)
