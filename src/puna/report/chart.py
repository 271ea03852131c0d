"""Small charts as inline SVG: lines, grouped bars, a funnel, and the graph of stages.

Every function gives HTML that needs no script: colours and sizes come from the CSS of the page (classes `c0`
to `c7` for series), values can be read by hovering, and each drawing says in its title what it shows. Names
and labels are escaped here.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from puna.report.markup import Html, escape, number, numbers

COLOURS = 8  # series classes c0..c7 in the style sheet
MOST_POINTS = 400  # of one line; more are thinned to the extremes of equal stretches
MARKED_POINTS = 40  # a line with at most so many points shows them as dots

Point = tuple[float, float]


def limits(low: float, high: float) -> tuple[float, float]:
    """The ends of an axis: those of the data with a twenty-fifth of room, but 0 stays an end, and begins what
    starts close to it; where all values are one, some room about it."""
    # One value, or none that floats can tell apart.
    if high - low <= max(1e-9 * abs(low), 1e-9 * abs(high), 1e-290):
        room = 0.1 * abs(high) if abs(high) > 1e-290 else 1.0
        return low - room * (low != 0), high + room
    room = 0.04 * (high - low)
    start = 0.0 if 0 <= low <= 0.1 * high else low - room
    return start, high + room * (high != 0)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Two to about `count` multiples of 1, 2 or 5 times a power of ten between the ends of an axis."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [_clean(place * step, step) for place in range(first, last + 1)]


def _ends_of_x(values: Sequence[float]) -> tuple[float, float]:
    """Those of `limits`, but a line ends where its last point is."""
    start, end = limits(min(values), max(values))
    return start, max(values) if max(values) > min(values) and max(values) > start else end


def _clean(value: float, step: float) -> float:
    """Without the last bits of a float's error (0.30000000000000004), but never moved inwards by more than
    them."""
    digits = 2 - math.floor(math.log10(step))
    return round(value, digits) if 0 <= digits < 300 else value


def tick_labels(values: Sequence[float]) -> list[str]:
    """Short labels with one unit for the whole axis."""
    largest = max(map(abs, values))
    units = ((1e12, 1e12, "\xa0T"), (1e9, 1e9, "\xa0B"), (1e6, 1e6, "\xa0M"), (1e4, 1e3, "\xa0k"), (0, 1, ""))
    size, unit = next((size, unit) for least, size, unit in units if least <= largest)

    def told(digits: int) -> list[str]:
        return [f"{value / size:.{digits}g}{unit}" if value else "0" for value in values]

    return told(next((digits for digits in range(6, 17) if len(set(told(digits))) == len(values)), 17))


def _thin(points: list[Point]) -> list[Point]:
    """At most MOST_POINTS points that keep every visible peak: the lowest and the highest of each stretch."""
    if len(points) <= MOST_POINTS:
        return points
    stretch = math.ceil(2 * len(points) / MOST_POINTS)
    kept: list[Point] = []
    for start in range(0, len(points), stretch):
        part = range(start, min(start + stretch, len(points)))
        ends = {min(part, key=lambda at: points[at][1]), max(part, key=lambda at: points[at][1])}
        kept += [points[place] for place in sorted(ends)]
    return kept


def legend(entries: Sequence[tuple[str, str, str]], shape: str = "line") -> Html:
    """Names of series: (CSS class, name, value beside it or empty)."""
    mark = '<path d="M0 6H20"/>' if shape == "line" else '<rect y="1" width="11" height="11" rx="2"/>'
    items = (
        f'<li><svg class="{look}" width="{20 if shape == "line" else 12}" height="12" aria-hidden="true">'
        f"{mark}</svg>{escape(name)}" + (f" <b>{escape(value)}</b>" if value else "") + "</li>"
        for look, name, value in entries
    )
    return Html(f'<ul class="legend">{"".join(items)}</ul>')


def _svg(title: str, width: float, height: float, body: Sequence[str]) -> str:
    head = f'<svg viewBox="0 0 {width:g} {height:g}" role="img"><title>{escape(title)}</title>'
    return f"{head}{''.join(body)}</svg>"


def _text(x: float, y: float, value: Any, anchor: str = "start", look: str = "") -> str:
    kind = f' class="{look}"' if look else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{kind}>{escape(value)}</text>'


def _bar(look: str, x: int, y: object, width: float, height: int) -> str:
    return f'<rect class="{look}" x="{x}" y="{y}" width="{width:.1f}" height="{height}" rx="1.5"/>'


def _short(name: str, most: int) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def line_chart(
    series: Mapping[str, Sequence[tuple[Any, Any]]],
    x_label: str,
    y_label: str,
    width: int = 520,
    height: int = 270,
    *,
    faint: Sequence[str] = (),
) -> Html:
    """Lines over a common pair of axes, with a legend that tells each line's last value; "" when no point can
    be drawn.

    faint: names of series drawn as a pale background (single steps behind their mean). Points that are not
    finite numbers are left out.
    """
    lines: dict[str, list[Point]] = {}
    for name, points in series.items():
        pairs = ((number(x), number(y)) for x, y in points)
        finite = [(x, y) for x, y in pairs if x is not None and y is not None]
        if finite:
            lines[name] = finite
    if not lines:
        return Html("")
    every = [point for points in lines.values() for point in points]
    west, east = _ends_of_x([x for x, _ in every])
    south, north = limits(min(y for _, y in every), max(y for _, y in every))
    across, up = ticks(west, east), ticks(south, north)
    left, right, top, bottom = 56, width - 24, 26, height - 44

    def place(x: float, y: float) -> Point:
        from_left = left + (right - left) * (x - west) / (east - west)
        return from_left, bottom - (bottom - top) * (y - south) / (north - south)

    body = [_text(4, 13, y_label, look="axis"), _text(right, height - 5, x_label, "end", "axis")]
    for value, told in zip(up, tick_labels(up), strict=True):
        y = place(west, value)[1]
        body += [f'<path class="grid" d="M{left} {y:.1f}H{right}"/>', _text(left - 7, y + 4, told, "end")]
    for value, told in zip(across, tick_labels(across), strict=True):
        x = place(value, south)[0]
        body += [f'<path class="tick" d="M{x:.1f} {bottom}v5"/>', _text(x, bottom + 20, told, "middle")]
    body.append(f'<path class="tick" d="M{left} {bottom}H{right}"/>')
    entries: list[tuple[str, str, str]] = []
    looks = itertools.cycle(
        f"c{place}" for place in range(COLOURS) if place != 1 or not faint
    )  # c1: faint ones
    for name, points in lines.items():
        look = "faint" if name in faint else next(looks)
        entries.append((look, name, "" if name in faint else f"{points[-1][1]:.4g}"))
        spots = [place(x, y) for x, y in _thin(points)]
        body.append(f'<path class="line {look}" d="M{"L".join(f"{x:.1f} {y:.1f}" for x, y in spots)}"/>')
        if len(points) <= MARKED_POINTS:
            body += [
                f'<circle class="{look}" cx="{at_x:.1f}" cy="{at_y:.1f}" r="3">'
                f"<title>{escape(name)}: {y:.4g} at {x:,.6g}</title></circle>"
                for (at_x, at_y), (x, y) in zip(spots, points, strict=True)
            ]
    title = f"{y_label} over {x_label}: {', '.join(lines)}"
    return Html(f'<div class="chart">{legend(entries)}{_svg(title, width, height, body)}</div>')


def bars(
    groups: Mapping[str, Mapping[str, Any]],
    title: str,
    told: Callable[[Any], str] = "{:.3g}".format,
    width: int = 520,
) -> Html:
    """Horizontal bars from zero, in groups: {group: {series: value}}. A value that is no number, or below
    zero, has no bar."""
    values = [size for group in groups.values() for size in numbers(group.values()) if size >= 0]
    if not values:
        return Html("")
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    thick, gap, left, room = 16, 14, 104, 56
    scale = (width - left - room) / (max(values) or 1.0)
    body, y = [], 4.0
    for group, members in groups.items():
        middle = y + thick * len(names) / 2 + 4
        body.append(
            f"<g><title>{escape(group)}</title>"
            f"{_text(left - 10, middle, _short(group, 15), 'end', 'name')}</g>"
        )
        for index, name in enumerate(names):
            size = number(members.get(name))
            if size is not None and size >= 0:
                long = size * scale
                bar = _bar(f"c{index % COLOURS}", left, f"{y + 1:.1f}", long, thick - 3)
                body.append(
                    f"<g><title>{escape(group)}, {escape(name)}: {escape(told(size))}</title>"
                    f"{bar}{_text(left + long + 6, y + 12, told(size))}</g>"
                )
            y += thick
        y += gap
    body.append(f'<path class="tick" d="M{left} 0V{y - gap + 4:.1f}"/>')
    entries = [(f"c{index % COLOURS}", name, "") for index, name in enumerate(names)]
    head = legend(entries, "box") if len(names) > 1 else ""
    return Html(f'<div class="chart">{head}{_svg(title, width, y - gap + 6, body)}</div>')


def funnel(
    steps: Mapping[str, Any], title: str, told: Callable[[Any], str] = "{:,.0f}".format, width: int = 360
) -> Html:
    """One bar a step, with what the step before still had as a pale bar behind it, and the share of the first
    step."""
    sizes = {step: size for step, value in steps.items() if (size := number(value)) is not None and size >= 0}
    if not sizes:
        return Html("")
    first, largest = next(iter(sizes.values())), max(sizes.values()) or 1.0
    thick, left, room = 22, 84, 112
    scale = (width - left - room) / largest
    body, before = [], 0.0
    for row, (step, size) in enumerate(sizes.items()):
        y, long = row * thick, size * scale
        share = f" · {100 * size / first:.0f} %" if row and first else ""
        body.append(_text(left - 8, y + 15, _short(step, 12), "end", "name"))
        if before > long:
            body.append(_bar("ghost", left, y + 3, before, thick - 6))
        body.append(_bar("c0", left, y + 3, long, thick - 6))
        body.append(_text(left + max(long, before) + 6, y + 15, told(size) + share))
        before = long
    body.append(f'<path class="tick" d="M{left} 0V{thick * len(sizes)}"/>')
    return Html(f'<div class="chart">{_svg(title, width, thick * len(sizes) + 2, body)}</div>')


def graph(inputs: Mapping[str, Sequence[str]], title: str, width: int = 760) -> Html:
    """Nodes in the given order on one row, arrows from each node's inputs to it: straight between neighbours,
    else an arc."""
    names = list(inputs)
    if not names:
        return Html("")
    pitch = width / len(names)
    half = min(pitch * 0.4, 60)
    place = {name: pitch * (index + 0.5) for index, name in enumerate(names)}
    arrows = [
        (source, name) for name in names for source in inputs[name] if source in place and source != name
    ]
    span = max((abs(names.index(name) - names.index(source)) for source, name in arrows), default=1)
    middle = 22 + 20 * (span - 1)
    body: list[str] = []
    for source, name in arrows:
        steps = names.index(name) - names.index(source)
        start, end = place[source], place[name]
        if steps == 1:
            body.append(f'<path class="arrow" d="M{start + half:.1f} {middle}H{end - half - 6:.1f}"/>')
            tip, angle = (end - half, middle), 0
        else:
            peak = middle - 14 - 27 * (abs(steps) - 1)
            shift = min(half * 0.5, 20)
            start, end, tip_y = start + shift, end - shift, middle - 14
            body.append(
                f'<path class="arrow" d="M{start:.1f} {tip_y}C{start + 14:.1f} {peak} '
                f'{end - 14:.1f} {peak} {end:.1f} {tip_y - 6}"/>'
            )
            tip, angle = (end, tip_y), 90
        body.append(
            '<path class="tip" d="M0 0L-7 -3.5V3.5Z" '
            f'transform="translate({tip[0]:.1f} {tip[1]}) rotate({angle})"/>'
        )
    for name, x in place.items():
        where = f'x="{x - half:.1f}" y="{middle - 14}" width="{2 * half:.1f}" height="28"'
        body.append(f'<rect class="node" {where} rx="5"/>')
        body.append(_text(x, middle + 4, _short(name, max(4, int(half / 4))), "middle", "name"))
    drawing = _svg(title, width, middle + 18, body)
    box = f'class="chart wide scroll" role="region" tabindex="0" aria-label="{escape(title)}"'
    return Html(f"<div {box}>{drawing}</div>")
