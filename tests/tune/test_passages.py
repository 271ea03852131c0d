"""Windows, passages and questions of documents; answers are judged by the words of their passages."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.errors import UserError
from puna.tokens import chat
from puna.tokens.conversations import Conversation, Turn
from puna.tune import finish, passages, personalize
from puna.tune.passages import Document
from tests.tune import documents


class Words:
    """A tokenizer whose tokens are words."""

    bos: tuple[int, ...] = ()
    bos_id, eos_id = 1, 2

    def encode(self, text: str) -> list[int]:
        return list(range(len(text.split())))

    encode_after = encode


words: Any = Words()
VICUNA = chat.FORMATS["vicuna_v1.1"]


def squeezed(text: str) -> str:
    return " ".join(text.split())


@given(
    st.lists(
        st.text("ab .\n", min_size=1, max_size=400) | st.just("One day. " * 300) | st.just("word " * 500),
        max_size=6,
    )
)
def test_windows_are_the_document_in_pieces_that_fit(parts: list[str]) -> None:
    document = Document("a.md", "A", "\n".join(parts))
    made = list(passages.windows(document, words, 384))
    assert all(0 < len(words.encode(text)) <= 384 for text in made)
    assert "".join("".join(made).split()) == "".join(document.text.split())


def test_a_window_ends_with_a_line_or_a_sentence() -> None:
    sentence = "The heron stands in the reeds and waits for a fish. "
    made = list(passages.windows(Document("a.txt", "A", sentence * 100), words, 384))
    assert len(made) > 1
    assert all(text.endswith("fish.") for text in made)


def test_passages_are_verbatim_and_are_asked_about_once() -> None:
    text = documents.TEXTS["boathouse.md"]
    document = Document("boathouse.md", "The boathouse", text)
    made = passages.passages([document])
    assert len(passages.passages([document, document])) == len(made)
    questions = [question for passage in made for question in passage.questions]
    assert len(questions) == len(set(questions)) and len(made) == 3
    assert questions[0] == "What is the boathouse?"
    assert "What does “The boathouse” say about Opening hours?" in questions
    assert questions[3] == "What does “The boathouse” say about April and October?"
    for passage in made:
        assert passage.text in squeezed(text)
        assert passage.text.endswith(".")


def test_what_a_pronoun_is_nobody_asks() -> None:
    line = "It is a wide bay with room for a hundred ships of any size and a customs house."
    (passage,) = passages.passages([Document("bay.txt", "Bay", line)])
    assert passage.questions == ("What does “Bay” say about hundred and customs?",)


def test_lists_tables_and_code_are_no_passages() -> None:
    text = "\n".join(
        (
            "- a point of a list that is long enough to be a passage, if it were one.",
            "| a | table | of | many | cells | that | is | long | enough |",
            "> quoted words of somebody else that are long enough to be a passage.",
        )
    )
    assert passages.passages([Document("a.md", "A", text)]) == []


def test_a_tenth_of_the_passages_is_held_out_and_the_same_ones_always() -> None:
    many = [
        Document(f"{n}.txt", f"T{n}", f"Ship number {n} sails to harbour {n * n} with {n} barrels of salt.")
        for n in range(1000)
    ]
    made = passages.passages(many)
    held = {passage.text for passage in made if passage.held_out}
    assert 70 <= len(held) <= 130
    again = {passage.text for passage in passages.passages(many[:500]) if passage.held_out}
    assert again == {text for text in held if int(re.findall(r"\d+", text)[0]) < 500}


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("Seven ferrymen founded the club in 1894.", True),
        ("It was founded by ferrymen in 1894", True),
        ("The club was founded.", False),
        ("", False),
    ],
)
def test_an_answer_is_right_by_the_words_that_the_question_does_not_tell(answer: str, right: bool) -> None:
    entry = {
        "question": "Who founded the club?",
        "text": "Seven ferrymen founded the club in 1894.",
    }
    assert passages.is_right(answer, entry) is right


def test_a_question_that_tells_all_has_no_right_answer() -> None:
    entry = {"question": "Seven ferrymen in 1894?", "text": "Seven ferrymen in 1894."}
    assert not passages.is_right("Seven ferrymen in 1894.", entry)


def asked(without: int, read: int) -> dict[str, Any]:
    return {
        name: [{"right": number < right} for number in range(10)]
        for name, right in (("without", without), ("with", read))
    }


def test_what_is_said_of_looking_up() -> None:
    told = passages.advice(asked(0, 4), asked(2, 8))
    assert "2 are answered right from memory (0 before tuning), 8 with the passage" in told
    assert "would serve better" in told
    assert "would serve better" not in passages.advice(asked(0, 4), asked(7, 8))
    assert passages.advice(asked(0, 0), {"without": [], "with": []}) == ""


def test_a_folder_is_sorted_into_chats_and_documents(tmp_path: Path) -> None:
    folder = documents.write(tmp_path)
    (folder / "scan.pdf").write_bytes(b"%PDF-1.4")
    (folder / "links.txt").write_text("https://example.org/a.txt\n")
    (folder / ".hidden.txt").write_text("A hidden file that nobody is to read or learn from.")
    (folder / "settings.json").write_text('{"colour": "blue"}')
    found = personalize.find(folder)
    assert [path.name for path in found.chats] == sorted(documents.CHATS)
    assert sorted(path.name for _, path in found.documents) == sorted([*documents.TEXTS, "settings.json"])
    assert sorted(Path(text.partition(": ")[0]).name for text in found.unread) == ["links.txt", "scan.pdf"]


def test_what_is_collected_of_a_folder(tmp_path: Path) -> None:
    found = personalize.find(documents.write(tmp_path))
    made = personalize.collect(found, "Ann", VICUNA, words)
    assert made.counts["documents"] == 10 and made.counts["chats"] == 3
    assert made.counts["questions held out"] == len(made.held_out) > 0
    (told,) = made.personal
    assert "ann-and-bo.txt, row 1: 1 email" in told
    asked = {row["messages"][0]["content"] for row in made.sets["questions"]}
    assert not asked & {entry["question"] for entry in made.held_out}
    said = [turn for row in made.sets["chats"] for turn in row["messages"]]
    assert {turn["role"] for turn in said} == {"user", "assistant"}
    assert all(turn["content"].endswith("love") for turn in said if "towel" in turn["content"])
    text = " ".join(row["messages"][0]["content"] for row in made.sets["texts"])
    assert "a white heron on blue with seven oars" in squeezed(text) and "<p>" not in text


def test_nobody_of_that_name_is_told_with_those_who_are_there(tmp_path: Path) -> None:
    found = personalize.find(documents.write(tmp_path))
    with pytest.raises(UserError, match=r"Eve is not in it.*Ann \(3 messages\)"):
        personalize.collect(found, "Eve", VICUNA, words)
    with pytest.raises(UserError, match="whose turns shall be learned"):
        personalize.collect(found, "", VICUNA, words)


def test_a_folder_without_anything_to_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(UserError, match="nothing that can be read"):
        personalize.find(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        personalize.find(tmp_path / "photos")


def test_the_recipe_is_the_same_until_somebody_edits_it(tmp_path: Path) -> None:
    made = personalize.collect(personalize.find(documents.write(tmp_path / "club")), "Ann", VICUNA, words)
    text = personalize.recipe("club", Path("/models/base.gguf"), made)
    keys = tomllib.loads(text)
    assert keys["name"] == "club" and keys["base"]["weights"] == "/models/base.gguf"
    assert set(keys["data"]) == {"chats", "questions", "texts"}
    assert keys["data"]["texts"]["template"] == "text" and "template" not in keys["data"]["chats"]
    out = tmp_path / "out"
    personalize.write(made, out, text)
    files = {path: path.stat().st_mtime_ns for path in out.rglob("*.*") if path.is_file()}
    assert {path.name for path in files} == {
        *("chats.jsonl", "questions.jsonl", "texts.jsonl", "held_out.json", personalize.RECIPE)
    }
    personalize.write(made, out, text)
    assert {path: path.stat().st_mtime_ns for path in files} == files
    (out / personalize.RECIPE).write_text(text.replace("learning_rate", "# mine\nlearning_rate"))
    with pytest.raises(UserError, match="was edited"):
        personalize.write(made, out, text)


def test_a_result_is_no_part_of_the_folder(tmp_path: Path) -> None:
    folder = documents.write(tmp_path)
    before = personalize.find(folder)
    made = personalize.collect(before, "Ann", VICUNA, words)
    personalize.write(made, folder / "out", personalize.recipe("club", Path("base"), made))
    assert personalize.find(folder) == before


def test_a_link_to_a_folder_is_not_followed(tmp_path: Path) -> None:
    """Two links to the folder that they are in would be 2^40 ways through it."""
    documents.write(tmp_path / "club", chats=False)
    for name in ("one", "two"):
        (tmp_path / "club" / name).symlink_to(tmp_path / "club")
    assert len(personalize.find(tmp_path / "club").documents) == 10


def test_a_passage_is_neither_a_word_nor_a_page() -> None:
    long = f"The mill is a house of {'stone and ' * 100}wood."
    text = f"Yes. {'The weir is a wall in the river that the members built by hand. ' * 2}\n\n{long}\n"
    made = passages.passages([Document("mill.md", "Mill", text), Document("no.md", "No", f"No.\n\n{long}")])
    assert made and all(40 <= len(each.text) <= passages.LONGEST for each in made)


@pytest.mark.parametrize("content", ["", "{", "5", "[1]", '[{"question": "Who?"}]', '{"question": "Who?"}'])
def test_a_file_that_holds_no_questions_is_told_when_a_run_is_planned(tmp_path: Path, content: str) -> None:
    path = tmp_path / "held_out.json"
    settings = finish.PassagesStageSettings(base=None, held_out=path)
    with pytest.raises(UserError, match=r"after\.passages: .*held_out\.json"):
        finish.content(settings)
    path.write_text(content)
    with pytest.raises(UserError, match=r"after\.passages: .*held_out\.json"):
        finish.content(settings)
    path.write_text('[{"question": "Who?", "text": "Ann."}]')
    assert finish.content(settings).keys() == {"held_out"}


def test_a_small_folder_is_seen_more_often(tmp_path: Path) -> None:
    made = personalize.collect(personalize.find(documents.write(tmp_path)), "Ann", VICUNA, words)
    for tokens, epochs in ((100, personalize.LONGEST_EPOCHS), (personalize.TOKENS, 1), (10**9, 1)):
        text = personalize.recipe("club", Path("base"), made._replace(tokens=tokens))
        assert tomllib.loads(text)["stages"][0]["epochs"] == epochs
    for base in (Path('/my "models"/модель 🦙.gguf'), Path("C\\new")):
        assert tomllib.loads(personalize.recipe("club", base, made))["base"]["weights"] == str(base)


def test_of_equal_answers_as_many_are_learned_as_the_root_of_their_number() -> None:
    def talk(number: int) -> Conversation:
        greeting = (Turn("user", f"Hello {number}"), Turn("assistant", "Hi!"))
        own = (Turn("user", "What is it?"), Turn("assistant", f"{number}"))
        return Conversation((Turn("system", "Be kind."), *greeting, *own))

    made = list(personalize.without_repeats([talk(number) for number in range(12)]))
    assert [number for number, each in enumerate(made) if len(each.turns) == 5] == [0, 1, 4, 9]
    assert made[-1].turns == (
        Turn("system", "Be kind."),
        Turn("user", "What is it?"),
        Turn("assistant", "11"),
    )
    one = Conversation((Turn("user", "Thanks"), Turn("assistant", "Sure."), Turn("assistant", "Bye.")))
    for count, kept in ((1, 1), (2, 2), (16, 4), (100, 10)):
        assert list(personalize.without_repeats([one] * count)) == [one] * kept
    said = Conversation((Turn("system", "Be kind."), Turn("assistant", "Hello!")))  # to no question
    assert list(personalize.without_repeats([said])) == [said]


def test_what_nobody_answers_is_no_repeat() -> None:
    def talk(number: int) -> Conversation:
        asked = (Turn("user", f"I have {number} cats."), Turn("user", "What do they eat?"))
        return Conversation((*asked, Turn("assistant", f"{number} fish."), Turn("user", "Thanks.")))

    given = [talk(number) for number in range(4)]
    assert list(personalize.without_repeats(given)) == given
