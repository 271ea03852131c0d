"""The paper's tables beside models of one's own as one HTML page."""

from collections.abc import Sequence

from puna.evaluate import paper
from puna.report.frame import frame, join
from puna.report.markup import Html, escape, table


def render(models: Sequence[paper.Model]) -> str:
    """A page that needs no other file: a section a table, published rows first."""
    names, sections = [model.name for model in models], []
    for found in paper.tables():
        head, *rows = ([_own(cell, names) for cell in line] for line in paper.grid(found, models))
        told = (f'<p class="soft">{escape(note)}</p>' for note in paper.notes(found, models))
        title = f'<p class="soft">{escape(found.title)}</p>'
        body = join(title, table(found.title, head, rows, shown=False), *told)
        sections.append((f"table-{found.number}", f"Table {found.number}", body))
    lead = f'<p class="lead">{escape(", ".join(names))}</p><p>{escape(paper.LEGEND)}</p>'
    return frame("The paper's tables", "Puna · evaluation", Html(lead), sections)


def _own(cell: str, names: Sequence[str]) -> str:
    """The name of a model of one's own stands out."""
    return Html(f"<strong>{escape(cell)}</strong>") if cell in names else cell
