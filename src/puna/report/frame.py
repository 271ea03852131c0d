"""What pages have in common: the frame with its style, figures, and cells with a bar behind them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from puna.report.markup import NONE, Html, escape, number, percent
from puna.text.lists import filled

STYLE = Path(__file__).with_name("page.css")


def frame(name: str, over: str, head: Html, sections: Sequence[tuple[str, str, Html]]) -> str:
    """A page: its title under a line that says what it is, what stands at its head, and the sections (key,
    title, body) that have one."""
    bodies = [(escape(key), escape(title), body) for key, title, body in sections if body]
    links = "\n".join(f'<a href="#{key}">{title}</a>' for key, title, _ in bodies)
    told = "".join(
        f'<section id="{key}" aria-labelledby="{key}-title"><h2 id="{key}-title">{title}</h2>{body}'
        "</section>\n"
        for key, title, body in bodies
    )
    nav = f'<nav aria-label="Sections">{links}</nav>' if links else ""
    named = {"title": escape(name), "over": escape(over), "style": STYLE.read_text("utf-8")}
    return filled(__file__, "page.html", head=head, nav=nav, body=told, **named)


def figure(caption: str, drawing: Html) -> Html:
    """A drawing under its caption; "" without a drawing."""
    return Html(
        f"<figure><figcaption><b>{escape(caption)}</b></figcaption>{drawing}</figure>" if drawing else ""
    )


def join(*parts: str, look: str = "") -> Html:
    """Pieces of HTML one after the other, in a box of class `look` if one is named."""
    body = "".join(parts)
    return Html(f'<div class="{look}">{body}</div>' if look and body else body)


def share_cell(value: Any) -> Html:
    """A share of one as a cell with a bar behind it."""
    found = number(value)
    if found is None:
        return Html(NONE)
    return Html(
        f'<span class="share" style="--part:{100 * min(max(found, 0), 1):.1f}%">{percent(found)}</span>'
    )
