import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.errors import UserError
from puna.tokens.conversations import ROLES, Conversation, Turn
from puna.tune import chat_log, readers
from puna.tune.readers import BadRow, read


def user(text: str) -> Turn:
    return Turn("user", text)


def answer(text: str, train: bool = True) -> Turn:
    return Turn("assistant", text, train)


def read_rows(*rows: Any, as_name: str = "") -> list[Conversation | BadRow]:
    return [each for n, row in enumerate(rows, 1) for each in readers.read_row(row, "some.jsonl", n, as_name)]


def turns_of(row: Any, as_name: str = "") -> tuple[Turn, ...]:
    (one,) = read_rows(row, as_name=as_name)
    assert isinstance(one, Conversation), one
    return one.turns


@pytest.mark.parametrize(
    "row",
    [
        {"id": "x", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]},
        {"messages": [{"from": "user", "content": "Hi"}, {"from": "assistant", "content": "Hello"}]},
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "H"}, {"text": "i"}]},
                {"role": "assistant", "content": ["Hello"]},
            ]
        },
        [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}],
        [{"user": "Hi", "bot": "Hello"}],
        {"user": "Hi", "bot": "Hello"},
        {"user_input": "Hi", "completion": "Hello", "score": 5},
        {"instruction": "Hi", "input": "", "output": "Hello"},
        {"instruction": "Hi", "instances": [{"input": "", "output": "Hello"}]},
        {"inputs": "Hi", "targets": "Hello", "task": "greetings"},
        {"prompt": "Hi", "completion": "Hello"},
        {
            "prompt": [{"role": "user", "content": "Hi"}],
            "completion": [{"role": "assistant", "content": "Hello"}],
        },
        {"Question": "Hi", "Answer": "Hello"},
        {"text": "<human>: Hi\n<bot>: Hello", "metadata": {}},
        {"conversation": ["Hi", "Hello"]},
        {
            "message_tree_id": "t",
            "prompt": {
                "text": "Hi",
                "role": "prompter",
                "replies": [
                    {"text": "Eh?", "role": "assistant", "rank": 1, "replies": []},
                    {"text": "Gone", "role": "assistant", "rank": 0, "deleted": True, "replies": []},
                    {
                        "text": "Hello",
                        "role": "assistant",
                        "rank": 0,
                        "replies": [{"text": "Thanks", "role": "prompter", "rank": None, "replies": []}],
                    },
                ],
            },
        },
    ],
)
def test_forms_of_one_round(row: Any) -> None:
    assert turns_of(row) == (user("Hi"), answer("Hello"))


def test_prompts_have_system_and_input() -> None:
    asked = Turn("user", "Add.\n\n1, 2", instruction="Add.")
    row = {"system_prompt": "Be brief.", "instruction": "Add.", "input": "1, 2", "output": "3"}
    assert turns_of(row) == (Turn("system", "Be brief."), asked, answer("3"))
    messages = [{"role": "developer", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    assert turns_of({"system": "Be brief.", "messages": messages})[0] == Turn("system", "Be kind.")
    assert turns_of({"id": "koala_0", "prompt": "Who?"}) == (user("Who?"),)


def test_turns_that_are_not_learned() -> None:
    row = {
        "messages": [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b", "weight": 0},
            {"role": "user", "content": "c"},
            {"role": "assistant", "content": "d", "train": True},
        ]
    }
    assert turns_of(row)[1::2] == (answer("b", train=False), answer("d"))


PAIR = (user("Hi"), answer("Hello"))


@pytest.mark.parametrize(
    "row",
    [
        {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello", "rejected": "\n\nHuman: Hi\n\nAssistant: No"},
        {"prompt": "\n\nHuman: Hi\n\nAssistant:", "chosen": " Hello".strip(), "rejected": "No"},
        {"prompt": "Hi", "chosen": "Hello", "rejected": "No"},
        {
            "context": [{"from": "user", "content": "Hi"}],
            "chosen": [{"from": "assistant", "content": "Hello"}],
            "rejected": [{"from": "assistant", "content": "No"}],
        },
        {
            "prompt": "Hi",
            "chosen": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}],
            "rejected": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "No"}],
        },
        {"instruction": "Hi", "output_1": "No", "output_2": "Hello", "preference": 2},
        {"question": {"full_text": "Hi"}, "answer_0": "Hello", "answer_1": "No", "score_0": 1, "score_1": -1},
    ],
)
def test_forms_of_pairs(row: Any) -> None:
    (one,) = read_rows(row)
    assert isinstance(one, Conversation)
    assert (one.turns, one.rejected) == (PAIR, answer("No"))


def test_summaries_and_answers_of_people() -> None:
    info = {"id": "t3", "subreddit": "r", "title": "T", "post": "Long."}
    row = {"info": info, "summaries": [{"text": " bad"}, {"text": " good"}], "choice": 1, "worker": "w"}
    (one,) = read_rows(row)
    assert isinstance(one, Conversation)
    assert one.turns == (user("SUBREDDIT: r\nTITLE: T\nPOST: Long.\nTL;DR:"), answer("good"))
    assert one.rejected == answer("bad")
    hc3 = {"question": "Why?", "human_answers": ["So."], "chatgpt_answers": ["Thus."], "source": "x"}
    assert [each.turns[1].text for each in read_rows(hc3) if isinstance(each, Conversation)] == [
        "So.",
        "Thus.",
    ]


def test_prompts_that_differ_are_told_with_what_was_read() -> None:
    row = {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: other\n\nAssistant: b"}
    (bad,) = read_rows(row)
    assert isinstance(bad, BadRow)
    assert bad.kind == readers.DIFFERENT_PROMPTS
    assert bad.conversation == Conversation((user("a"), answer("b")), "some.jsonl", 1, answer("b"))


@pytest.mark.parametrize("preference", [0, None])
def test_a_pair_without_a_choice(preference: int | None) -> None:
    (bad,) = read_rows({"instruction": "a", "output_1": "b", "output_2": "c", "preference": preference})
    assert isinstance(bad, BadRow)
    assert bad.kind == readers.NO_CHOICE


@pytest.mark.parametrize(
    ("row", "kind", "words"),
    [
        ({"messages": [{"role": "oracle", "content": "x"}]}, readers.UNKNOWN_ROLE, ["'oracle'", "assistant"]),
        ({"colour": "red"}, readers.UNREADABLE, ["colour", "role/content"]),
        ({"text": "only words"}, readers.UNREADABLE, ["<human>:"]),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            readers.UNREADABLE,
            ["image_url"],
        ),
        (
            {"messages": [{"role": "assistant", "content": None, "tool_calls": [{}]}]},
            readers.UNREADABLE,
            ["tool_calls"],
        ),
        ({"instruction": "a", "output": "\ud83d"}, readers.UNREADABLE, ["surrogate"]),
        ({"instruction": "a", "output": 7}, readers.UNREADABLE, ["TypeError"]),
        ({"messages": [{"content": "x"}]}, readers.UNREADABLE, ["without a role"]),
    ],
)
def test_rows_that_cannot_be_read(row: Any, kind: str, words: list[str]) -> None:
    (bad,) = read_rows(row)
    assert isinstance(bad, BadRow)
    assert (bad.kind, bad.source, bad.row) == (kind, "some.jsonl", 1)
    assert all(word in bad.message for word in words), bad.message
    assert bad.raw or bad.conversation


def node(parent: str | None, role: str, *parts: Any, **more: Any) -> dict[str, Any]:
    kind = more.pop("kind", "text")
    message = {"author": {"role": role}, "content": {"content_type": kind, "parts": list(parts)}, **more}
    return {"parent": parent, "message": message}


def test_the_current_path_of_a_chatgpt_export() -> None:
    hidden = {"metadata": {"is_visually_hidden_from_conversation": True}}
    mapping = {
        "root": {"parent": None, "message": None},
        "s": node("root", "system", ""),
        "h": node("s", "user", "profile", **hidden),
        "q": node("h", "user", "Draw it."),
        "old": node("q", "assistant", "First try."),
        "call": node("q", "assistant", "print(1)", recipient="python"),
        "out": node("call", "tool", "1"),
        "code": node("out", "assistant", "x = 1", kind="code"),
        "new": node("code", "assistant", "Here", recipient="all"),
        "more": node("new", "assistant", "it is."),
        "q2": node("more", "user", {"asset_pointer": "file"}, "This one.", kind="multimodal_text"),
        "a2": node("q2", "assistant", "Done."),
    }
    row = {"title": "t", "mapping": mapping, "current_node": "a2"}
    assert turns_of(row) == (user("Draw it."), answer("Here\n\nit is."), user("This one."), answer("Done."))
    mapping["root"]["parent"] = "a2"  # a damaged file: the way back is a circle
    assert turns_of(row)[-1] == answer("Done.")


CHAT = [
    [{"sender": "u1", "text": "Hello"}, {"sender": "u1", "text": "How are you?"}],
    [{"sender": "u2", "text": "Fine"}, {"sender": "u2", "text": "and you?"}],
    [{"sender": "u1", "text": "Good"}],
]


def test_messages_of_one_sender_are_joined() -> None:
    row = {"messages": CHAT, "ratings": {"witty": 1}}
    joined = (user("Hello\nHow are you?"), answer("Fine\nand you?"))
    assert turns_of(row, "@second") == joined == turns_of(row, "U2")
    with pytest.raises(UserError, match=r"^A chat of u1 \(3 messages\), u2 \(2 messages\)"):
        read_rows(row)
    with pytest.raises(UserError, match="Bob is not in it"):
        read_rows(row, as_name="Bob")


def test_other_people_keep_their_names_where_they_are_several() -> None:
    chat = [{"from": name, "text": text} for name, text in (("A", "x"), ("B", "y"), ("C", "z"))]
    assert turns_of({"messages": chat}, "C") == (user("A: x\nB: y"), answer("z"))


WHATSAPP = """\u200e12/31/23, 9:41 PM - Messages and calls are end-to-end encrypted.
12/31/23, 9:42\u202fPM - Ann Lee: unheard
12/31/23, 9:45 PM - Bob: Are you there?
so late: really
12/31/23, 9:46 PM - Bob: <Media omitted>
12/31/23, 9:47 PM - Ann Lee: Yes
1/1/24, 0:01 AM - Ann Lee: Happy new year
1/1/24, 8:00 AM - Bob: You too
1/1/24, 8:01 AM - Ann Lee: Thanks
1/2/24, 8:01 AM - Bob: no answer to this
"""
BRACKETS = """[31.12.23, 21:45:05] Bob: Are you there?
so late: really
\u200e[31.12.23, 21:46:00] Bob: \u200eimage omitted
[31.12.23, 21:47:00] Ann Lee: Yes
[01.01.24, 00:01:00] Ann Lee: Happy new year
[01.01.24, 08:00:00] Bob: You too
[01.01.24, 08:01:00] Ann Lee: Thanks
"""
PLAIN = """Bob: Are you there?
so late: really
Ann Lee: Yes
Ann Lee: Happy new year
Bob: You too
Ann Lee: Thanks
"""
ROUNDS = [
    user("Are you there?\nso late: really"),
    answer("Yes\nHappy new year"),
    user("You too"),
    answer("Thanks"),
]


def test_chat_logs(tmp_path: Path) -> None:
    found = {}
    for name, text in (("whatsapp", WHATSAPP), ("brackets", BRACKETS), ("plain", PLAIN)):
        path = tmp_path / f"{name}.txt"
        path.write_text(text)
        found[name] = list(read(path, "ann lee"))
    assert [(each.row, list(each.turns)) for each in found["whatsapp"]] == [(2, ROUNDS[:2]), (8, ROUNDS[2:])]
    assert [(each.row, list(each.turns)) for each in found["brackets"]] == [(1, ROUNDS[:2]), (6, ROUNDS[2:])]
    assert [(each.row, list(each.turns)) for each in found["plain"]] == [(1, ROUNDS)]
    with pytest.raises(UserError, match=r"plain.txt: A chat of Ann Lee \(3 messages\), Bob \(2 messages\)"):
        list(read(tmp_path / "plain.txt"))
    (tmp_path / "notes.txt").write_text("Just words.\nNote: none of them\nsaid by anybody\nat all.\n")
    with pytest.raises(UserError, match=r"notes\.txt: no chat log"):
        list(read(tmp_path / "notes.txt", "Ann"))


ROW = {"instruction": "Hi", "output": "Hello"}


def test_files(tmp_path: Path) -> None:
    text = json.dumps(ROW)
    (tmp_path / "a.json").write_text(json.dumps([ROW, ROW], indent=1))
    (tmp_path / "b.jsonl").write_text(f"{text}\n\n{{broken\n{text}\n")
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(f"\ufeff{text}\n".encode()))
    (tmp_path / "d.json").write_text(f"{text}\n{text}\n")
    (tmp_path / "e.json").write_text(json.dumps({"data": [ROW]}))
    (tmp_path / "f.json").write_text(json.dumps({"one": ROW, "two": ROW}))
    (tmp_path / "g.json").write_text(json.dumps(ROW))
    (tmp_path / "ignored.md").write_text("no data")
    found = [(Path(each.source).name[0], each.row, isinstance(each, BadRow)) for each in read(tmp_path)]
    assert found == [
        ("a", 1, False),
        ("a", 2, False),
        ("b", 1, False),
        ("b", 3, True),
        ("b", 4, False),
        ("c", 1, False),
        ("d", 1, False),
        ("d", 2, False),
        ("e", 1, False),
        ("f", 1, False),
        ("f", 2, False),
        ("g", 1, False),
    ]
    assert readers.lines(tmp_path / "a.json") == [2, 6]
    assert readers.lines(tmp_path / "b.jsonl") == []


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[{]")
    (tmp_path / "b.jsonl").write_bytes(b'{"a": 1}\n"\xff"\n')
    (tmp_path / "c.jsonl.gz").write_bytes(b"\x1f\x8bnot")
    (tmp_path / "empty").mkdir()
    for name, words in (
        ("a.json", "no JSON"),
        ("b.jsonl", "text in UTF-8"),
        ("c.jsonl.gz", "cannot be read"),
        ("d.jsonl", "No such file"),
        ("empty", "no data in it"),
    ):
        with pytest.raises(UserError, match=words):
            list(read(tmp_path / name))


REAL = {
    "alpaca_eval/alpaca-7b/annotations.json": (789, 16),  # pairs; those that nobody preferred
    "alpaca_eval/text_davinci_001/annotations.json": (784, 21),
    "alpaca_eval/vicuna-13b/annotations.json": (803, 2),
    "alpaca_farm/eval_gpt-3.5-turbo-0301.json": (805, 0),
    "alpaca_farm/outputs_rlhf.json": (252, 0),
    "alpaca_seed/seed_tasks.jsonl": (175, 0),
    "colossalchat/lora_sft_data.jsonl": (10, 0),
    "colossalchat/test_dpo_data.jsonl": (1, 0),
    "colossalchat/test_sft_data.jsonl": (1, 0),
    "fastchat_dummy/dummy_conversation.json": (500, 0),
    "gpteacher/roleplay-simple-deduped-roleplay-dataset.json": (3146, 0),
    "hh_rlhf/test-0-1499.jsonl.gz": (1499, 1),  # different prompts
    "instruction_wild/seed_prompts_ch.jsonl": (429, 0),
    "instruction_wild/user_2.jsonl": (246, 2),  # lines that are no JSON
    "instruction_wild/user_3.jsonl": (198, 3),
    "koala_test_set/koala_test_set.jsonl": (180, 0),
    "oasst_en_100/en_100_message.jsonl": (100, 0),
    "oasst_en_100/en_100_tree.jsonl": (100, 0),
    "self_instruct/user_oriented_instructions.jsonl": (252, 0),
    "wizardlm_testset/WizardLM_testset.jsonl": (218, 0),
}


def test_real_files(data: Path) -> None:
    for name, (good, bad) in REAL.items():
        found = Counter(type(each) for each in read(data / "chat" / name))
        assert (found[Conversation], found[BadRow]) == (good, bad), name
    gsm8k = list(read(data / "eval" / "gsm8k_train.jsonl"))
    assert len(gsm8k) == 7473
    assert all(isinstance(row, Conversation) and len(row.turns) == 2 for row in gsm8k)


MORE = (
    "chosen rejected role from content value text sender system input instances mapping current_node replies "
    "message_tree_id output_1 output_2 preference parent message author info summaries choice human_answers "
    "chatgpt_answers weight"
)
KEYS = "|".join((readers.MESSAGES, readers.PROMPTS, readers.ANSWERS, *MORE.split())).split("|")
WORDS = st.sampled_from(
    ["user", "gpt", "oracle", "", "text", "\n\nHuman: a\n\nAssistant: b", "<human>: a", "\udc00"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 3) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=250)
@given(st.dictionaries(st.sampled_from(KEYS), JSON, min_size=1, max_size=5) | JSON)
def test_any_json_is_a_conversation_or_told(row: Any) -> None:
    try:
        found = list(readers.read_row(row, "x", 1))
    except UserError as error:
        assert "whose turns shall be learned" in str(error)
        return
    for each in found:
        if isinstance(each, Conversation):
            assert all(isinstance(turn.text, str) and turn.role in ROLES for turn in readers.said(each))
        else:
            assert each.message and (each.conversation or each.raw)


LINES = st.sampled_from(
    ["Ann: a", "Bob: b", "no name", "", "1/2/24, 9:41 PM - Ann: c", "[1.2.24, 21:41] Bob: d", "Note: x"]
)


@given(st.lists(LINES, max_size=12).map("\n".join), st.sampled_from(["ann", "Bob", "@second", ""]))
def test_any_text_is_a_chat_or_told(text: str, as_name: str) -> None:
    try:
        found = list(chat_log.conversations(text, as_name))
    except chat_log.Nameless:
        return
    for row, turns in found:
        assert 1 <= row <= text.count("\n") + 1
        assert [turn.role for turn in turns] == ["user", "assistant"] * (len(turns) // 2)
        assert all(turn.text.strip() for turn in turns)


def test_a_text_in_an_object_is_read_and_never_its_keys() -> None:
    asked = {"role": "user", "content": {"type": "text", "text": "Hi"}}
    assert turns_of({"messages": [asked, {"role": "assistant", "content": "Hello"}]})[0] == user("Hi")
    parts = {"role": "assistant", "content": {"content_type": "text", "parts": ["Hello"]}}
    (bad,) = read_rows({"messages": [asked, parts]})
    assert isinstance(bad, BadRow) and bad.kind == readers.UNREADABLE and "parts" in bad.message


@pytest.mark.parametrize(("asked", "told"), [("instruction", "response"), ("question", "answer")])
def test_a_context_beside_a_question_is_its_input(asked: str, told: str) -> None:
    row = {asked: "Who built it?", "context": "Bo built the mill.", told: "Bo.", "category": "qa"}
    question = Turn("user", "Who built it?\n\nBo built the mill.", instruction="Who built it?")
    assert turns_of(row) == (question, answer("Bo."))
    assert turns_of({**row, "context": ""}) == (user("Who built it?"), answer("Bo."))
    assert turns_of({"context": "Hi", "response": "Hello"}) == (user("Hi"), answer("Hello"))
    (bad,) = read_rows({**row, "context": {"title": ["Mill"], "sentences": [["Bo built it."]]}})
    assert isinstance(bad, BadRow) and bad.kind == readers.UNREADABLE


def test_json_that_python_does_not_take_is_told_by_its_place(tmp_path: Path) -> None:
    deep, long = "[" * 100_000, '[{"prompt": ' + "1" * 5_000 + "}]"
    for name, text in (("deep.json", deep), ("long.json", long)):
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=name):
            list(read(tmp_path / name))
    (tmp_path / "rows.jsonl").write_text(f'{deep}\n{long}\n{{"prompt": "Hi", "completion": "Hello"}}\n')
    *bad, last = read(tmp_path / "rows.jsonl")
    assert [each.row for each in bad if isinstance(each, BadRow)] == [1, 2] and isinstance(last, Conversation)


def test_an_instruction_that_is_no_text_is_none() -> None:
    told = {"role": "user", "content": "Hi", "instruction": {"text": "x"}}
    turns = turns_of({"messages": [told, {"role": "assistant", "content": "Hello"}]})
    assert turns == (user("Hi"), answer("Hello")) and hash(turns)


def test_what_is_seen_of_a_bad_row_is_text() -> None:
    """The audit goes on with it, and writes it."""
    half = {"chosen": "\n\nHuman: a\n\nAssistant: \ud83d", "rejected": "\n\nHuman: b\n\nAssistant: c"}
    for row in (half, {"chosen": ["a", 5], "rejected": ["b", "c"]}):
        (bad,) = read_rows(row)
        assert isinstance(bad, BadRow) and bad.conversation is None and bad.raw


def test_tables_and_documents_are_told_by_their_suffix(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("user,bot\nHello,Hi\n")
    with pytest.raises(UserError, match=r"d\.csv: \.csv is not read; write its rows into \.json"):
        list(read(path))
