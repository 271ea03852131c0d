"""Every kind of defect, seeded into made rows and into real ones: each is found, and nothing else is."""

import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from puna.errors import UserError
from puna.evaluate import overlap
from puna.tokens.chat import FORMATS
from puna.tokens.conversations import Conversation, Turn
from puna.tokens.text_tokenizer import TextTokenizer
from puna.tokens.tokenizer import load
from puna.tune.audit import DROPPED, KINDS, Audit, Auditor, as_row, audit
from puna.tune.readers import BadRow, read, read_row
from tests.tokens.conversations import small_sentencepiece

VICUNA = FORMATS["vicuna_v1.1"]
EACH = 10
Row = dict[str, Any]
ITEM = "A farmer has twelve goats and sells five of them to a neighbour for three coins a head each"
KEYS = (
    "sk-" + "a1B2" * 6, "AKIA" + "Q7" * 8, "ghp_" + "x9" * 18, "xoxb-" + "1234567890", "AIza" + "b" * 35,
    "hf_" + "k" * 34, "glpat-" + "t" * 20, "-----BEGIN RSA PRIVATE KEY-----", "write to ann.lee@example.org",
    "call +49 30 1234567 now",
)  # fmt: skip


def messages(row: Row) -> list[Row]:
    return row["messages"]


def set_text(row: Row, place: int, change: Callable[[str], str]) -> None:
    messages(row)[place]["content"] = change(messages(row)[place]["content"])


CUTS = re.compile(r"(?<=[a-z]{2}[.!?] )[A-Z][\w’']* [a-z]+(?= [a-z]+ )")


def cut_off(text: str) -> str:
    """The text up to a word in small letters inside its last sentence, which is not its first."""
    return text[: [each.end() for each in CUTS.finditer(text)][-1]]


def user(text: str) -> Row:
    return {"role": "user", "content": text}


def answer(text: str, **more: Any) -> Row:
    return {"role": "assistant", "content": text, **more}


def put_first(row: Row, number: int, text: str) -> Row:
    set_text(row, number % 2, lambda old: f"{text} {old}")
    return row


def with_turns(row: Row, *turns: Row) -> Row:
    return {**row, "messages": [*messages(row), *turns]}


def without_text(row: Row, number: int) -> Row:
    set_text(row, number % 2, lambda _: " \n"[: number % 3])
    return row


def out_of_order(row: Row, number: int) -> Row:
    asked, told = messages(row)
    return {"messages": [told, asked, answer("So.")] if number % 2 else [asked, user("And?"), told]}


def unanswered(row: Row, number: int) -> Row:
    return with_turns(row, user(f"Is {number} all?"), *[answer("It is.", train=False)][: number % 2])


def unlearned(row: Row) -> Row:
    return {"messages": [messages(row)[0], {**messages(row)[1], "train": False}]}


def broken_off(row: Row, number: int) -> Row:
    set_text(row, 1, cut_off if number % 2 else lambda text: f"{text}\n```python\nx = 1")
    return row


def with_other_prompt(row: Row, number: int) -> Row:
    asked, told = messages(row)
    return {"chosen": [asked, told], "rejected": [user(f"Or {number}?"), answer("No.")]}


CONTROLS = ("</s>", "<s>", "<|im_end|>", "<|eot_id|>", "<|endoftext|>")
# A row with one defect, from (a row, its number among those with this one, the row that duplicates repeat).
SEED: dict[str, Callable[[Row, int, Row], Row]] = {
    "unreadable row": lambda row, n, of: {"colour": n},
    "unknown role": lambda row, n, of: with_turns(row, {**user("So?"), "role": "oracle"}),
    "role order": lambda row, n, of: out_of_order(row, n),
    "empty turn": lambda row, n, of: without_text(row, n),
    "no supervised token": lambda row, n, of: unlearned(row),
    "end not supervised": lambda row, n, of: unanswered(row, n),
    "over-long": lambda row, n, of: with_turns(row, user(f"More of {n}?"), answer("So it is. " * 400)),
    "marker imitated": lambda row, n, of: put_first(row, n, VICUNA.marks[n // 2 % 2]),
    "control string": lambda row, n, of: put_first(row, n, CONTROLS[n % 5]),
    "duplicate conversation": lambda row, n, of: of,
    "duplicate first round": lambda row, n, of: with_turns(of, user(f"And {n}?"), answer("That, too.")),
    "duplicate question": lambda row, n, of: {"messages": [messages(of)[0], messages(row)[1]]},
    "chosen = rejected": lambda row, n, of: {**row, "rejected": messages(row)[-1]["content"]},
    "different prompts": lambda row, n, of: with_other_prompt(row, n),
    "truncated answer": lambda row, n, of: broken_off(row, n),
    "personal data": lambda row, n, of: put_first(row, n, KEYS[n]),
    "evaluation item": lambda row, n, of: put_first(row, n, f"{ITEM}."),
}


def seed(folder: Path, rows: list[Row]) -> tuple[Path, dict[int, str]]:
    """A file of rows, in which EACH rows have each kind of defect: (file, kinds by row). Rows are used up
    from the end; those that stay as they are come first."""
    generator = random.Random(5)
    seeded = [(kind, number) for kind in KINDS for number in range(EACH)]
    generator.shuffle(seeded)
    plain, used = rows[: -len(seeded)], rows[-len(seeded) :]
    assert len(plain) >= 2 * EACH
    kinds: dict[int, str] = {}
    written = [json.loads(json.dumps(row)) for row in plain]
    for row, (kind, number) in zip(used, seeded, strict=True):
        copies = json.loads(json.dumps([row, plain[number]]))
        written.append(SEED[kind](copies[0], number, copies[1]))
        kinds[len(written)] = kind
    path = folder / "seeded.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in written))
    return path, kinds


def check(path: Path, kinds: dict[int, str], tokenizer: TextTokenizer) -> Audit:
    leaks = dict.fromkeys(overlap.runs(ITEM), "made 1")
    found = audit(read(path), Auditor(VICUNA, tokenizer, 1_000, leaks))
    for verdict in found.verdicts:
        expected = {kinds[verdict.row.row]} if verdict.row.row in kinds else set()
        assert {finding.kind for finding in verdict.findings} == expected, verdict
    assert found.counts() == dict.fromkeys(KINDS, EACH)
    return found


SENTENCES = (
    "The {0} stands near the old {1} of the town. Most people walk past the {1} without a word about it.",
    "Nobody has seen a {0} in the {1} since the spring. The keeper thinks that rain drove it away again.",
)


def made(count: int) -> list[Row]:
    nouns = [
        f"{a}{b}"
        for a in ("stone", "sand", "wind", "salt", "corn")
        for b in ("mill", "house", "tower", "gate")
    ]
    rows = []
    for number in range(count):
        one, two = nouns[number % len(nouns)], nouns[number // len(nouns) % len(nouns)]
        text = " ".join(sentence.format(one, two) for sentence in SENTENCES)
        question = f"Tell me about number {number}: the {one} and the {two}?"
        rows.append(
            {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": text}]}
        )
    return rows


def test_each_kind_is_found_and_nothing_else(tmp_path: Path) -> None:
    path, kinds = seed(tmp_path, made(EACH * (len(KINDS) + 3)))
    found = check(path, kinds, small_sentencepiece())
    with pytest.raises(
        UserError, match=f"unreadable row: {EACH}, unknown role: {EACH}, .*seeded.jsonl, row "
    ):
        found.refuse()


def test_each_kind_is_found_in_real_rows(data: Path, tmp_path: Path) -> None:
    tokenizer = load(data / "models" / "llama-tokenizer" / "tokenizer.model")
    first = audit(read(data / "chat" / "gpteacher"), Auditor(VICUNA, tokenizer, 1_000))
    clean = [v.kept[0] for v in first.verdicts if not v.findings]
    rows = []
    for conversation in clean:
        if CUTS.search(conversation.turns[1].text):
            rows.append(as_row(conversation))
    rows = rows[: EACH * (len(KINDS) + 20)]
    check(*seed(tmp_path, rows), tokenizer)


def test_what_is_written_is_read_again_without_a_refusal(tmp_path: Path) -> None:
    path, kinds = seed(tmp_path, made(EACH * (len(KINDS) + 3)))
    auditor = Auditor(VICUNA, small_sentencepiece(), 1_000, dict.fromkeys(overlap.runs(ITEM), "made 1"))
    found = audit(read(path), auditor)
    found.write(tmp_path / "out")
    kept = list(read(tmp_path / "out" / "kept.jsonl"))
    assert [as_row(row)["messages"] for row in kept if isinstance(row, Conversation)] == [
        as_row(piece)["messages"] for verdict in found.verdicts for piece in verdict.kept
    ]
    again = audit(kept, Auditor(VICUNA, small_sentencepiece(), 1_000))
    again.refuse()
    assert not any(again.counts()[kind] for kind in (*DROPPED, "over-long"))
    lines = (tmp_path / "out" / "dropped.jsonl").read_text().splitlines()
    dropped = [json.loads(line) for line in lines]
    gone = [number for number, kind in kinds.items() if kind in {*DROPPED, "over-long"}]
    origins = [f"{path}, row {number}" for number in gone]
    assert sorted(row["origin"] for row in dropped) == sorted(origins)
    assert all(row["why"] and ("messages" in row or "raw" in row) for row in dropped)


def test_pairs_and_marks_of_turns_come_through_writing(tmp_path: Path) -> None:
    asked = Turn("user", "i\n\nx", instruction="i")
    turns = (
        Turn("system", "s"),
        asked,
        Turn("assistant", "a", train=False),
        Turn("user", "q"),
        Turn("assistant", "b"),
    )
    whole = Conversation(turns, "f.json", 3, Turn("assistant", "c"))
    assert list(read_row(as_row(whole), "f.json", 3)) == [whole]


def test_a_pair_that_is_over_long_by_its_rejected_answer() -> None:
    pair = Conversation((Turn("user", "a"), Turn("assistant", "b")), rejected=Turn("assistant", "c" * 400))
    verdict = Auditor(VICUNA, small_sentencepiece(), 200).verdict(pair)
    assert [finding.kind for finding in verdict.findings] == ["over-long"]
    assert (list(verdict.kept), list(verdict.lost)) == ([], [1])


def test_shares_are_of_tokens_or_of_characters() -> None:
    conversation = Conversation((Turn("system", ""), Turn("user", "ab"), Turn("assistant", "cd")))
    verdict = Auditor(VICUNA).verdict(conversation)
    assert (verdict.tokens, verdict.learned) == (len("<s>USER: ab ASSISTANT: cd</s>"), len(" cd</s>"))
    tokenizer = small_sentencepiece()
    verdict = Auditor(VICUNA, tokenizer).verdict(conversation)
    assert verdict.learned == len(tokenizer.encode("cd")) + 1 < verdict.tokens


@pytest.mark.parametrize(
    "text",
    ["Paris", "x = 1\ny = 2", "- one\n- two of three", "So it goes. Sincerely,\nAnn",
     "Well done! #team #win", "Yes, 1,", "```\nx\n```", "See https://e.org/a_the", "Good. “Fine”",
     "A list:\n1. It is so. Then we\n2. End"],
)  # fmt: skip
def test_answers_that_may_end_so(text: str) -> None:
    verdict = Auditor(VICUNA).verdict(Conversation((Turn("user", "q"), Turn("assistant", text))))
    assert verdict.findings == []


def test_tools_may_answer_between() -> None:
    roles = ("system", "user", "assistant", "tool", "assistant", "user", "assistant")
    good = Conversation(tuple(Turn(role, f"{role} {n}") for n, role in enumerate(roles)))
    assert Auditor(VICUNA).verdict(good).findings == []
    late = Conversation((Turn("user", "a"), Turn("system", "b"), Turn("assistant", "c")))
    assert [found.told for found in Auditor(VICUNA).verdict(late).findings] == [
        "system after user", "assistant after system"
    ]  # fmt: skip


def test_real_pairs_and_identities(data: Path) -> None:
    tokenizer = load(data / "models" / "llama-tokenizer" / "tokenizer.model")
    found = audit(read(data / "chat" / "hh_rlhf"), Auditor(VICUNA, tokenizer))
    rows = {
        kind: [v.row.row for v in found.verdicts if kind in {each.kind for each in v.findings}]
        for kind in ("role order", "empty turn", "different prompts")
    }
    assert rows == {
        "role order": [668, 764, 1255, 1320],
        "empty turn": [87, 517, 926, 1104],
        "different prompts": [1255],
    }
    assert [v.row.row for v in found.verdicts if isinstance(v.row, BadRow)] == [1255]
    identities = list(read(data / "chat" / "fastchat_dummy"))
    counts = audit(identities, Auditor(VICUNA, tokenizer)).counts()
    assert (counts["duplicate conversation"], counts["duplicate first round"]) == (0, 166)
    rounds = Counter(row.turns[:2] for row in identities if isinstance(row, Conversation))
    asked = {turn for row in identities if isinstance(row, Conversation) for turn in row.turns[::2]}
    assert (len(rounds), len(asked)) == (334, 54)


def test_items_of_evaluation_sets(data: Path, tmp_path: Path) -> None:
    (tmp_path / "gsm8k_test.jsonl").write_text(
        json.dumps({"question": f"{ITEM}. How much?", "answer": "#### 15"})
    )
    leaks = overlap.items_in(tmp_path)
    row = Conversation((Turn("user", f"{ITEM.upper()}?"), Turn("assistant", "15")), "f", 1)
    (finding,) = Auditor(VICUNA, leaks=leaks).verdict(row).findings
    assert (finding.kind, finding.turn) == ("evaluation item", 1)
    assert "gsm8k" in finding.told
    with pytest.raises(UserError, match="no files of a task"):
        overlap.items_in(tmp_path / "none")
    real = tmp_path / "real"
    real.mkdir()
    (real / "gsm8k_test.jsonl").symlink_to(data / "eval" / "gsm8k_test.jsonl")
    leaks = overlap.items_in(real)
    test, train = (read(data / "eval" / f"gsm8k_{part}.jsonl") for part in ("test", "train"))
    found = audit(test, Auditor(VICUNA, leaks=leaks)).counts()["evaluation item"]
    assert found >= 1_300  # of 1,319; the others have fewer words in a row
    assert audit(islice(train, 1_500), Auditor(VICUNA, leaks=leaks)).counts()["evaluation item"] <= 15


def test_rows_of_one_number_in_files_of_one_name_are_no_single_row() -> None:
    turns = (Turn("user", "What is it?"), Turn("assistant", "It is a heron."))
    both = [Conversation(turns, f"{folder}/chats.jsonl", 1) for folder in ("a", "b")]
    found = audit(both, Auditor(FORMATS["koala"]))
    assert [[each.kind for each in verdict.findings] for verdict in found.verdicts] == [
        [],
        ["duplicate conversation"],
    ]


def test_a_text_of_many_heads_of_keys_is_judged_in_a_moment() -> None:
    text = "-eyJhbGciOiJIUzI" * 10_000
    key = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTYifQ.c2lnbmF0dXJlMTIz"
    begun = time.process_time()
    rows = [Conversation((Turn("user", "Why?"), Turn("assistant", said))) for said in (text, key)]
    kinds = [
        {each.kind for each in verdict.findings}
        for verdict in audit(rows, Auditor(FORMATS["koala"])).verdicts
    ]
    assert ["personal data" in one for one in kinds] == [False, True]
    assert time.process_time() - begun < 5
