from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from puna.tokens.conversations import Conversation, Turn
from puna.tune.clean import Cleaner, answered, split


def turn(role: str, words: int, name: str = "w") -> Turn:
    return Turn({"u": "user", "a": "assistant", "s": "system", "t": "tool"}[role], " ".join([name] * words))


def talk(*turns: tuple[str, int], rejected: int = 0) -> Conversation:
    said = tuple(turn(role, words, f"w{place}") for place, (role, words) in enumerate(turns))
    return Conversation(said, "f", 1, turn("a", rejected) if rejected else None)


def words(turns: Sequence[Turn], marks: int = 6) -> int:
    """Words and the marks of a format."""
    return sum(len(turn.text.split()) + marks for turn in turns)


def test_no_round_is_lost_where_others_lose_one() -> None:
    conversation = talk(("u", 20), ("a", 20), ("u", 20), ("a", 40))
    pieces, lost = split(conversation, 100, words)
    assert lost == []
    assert [piece.turns for piece in pieces] == [conversation.turns[:2], conversation.turns[2:]]
    assert {(piece.source, piece.row) for piece in pieces} == {("f", 1)}


def test_a_round_that_does_not_fit_alone_goes_whole_and_is_named() -> None:
    conversation = talk(("s", 4), ("u", 5), ("a", 5), ("u", 5), ("a", 99), ("u", 5), ("a", 5))
    pieces, lost = split(conversation, 60, words)
    system, first, last = conversation.turns[:1], conversation.turns[1:3], conversation.turns[5:]
    assert lost == [2]
    assert [piece.turns for piece in pieces] == [(*system, *first), (*system, *last)]  # no piece has a gap
    assert split(conversation, 8, words) == ([], [1, 2, 3])


def test_the_rejected_answer_stays_with_the_last_round_and_has_to_fit() -> None:
    conversation = talk(("u", 5), ("a", 5), ("u", 5), ("a", 5), rejected=30)
    pieces, lost = split(conversation, 50, words)
    assert (len(pieces), lost) == (2, [])
    assert [piece.rejected for piece in pieces] == [None, conversation.rejected]
    pieces, lost = split(conversation, 40, words)
    assert ([piece.rejected for piece in pieces], lost) == ([None], [2])
    assert split(conversation, 80, words) == ([conversation], [])


ROUNDS = st.lists(
    st.tuples(st.integers(0, 30), st.lists(st.integers(0, 30), min_size=0, max_size=2)),
    min_size=0,
    max_size=9,
)


@given(ROUNDS, st.integers(0, 9), st.integers(10, 90), st.booleans(), st.booleans())
def test_pieces_fit_and_hold_every_round_that_fits(
    rounds: list[tuple[int, list[int]]], system: int, limit: int, has_system: bool, opens: bool
) -> None:
    turns = [("s", system)] if has_system else []
    turns += [("a", 3)] if opens else []
    for asked, answers in rounds:
        turns += [("u", asked), *(("a", answer) for answer in answers)]
    conversation = talk(*turns)
    head = conversation.turns[: int(has_system)]
    pieces, lost = split(conversation, limit, words)
    parts: list[list[Turn]] = []
    for each in conversation.turns[len(head) :]:
        if each.role == "user" or not parts:
            parts.append([])
        parts[-1].append(each)
    if words(conversation.turns) <= limit or not turns:
        assert (pieces, lost) == ([conversation], [])
        return
    fitting = [number for number, part in enumerate(parts, 1) if words([*head, *part]) <= limit]
    if parts:
        assert sorted([*fitting, *lost]) == list(range(1, len(parts) + 1))
    assert [t for piece in pieces for t in piece.turns[len(head) :]] == [
        t for n in fitting for t in parts[n - 1]
    ]
    assert all(piece.turns[: len(head)] == head for piece in pieces)
    assert all(words(piece.turns) <= limit for piece in pieces)
    starts = [
        next(n for n, part in enumerate(parts) if part[0] is piece.turns[len(head)]) for piece in pieces
    ]
    for start, piece in zip(starts, pieces, strict=True):  # a piece is as long as it can be
        taken = len([t for t in piece.turns[len(head) :] if t.role == "user"]) or 1
        behind = parts[start + taken] if start + taken < len(parts) else None
        assert behind is None or words([*piece.turns, *behind]) > limit


def test_only_what_is_asked_and_answered_stays() -> None:
    turns = talk(("s", 1), ("a", 1), ("u", 1), ("a", 1), ("u", 1)).turns
    assert answered(turns) == (turns[0], *turns[2:4])
    assert answered(talk(("u", 1)).turns) == ()
    assert answered(()) == ()


def said(*texts: str) -> Conversation:
    return Conversation(tuple(Turn(("user", "assistant")[n % 2], text) for n, text in enumerate(texts)))


def test_cleaners_of_sharegpt_count_what_they_drop() -> None:
    good = said("What is a puna?", "A high grassland in the Andes.")
    german = said("Was ist eine Puna?", "Eine hochgelegene Grassteppe in den Anden, über der Waldgrenze.")
    rows = [
        good,
        said("Only a question, which nobody answers"),
        Conversation((*good.turns, Turn("assistant", "And more of it."), Turn("user", "x"))),
        said("Is anybody there today?", "   "),
        said("Hi", "Hello"),
        said("What are you, after all?", "I was trained by OpenAI."),
        german,
        said("What is a puna?", "A high grassland in the Andes.", "Where else?", "In Peru."),
        said("What is a puna?", "Another answer, in English, is told here.", "An open end"),
    ]
    cleaner = Cleaner(languages=("en",))
    kept = list(cleaner.clean(rows))
    assert kept == [good, Conversation(rows[-1].turns[:2])]
    assert cleaner.dropped == {
        "one turn": 1, "roles out of order": 1, "empty turn": 1, "very short": 1, "blocked word": 1,
        "language": 1, "duplicate": 1, "": 0,
    }  # fmt: skip
    assert len(list(Cleaner(blocked=(), shortest=1).clean(rows))) == 5
