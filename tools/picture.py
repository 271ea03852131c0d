"""The picture of a report in the README: a small run on this repository's own text, seen in a browser.

    python tools/picture.py [--out FOLDER] [--browser chromium]

Writes docs/report.png. The run takes some minutes; with --out it is kept, and found there by the next call.
Nothing comes from elsewhere: the documents are the pages and the source code of this repository.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "report.png"
MOST_BYTES = 150_000
WIDTH, HEIGHT = 1000, 870
RECIPE = """
seed = 1

[corpus]
root = "{root}"
languages = []

[[corpus.sources]]
name = "pages"
reader = "text"
licence = "Apache-2.0"
uris = ["README.md", "CHANGELOG.md", "docs/*.md"]

[[corpus.sources]]
name = "code"
reader = "code"
uris = ["."]

[tokenizer]
vocab_size = 2048

[tokens]
maximum_epochs = 8

[model]
size = "2m"

[train]
steps = 300
batch_sequences = 16
sequence_length = 128
learning_rate = 4e-3
warmup_steps = 20
validation_steps = 50

[evaluate]
prompts = ["A recipe is ", "def test_"]
sample_tokens = 80
"""


def write_recipe(folder: Path) -> Path:
    """Write the recipe of the picture's run; its path."""
    path = folder / "own-text.toml"
    path.write_text(RECIPE.format(root=ROOT))
    return path


def run(folder: Path) -> Path:
    """Run the recipe; the report's path."""
    command = [sys.executable, "-m", "puna", "run", str(write_recipe(folder)), "--out", str(folder / "out")]
    subprocess.run(command, check=True)
    return folder / "out" / "own-text" / "report.html"


def shoot(report: Path, browser: str) -> None:
    """Write how the head of a report looks, in light colours."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    colours = "--blink-settings=preferredColorScheme=1"
    size = f"--window-size={WIDTH},{HEIGHT}"
    command = [browser, *options, colours, size, f"--screenshot={PICTURE}", report.resolve().as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    if PICTURE.stat().st_size > MOST_BYTES:
        sys.exit(f"{PICTURE} has {PICTURE.stat().st_size:,} bytes; at most {MOST_BYTES:,} are wanted")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder that keeps the run")
    parser.add_argument("--browser", default="chromium", help="a browser of the Chromium kind")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = wanted.out or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        shoot(run(folder), wanted.browser)


if __name__ == "__main__":
    main()
