"""Stop strings over pieces of any kind."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.errors import UserError
from puna.generate.stops import StopStrings


def test_nothing_of_a_stop_comes_out() -> None:
    stops = StopStrings(["DEFGHIJ"])
    assert [stops.add(piece) for piece in ("DEF", "G", "HI", "J")] == ["", "", "", ""] and stops.ended
    stops = StopStrings(["DEFGHIJ"])
    assert [stops.add(piece) for piece in ("DEF", "G", "HI", "K")] == ["", "", "", "DEFGHIK"]
    assert not stops.ended
    stops = StopStrings(["\n\n", "Q:"])
    assert stops.add("5\nQ: x") == "5\n" and stops.ended


@given(st.lists(st.text("ab", min_size=1, max_size=4), max_size=3), st.lists(st.text("abc", max_size=4)))
def test_pieces_do_not_matter(stops: list[str], pieces: list[str]) -> None:
    text, shown, held = "".join(pieces), "", StopStrings(stops)
    for piece in pieces:
        shown += held.add(piece)
        assert not any(stop in shown for stop in stops)
        if held.ended:
            break
    else:
        shown += held.end()
    ends = [text.find(stop) for stop in stops if stop in text]
    first = min((text.find(stop) + len(stop) for stop in stops if stop in text), default=len(text))
    if ends:
        assert held.ended and text.startswith(shown) and len(shown) <= first
    else:
        assert shown == text


def test_an_empty_stop_is_refused() -> None:
    with pytest.raises(UserError, match="empty"):
        StopStrings(["a", ""])
