"""Pages in a browser: nothing is wider than a telephone but what scrolls in a box of its own."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from puna.evaluate.paper import Model, Score
from puna.report import page, paper, tuning
from puna.report.frame import frame
from puna.report.markdown import html as markdown
from tests.report.test_report import DATA
from tests.report.test_tuning import DATA as TUNED

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# What is wider than the page and lies in no box that scrolls, or is cut off by its own box.
LOOK = """<script>
const width = document.documentElement.clientWidth;
const told = [];
for (const element of document.querySelectorAll("body *")) {
  const box = element.parentElement.closest(".scroll, svg, details:not([open])");
  if (!box && element.getBoundingClientRect().right > width + 1)
    told.push("wide: " + element.outerHTML.slice(0, 99));
}
for (const tile of document.querySelectorAll(".tiles div"))
  if (tile.scrollWidth > tile.clientWidth) told.push("cut: " + tile.textContent);
const boxes = [...document.querySelectorAll(".scroll")];
const scrolling = boxes.filter((box) => box.scrollWidth > box.clientWidth + 1);
const digest = document.querySelector(".digest");
parent.postMessage({
  told, page: document.documentElement.scrollWidth, scrolling: scrolling.length,
  digest: digest ? digest.getBoundingClientRect().right : 0,
}, "*");
</script></body>"""
OUTER = (
    '<title></title><script>addEventListener("message", '
    "(event) => { document.title = JSON.stringify(event.data); })</script>"
)


def look(text: str, width: int, folder: Path) -> dict[str, object]:
    """What LOOK finds in a page that is shown so wide."""
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text).replace("</body>", LOOK)
    inner = f'<iframe style="border:0" width="{width}" height="2000" srcdoc="{html.escape(text)}"></iframe>'
    path = folder / "outer.html"
    path.write_text(OUTER + inner)
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1400,2000"]
    command = [str(BROWSER), *options, "--virtual-time-budget=4000", "--dump-dom", path.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True).stdout
    found = re.search(r"<title>(\{.*?\})</title>", shown)
    assert found is not None, shown[:500]
    return dict(json.loads(html.unescape(found[1])))


def report() -> str:
    sources = ["wikipedia", "a-source-with-a-long-name", "code"]
    scores = {source: {"model": 2.3, "five_gram": 2.2, "unigram": 3.4, "xz": 2.6} for source in sources}
    part = {"documents": 1e6, "held_out_documents": 1e4, "train_tokens": 1e9, "held_out_tokens": 1e7}
    steps = {step: {"documents": 123_456, "bytes": 10**9} for step in ("found", "read", "language", "kept")}
    names = ("fetch", "documents", "tokenizer", "tokens", "train", "scores")
    stages = [
        {"stage": name, "fingerprint": "0123456789ab", "digest": "0123456789abcdef" * 4, "seconds": 719.0}
        for name in names
    ]
    known = {
        "recipe": "a-recipe-with-a-rather-long-name-and-no-space-in-it",
        "bits_per_byte": scores,
        "mixture": {source: {**part, "share": 0.3, "epochs": 1.0} for source in sources},
        "sources": {source: {"steps": steps} for source in sources},
        "dropped": {source: {"a reason with some words: " + "x" * 60: 12} for source in sources},
        "stages": stages,
        "energy": {"kwh": 0.0123, "measured": False},
        "folder": "out/" + "long" * 20,
        "source": "laptop",
        "corpus_page": "corpus.html",
    }
    return page.render({**DATA, **known})


@pytest.mark.skipif(BROWSER is None, reason="no browser")
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_the_report_is_as_wide_as_its_window(width: int, tmp_path: Path) -> None:
    found = look(report(), width, tmp_path)
    assert found["told"] == [] and found["page"] == width
    if width == 1280:
        assert found["scrolling"] == 0, "all tables are whole"
        assert 0 < float(str(found["digest"])) < width
    else:
        assert found["scrolling"]


@pytest.mark.skipif(BROWSER is None, reason="no browser")
def test_cards_fit_a_telephone(tmp_path: Path) -> None:
    text = markdown(
        "| source | where |\n|---|---|\n| pages | " + "pypi:a-long-name" * 9 + " |\n\n" + "x" * 99, 2
    )
    assert look(frame("name", "over", text, [("card", "Card", text)]), 390, tmp_path)["told"] == []


@pytest.mark.skipif(BROWSER is None, reason="no browser")
@pytest.mark.parametrize("width", [360, 1280])
def test_the_papers_tables_scroll_in_their_boxes(width: int, tmp_path: Path) -> None:
    scores = {"boolq@0": Score(0.5, 0.01, 3270), "crows_pairs@0": Score(0.6, 0.02, 300, True)}
    found = look(paper.render([Model("a-model-with-a-long-name-135M", scores)]), width, tmp_path)
    assert found["told"] == [] and found["page"] == width and found["scrolling"]


@pytest.mark.skipif(BROWSER is None, reason="no browser")
@pytest.mark.parametrize("width", [360, 1280])
def test_the_report_of_a_tuning_is_as_wide_as_its_window(width: int, tmp_path: Path) -> None:
    found = look(tuning.render(TUNED), width, tmp_path)
    assert found["told"] == [] and found["page"] == width
