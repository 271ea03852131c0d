"""How the report writes things down: text that is safe in HTML, numbers with units, tables and lists of
facts."""

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

NONE = "–"  # in place of a number that is not there
UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


class Html(str):
    """Text that is markup already, and must not be escaped again."""

    __slots__ = ()


def escape(value: Any) -> Html:
    """Any value as HTML; what HTML cannot hold (control characters, lone surrogates) becomes U+FFFD."""
    return value if isinstance(value, Html) else Html(html.escape(UNPRINTABLE.sub("\ufffd", str(value))))


def number(value: Any) -> float | None:
    """`value` as a float; None for what is no number, not finite, or beyond 1e300 (no chart has room for it);
    under 1e-290 it is 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e300:
        return None
    return float(value) if abs(value) > 1e-290 else 0.0


def figures(value: Any, digits: int = 3) -> str:
    """A number with so many significant figures: 0.0123, 4.57, 1,235."""
    found = number(value)
    if found is None:
        return NONE
    return f"{found:,.0f}" if abs(found) >= 10 ** (digits - 1) else f"{found:.{digits}g}"


def _scaled(value: Any, units: Sequence[str], whole_below: float) -> str:
    found = number(value)
    if found is None:
        return NONE
    if abs(found) < whole_below:
        told = f"{found:,.0f}" if found == int(found) else figures(found)
        return f"{told}\xa0{units[0]}".rstrip("\xa0")
    place = 0
    while abs(found) >= 999.5 and place < len(units) - 1:
        found, place = found / 1000, place + 1
    return f"{figures(found)}\xa0{units[place]}"


def count(value: Any) -> str:
    """9,876 or 12.3 M."""
    return _scaled(value, ("", "k", "M", "B", "T"), 9999.5)


def size(value: Any) -> str:
    """Bytes in powers of 1000: 532 B, 1.23 GB."""
    return _scaled(value, ("B", "kB", "MB", "GB", "TB", "PB"), 999.5)


def duration(value: Any) -> str:
    """Seconds as 0.42 s, 45 s, 3 min 20 s, 2 h 05 min, 3 d 4 h."""
    seconds = number(value)
    if seconds is None or seconds < 0:
        return NONE
    if seconds < 59.5:
        return f"{figures(seconds, 2)}\xa0s" if seconds else "0\xa0s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}\xa0min {whole % 60:02d}\xa0s"
    minutes = round(seconds / 60)
    if minutes < 48 * 60:
        return f"{minutes // 60}\xa0h {minutes % 60:02d}\xa0min"
    hours = round(seconds / 3600)
    return f"{hours // 24}\xa0d {hours % 24}\xa0h"


def energy(value: Any, *, measured: bool = True) -> str:
    """kWh as 3.77 Wh below a tenth of a kWh, else 12.3 kWh or 449 MWh; about 4 Wh where the power behind it
    was assumed and not measured."""
    return _thousands(value, ("Wh", "kWh", "MWh", "GWh"), measured)


def carbon(value: Any, *, measured: bool = True) -> str:
    """Kilograms of carbon dioxide as 2.1 g, 12.3 kg or 449 t; about 2 g where they come from an assumed
    power."""
    return _thousands(value, ("g", "kg", "t"), measured)


def _thousands(value: Any, units: Sequence[str], measured: bool) -> str:
    """A number in the second of some units, in the first below a tenth; to one digit where it is assumed."""
    found = number(value)
    if found is None:
        return NONE
    found = found if measured else float(f"{found:.1g}")
    small = f"{figures(1000 * found)}\xa0{units[0]}"
    return "about\xa0" * (not measured) + (small if abs(found) < 0.1 else _scaled(found, units[1:], 0))


def percent(value: Any, digits: int = 1) -> str:
    """A share of one as 12.3 %."""
    found = number(value)
    return NONE if found is None else f"{100 * found:.{digits}f}\xa0%"


def numbers(values: Iterable[Any]) -> list[float]:
    """Those that are numbers."""
    return [found for value in values if (found := number(value)) is not None]


def total(values: Iterable[Any]) -> float | None:
    """Sum of what are numbers; None without any."""
    found = numbers(values)
    return sum(found) if found else None


def mean(values: Iterable[Any]) -> float | None:
    """Mean of what are numbers; None without any."""
    found = numbers(values)
    return sum(found) / len(found) if found else None


def table(
    caption: str,
    head: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    foot: Sequence[Any] = (),
    words: Sequence[int] = (),
    shown: bool = True,
) -> Html:
    """A table in a box of its own that scrolls. The first cell of a row names it; words: columns of text,
    which stand left; shown: whether the caption is seen, or only read out."""

    def line(cells: Sequence[Any]) -> str:
        first, *others = cells
        told = (f"<td{look(place)}>{escape(cell)}</td>" for place, cell in enumerate(others, 1))
        return f'<tr><th scope="row">{escape(first)}</th>{"".join(told)}</tr>'

    def look(place: int) -> str:
        return ' class="word"' if place in words else ""

    names = "".join(f'<th scope="col"{look(place)}>{escape(name)}</th>' for place, name in enumerate(head))
    tail = f"<tfoot>{line(foot)}</tfoot>" if foot else ""
    return Html(
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}">'
        f"<table>{f'<caption>{escape(caption)}</caption>' if shown else ''}"
        f"<thead><tr>{names}</tr></thead><tbody>{''.join(map(line, rows))}</tbody>{tail}</table></div>"
    )


def facts(pairs: Mapping[str, Any], look: str = "facts") -> Html:
    """Named values side by side; those that are None or "–" are left out."""
    known = {name: value for name, value in pairs.items() if value not in (None, NONE, "")}
    told = (f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in known.items())
    return Html(f'<dl class="{look}">{"".join(told)}</dl>' if known else "")
