"""`puna corpus` on a folder, and the questions one can ask of what it leaves."""

import hashlib
import http.server
import json
import os
import random
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from puna import recipe, stages
from puna.cli.view import ConsoleView
from puna.corpus.sources import discover, fetch
from puna.run import digests
from puna.run.settings import DEFAULT_EXECUTION
from puna.run.stage import Context
from tests import tiny
from tests.corpus.sources.test_fetch import packed
from tests.report.test_report import checked
from tests.tiny import puna

LETTER = 4 * (
    "A letter about the long road to the market by the river, "
    "and about the people of the village who walk on it. "
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "raw").mkdir()
    tiny.write(folder / "raw")
    rows = [
        {"url": f"https://example.org/<{n}>", "text": line}
        for n, line in enumerate((folder / "raw" / "stories-0.txt").read_text().split("\n"))
    ]
    (folder / "raw" / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    result = puna("corpus", folder / "raw", "--out", folder / "out")
    assert "page: " in result.stdout and "dropped of datasets: " in result.stdout
    return folder / "out" / "raw"


def test_what_it_leaves(made: Path) -> None:
    (documents,) = made.glob("documents-*")
    assert {path.name for path in documents.iterdir()} >= {
        "artifact.json",
        "dropped.parquet",
        "data_card.md",
        "public_summary.md",
        "domains.csv",
        "datasets.parquet",
    }
    page = (made / "corpus.html").read_text()
    checked(page)
    assert "datasets: kept" in page and "https://example.org/&lt;" in page and "<script" not in page
    card = (documents / "data_card.md").read_text()
    assert "## Why records were dropped" in card
    assert "| datasets | texts of a published dataset | 14 |" in card
    hosts = (documents / "domains.csv").read_text().splitlines()
    assert hosts[0] == "source,host,bytes" and hosts[1].startswith("datasets,example.org,")


def test_again_is_nothing_to_do_and_the_recipe_runs(made: Path) -> None:
    result = puna("corpus", made.parents[1] / "raw", "--out", made.parent)
    assert result.stderr.count("exists already") == 2
    result = puna("corpus", made / "recipe.toml", "--out", made.parents[1] / "other", "--json")
    assert json.loads(result.stdout)["sources"]["datasets"]["found"]["documents"] == 14


def test_the_page_of_another_corpus_leaves_that_of_the_run(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    puna("corpus", made / "recipe.toml", "--out", folder)
    run = folder / "raw"
    (documents,) = run.glob("documents-*")
    stages = [{"stage": "documents", "fingerprint": documents.name.rpartition("-")[2]}]
    (run / "summary.json").write_text(json.dumps({"documents": 1, "stages": stages, "bits_per_byte": {}}))
    before = (run / "corpus.html").read_bytes()
    other = puna("corpus", made / "recipe.toml", "--out", folder, "-s", "corpus.minimum_characters=10")
    (page,) = run.glob("corpus-*.html")
    assert str(page) in other.stdout and (run / "corpus.html").read_bytes() == before
    assert other.stderr.startswith(f"{made / 'recipe.toml'} \N{RIGHTWARDS ARROW} {run}\n")


def test_a_recipe_of_a_corpus_alone(made: Path, tmp_path: Path) -> None:
    """The same documents as from the whole recipe, from the sections of the corpus; a run says what it lacks
    and writes nothing."""
    path = tmp_path / "raw.toml"
    path.write_text((made / "recipe.toml").read_text().partition("[tokenizer]")[0])
    told = puna("run", path, "--out", tmp_path / "out", code=2).stderr
    assert told.startswith(f"puna: {path}: 1 problem\n  tokenizer, model, train: missing")
    assert "steps = 600" in told
    assert not (tmp_path / "out").exists()
    found = json.loads(puna("corpus", path, "--out", tmp_path / "out", "--json").stdout)
    (documents,) = made.glob("documents-*")
    assert Path(found["documents"]).name == documents.name
    manifest = Path(found["documents"]) / "artifact.json"
    assert manifest.read_bytes() == (documents / "artifact.json").read_bytes()
    assert "too short" in puna("corpus", "dropped", tmp_path / "out" / "raw", "--reason", "too short").stdout
    shown = puna("show", path, "--out", tmp_path / "out").stdout
    assert shown.count("exists") == 2 and "a recipe of a corpus alone" in shown and "tokenizer" not in shown
    rows = json.loads(puna("show", path, "--out", tmp_path / "out", "--json").stdout)
    assert [row["stage"] for row in rows] == ["fetch", "documents"]
    assert "corpus alone" not in puna("show", made / "recipe.toml").stdout


def test_dropped_records_are_listed(made: Path) -> None:
    lines = puna("corpus", "dropped", made, "--source", "datasets", "--json").stdout.splitlines()
    rows = [json.loads(line) for line in lines]
    assert "too short" in {row["reason"] for row in rows}
    assert {row["source"] for row in rows} == {"datasets"}
    assert "too short" in puna("corpus", "dropped", made, "--reason", "too short").stdout
    refused = puna("corpus", "dropped", made, "--reason", "nonsense", code=2).stderr
    assert "no dropped record for the reason 'nonsense'" in refused


def test_what_a_duplicate_repeats_is_named(tmp_path: Path) -> None:
    """By url and place where this run keeps it; what an earlier run keeps is said to be there."""
    chance = random.Random(7)

    def sentence() -> str:
        house = chance.randrange(999)
        return f"{chance.choice(tiny.WHO)} {chance.choice(tiny.DOES)} house number {house}."

    first_text = " ".join(sentence() for _ in range(30))
    texts = [first_text, f"{first_text} It is late.", LETTER]
    for name, contents in (("first", texts), ("second", [LETTER + "Greetings.", *texts[:2]])):
        rows = [
            {"url": f"https://{name}.example/{number}", "text": text} for number, text in enumerate(contents)
        ]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    puna("corpus", tmp_path / "first.jsonl", "--out", tmp_path)
    arguments = ("corpus", "dropped", tmp_path / "first", "--reason", "near duplicate")
    (row,) = map(json.loads, puna(*arguments, "--json").stdout.splitlines())
    (documents,) = (tmp_path / "first").glob("documents-*")
    first, last = pq.read_table(documents / "datasets.parquet").to_pylist()
    path = tmp_path / "first.jsonl"
    place = {"source": "datasets", "url": "https://first.example/0", "file": str(path), "offset": 0}
    assert row["url"] == "https://first.example/1"
    assert row["of"] == {"id": first["id"], "kept": "in this run", **place}
    listed = puna(*arguments).stdout
    assert f"of {first['id']} (https://first.example/0, {path}:0)  https://first" in listed
    page = (tmp_path / "first" / "corpus.html").read_text()
    checked(page)
    assert f"of {first['id']} (https://first.example/0" in page

    against = ("-s", f"corpus.deduplicate_against={tmp_path / 'first'}")
    puna("corpus", tmp_path / "second.jsonl", "--out", tmp_path, *against, code=2)  # nothing is new
    own = json.dumps({"text": "A word of its own. " * 30})
    (tmp_path / "third.jsonl").write_text((tmp_path / "second.jsonl").read_text() + "\n" + own)
    puna("corpus", tmp_path / "third.jsonl", "--out", tmp_path, *against)
    lines = puna("corpus", "dropped", tmp_path / "third", "--json").stdout.splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["of"]["id"] for row in rows] == [last["id"], first["id"], first["id"]]
    assert all(row["of"]["kept"] == "in an earlier run" and row["of"]["url"] is None for row in rows)
    told = puna("corpus", "dropped", tmp_path / "third", "--most", "1")
    assert f"near duplicate: of {last['id']} (in an earlier run)" in told.stdout
    assert told.stderr == "2 more; --most 0 lists all\n"


def test_scores_of_a_text(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("This is a letter about the long road to the market, and about nothing else at all.")
    (row,) = json.loads(puna("corpus", "score", path, "--json").stdout)
    assert row["language"] == "en" and row["score"] > 0.5 and row["perplexity"] is None
    assert "learnt no quality models" in puna("corpus", "score", path, "--run", made, code=2).stderr
    assert "no such file" in puna("corpus", "score", tmp_path / "nothing", code=2).stderr


def test_mistakes_are_told(tmp_path: Path) -> None:
    assert "no such file or folder" in puna("corpus", tmp_path / "nothing", code=2).stderr
    (tmp_path / "posts.7z").write_bytes(b"7z")
    assert "unpack .7z files first" in puna("corpus", tmp_path / "posts.7z", "--out", tmp_path, code=2).stderr
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "a.jsonl").write_text('{"text": "short"}')
    arguments = ("corpus", tmp_path, "--out", tmp_path / "out")
    told = puna(*arguments, code=2).stderr
    assert "no reader takes" in told and "no document is left" in told
    override = 'corpus.perplexity={train_on = ["datasets"], percentiles = [60, 30]}'
    assert "the smaller first" in puna(*arguments, "-s", override, code=2).stderr
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    told = puna("corpus", tmp_path / "picture.png", "--out", tmp_path, code=2).stderr
    assert "nothing here that a reader takes" in told


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_to_the_process_alone_and_again_at_once(tmp_path: Path, number: signal.Signals) -> None:
    """Workers end with it, nothing is told twice, and the next run goes on to the same documents."""
    (tmp_path / "raw").mkdir()
    for part in range(12):
        words = [f"word{part * n % 997} of{n}" for n in range(460)]
        rows = [json.dumps({"text": " ".join(words[first : first + 60])}) for first in range(400)]
        (tmp_path / "raw" / f"{part}.jsonl").write_text("\n".join(rows))
    arguments = ("corpus", tmp_path / "raw", "--out", tmp_path / "out", "-s", "execution.group_bytes=1")
    command = tiny.command(*arguments, "-s", "execution.workers=2")
    for seconds in (1.5, 2.5):
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=tiny.environment()
        )
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(number)
        _, told = process.communicate(timeout=60)
        assert process.returncode in (0, -number, 128 + number) and "Traceback" not in told, told
    puna(*command[3:])
    (broken,) = (tmp_path / "out" / "raw").glob("documents-*")
    puna(*arguments, "--name", "whole")
    (whole,) = (tmp_path / "out" / "whole").glob("documents-*")
    for path in whole.glob("*.parquet"):
        assert path.read_bytes() == (broken / path.name).read_bytes()
    assert not (tmp_path / "out" / "raw" / ".scratch" / broken.name).exists()


def test_names_that_lead_elsewhere_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    arguments = ("corpus", tmp_path / "a.txt", "--name", "../evil", "--out", tmp_path / "out")
    assert "a name has letters" in puna(*arguments, code=2).stderr
    assert not (tmp_path / "evil").exists() and not (tmp_path / "out").exists()


def test_a_file_that_cannot_be_read_is_counted_and_the_rest_goes_on(tmp_path: Path) -> None:
    unreadable = Path("/proc/self/mem")  # whose first bytes are nobody's, not even the administrator's
    try:
        unreadable.read_bytes()
    except OSError as error:
        reason = error.strerror
    else:
        pytest.skip("no file here that cannot be read")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.txt").write_text(LETTER)
    (tmp_path / "raw" / "b.txt").symlink_to(unreadable)
    arguments = ("corpus", tmp_path / "raw", "--out", tmp_path / "out")
    told = json.loads(puna(*arguments, "--json").stdout)
    assert told["dropped"]["books"] == {"damaged file": 1}
    assert told["sources"]["books"]["kept"]["documents"] == 1
    (line,) = puna("corpus", "dropped", tmp_path / "out" / "raw", "--json").stdout.splitlines()
    row = json.loads(line)
    assert row["file"].endswith("raw/b.txt") and row["detail"] == reason
    stop = puna(*arguments, "-s", "corpus.on_damaged_file=stop", code=2).stderr
    assert f"b.txt cannot be read: {reason}" in stop and "Traceback" not in stop


def test_two_folders_of_one_name_do_not_share_a_run(tmp_path: Path) -> None:
    for parent, words in (("a", "road"), ("b", "river")):
        (tmp_path / parent / "raw").mkdir(parents=True)
        (tmp_path / parent / "raw" / "letter.txt").write_text(LETTER.replace("road", words))
    puna("corpus", tmp_path / "a" / "raw", "--out", tmp_path / "out")
    kept = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    told = puna("corpus", tmp_path / "b" / "raw", "--out", tmp_path / "out", code=2).stderr
    assert f'{tmp_path / "out" / "raw"} was made from "{tmp_path / "a" / "raw"}"' in told and "--name" in told
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == kept
    puna("corpus", tmp_path / "b" / "raw", "--out", tmp_path / "out", "--name", "other")
    (tmp_path / "a" / "raw" / "more.txt").write_text(LETTER.replace("road", "way"))
    # The same folder under another name, with a new file.
    told = puna("corpus", "raw", "--out", "../out", "--json", cwd=tmp_path / "a").stdout
    assert json.loads(told)["sources"]["books"]["found"]["documents"] == 2
    (tmp_path / "out" / "raw" / "recipe.toml").unlink()
    told = puna("corpus", tmp_path / "a" / "raw", "--out", tmp_path / "out", code=2).stderr
    assert "was made from another recipe" in told


def test_an_edited_recipe_is_run_and_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "letter.txt").write_text(LETTER)
    arguments = ("corpus", tmp_path / "raw", "--out", tmp_path / "out")
    puna(*arguments)
    puna(*arguments, "--languages", "en")  # is written anew, since nobody changed it
    path = tmp_path / "out" / "raw" / "recipe.toml"
    state = json.loads(path.with_suffix(".json").read_bytes())
    assert state["paths"] == [str(tmp_path / "raw")]
    assert state["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert {file.name for file in path.parent.glob("*recipe*")} == {"recipe.toml", "recipe.json"}
    edited = path.read_text().replace("books = true", "books = false")
    assert 'languages = ["en"]' in edited
    path.write_text(edited)
    told = puna(*arguments, code=2).stderr
    assert f"{path} was edited, and would be written anew: run `puna corpus {path}`" in told
    assert path.read_text() == edited
    puna("corpus", path, "--out", tmp_path / "out")
    assert path.read_text() == edited


def test_a_path_that_is_no_text_is_told(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"p\xffq")
    folder.mkdir()
    (folder / "letter.txt").write_text(LETTER)
    told = puna("corpus", folder, "--out", tmp_path / "out", code=2).stderr
    assert "p\\udcffq': the path is not text in UTF-8; rename" in told and not (tmp_path / "out").exists()


def test_dumps_in_one_archive_are_one_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many, each with a pattern of its own."""
    names = [f"p{number}/dump{number}.xml" for number in range(40)]
    path = packed(tmp_path / "dumps.tar.gz", [(name, b"<mediawiki>" + name.encode()) for name in names])
    monkeypatch.setattr(digests, "SETTLED_SECONDS", -1.0)  # the file has just changed
    text, _ = discover.recipe("dumps", [str(path)], [], tmp_path / "downloads")
    (tmp_path / "dumps.toml").write_text(text)
    read: list[str] = []
    reading, digest = fetch.archives.members, digests.file_digest
    monkeypatch.setattr(fetch.archives, "members", lambda path: read.append("unpacked") or reading(path))
    monkeypatch.setattr(digests, "file_digest", lambda path: read.append(path.name) or digest(path))
    made = recipe.load_corpus(tmp_path / "dumps.toml")
    assert len(made.corpus.sources[0].uris) == 40
    stage, *_ = stages.corpus_stages(made, tmp_path)
    stage.content()
    assert read == ["dumps.tar.gz"]
    (tmp_path / "work").mkdir()
    context = Context(
        DEFAULT_EXECUTION,
        work=tmp_path / "work",
        scratch=tmp_path / "s" / "t",
        shared=tmp_path,
        logs=tmp_path,
        reporter=ConsoleView(1),
    )
    assert stage.function(stage.settings, {}, context)["wikipedia"]["files"] == 40
    entries = [json.loads(line) for line in (tmp_path / "work" / "wikipedia.jsonl").read_text().splitlines()]
    assert [entry["name"] for entry in entries] == [f"{path}!{name}" for name in sorted(names)]
    assert read.count("dumps.tar.gz") == 1 and read.count("unpacked") == 1


@pytest.fixture
def server() -> Iterator[tuple[str, dict[str, bytes], list[str]]]:
    """(address, what it serves by path, the paths it was asked for)."""
    served: dict[str, bytes] = {}
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200 if self.path in served else 404)
            self.end_headers()
            self.wfile.write(served.get(self.path, b""))

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", served, asked
        running.shutdown()


def test_an_address_is_fetched_once(server: tuple[str, dict[str, bytes], list[str]], tmp_path: Path) -> None:
    base, served, asked = server
    served |= {"/a.txt": LETTER.encode(), "/b.txt": LETTER.replace("road", "river").encode()}
    arguments = ("corpus", f"{base}/a.txt", f"{base}/b.txt", "--out", tmp_path)
    puna(*arguments)
    assert sorted(asked) == ["/a.txt", "/b.txt"]
    (fetched,) = (tmp_path / "a").glob("fetch-*")
    assert sorted(path.read_bytes() for path in fetched.glob("*/*/*.txt")) == sorted(served.values())
    assert "exists already" in puna(*arguments).stderr and len(asked) == 4  # to see whether it is the same
    assert not (tmp_path / "a" / ".scratch" / fetch.DOWNLOADS).exists()
    assert "404" in puna("corpus", f"{base}/c.txt", "--out", tmp_path, code=2).stderr


def test_archives_of_texts_near_and_far(
    server: tuple[str, dict[str, bytes], list[str]], tmp_path: Path
) -> None:
    """Are read like the texts in them, a damaged one as far as it goes; one at an address is fetched once,
    too."""
    base, served, asked = server
    page = f"<html><body><p>{LETTER.replace('road', 'way')}</p></body></html>".encode()
    (tmp_path / "raw").mkdir()
    members = [("texts/letter.txt", LETTER.encode()), ("pages/page.html", page), ("picture.png", b"\x89PNG")]
    packed(tmp_path / "raw" / "a.zip", members)
    rows = json.dumps({"text": LETTER.replace("road", "river path")}).encode()
    packed(tmp_path / "raw" / "b.tar.gz", [("rows.jsonl", rows)])
    noise = random.Random(2).randbytes(5_000).hex().encode()
    members = [("b.txt", LETTER.replace("road", "street").encode()), ("c.txt", noise)]
    damaged = packed(tmp_path / "raw" / "c.zip", members)
    content = damaged.read_bytes()
    damaged.write_bytes(content[:2_000] + bytes(100) + content[2_100:])
    made = puna("corpus", tmp_path / "raw", "--out", tmp_path / "out", "--json")
    assert f"no reader takes {tmp_path}/raw/a.zip: 1 of the 3 files in it, such as picture.png" in made.stderr
    steps = json.loads(made.stdout)["sources"]
    kept = {name: step["kept"]["documents"] for name, step in steps.items()}
    assert kept == {"books": 2, "pages": 1, "datasets": 1, "unread": 0}
    assert json.loads(made.stdout)["dropped"]["books"] == {"damaged file": 1}
    served["/far.zip"] = (tmp_path / "raw" / "a.zip").read_bytes()
    made = puna("corpus", f"{base}/far.zip", "--out", tmp_path / "out", "--json")
    assert f"no reader takes {base}/far.zip: 1 of the 3 files in it, such as picture.png" in made.stderr
    steps = json.loads(made.stdout)["sources"]
    kept = {name: step["kept"]["documents"] for name, step in steps.items()}
    assert kept == {"books": 1, "pages": 1}
    assert asked == ["/far.zip"]
    assert not (tmp_path / "out" / "far" / ".scratch" / fetch.DOWNLOADS).exists()
    puna("corpus", tmp_path / "out" / "far" / "recipe.toml", "--out", tmp_path / "again")
    (documents,) = (tmp_path / "again" / "far").glob("documents-*")
    assert pq.read_table(documents / "books.parquet")["file"].to_pylist() == [
        f"{base}/far.zip!texts/letter.txt"
    ]


def test_a_refused_command_leaves_the_recipe_that_was_there(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "letter.txt").write_text(LETTER)
    arguments = ("corpus", tmp_path / "raw", "--out", tmp_path / "out")
    puna(*arguments)
    recipe = tmp_path / "out" / "raw" / "recipe.toml"
    written = (recipe, recipe.with_suffix(".json"))
    before = [path.read_bytes() for path in written]
    told = puna(*arguments, "--languages", "en, english,xx", code=2).stderr
    mistake = "--languages: 'english', 'xx' are no codes of the language model; did you mean en"
    assert told.startswith(f"puna: {mistake}")
    told = puna(*arguments, "--languages", "de", code=2).stderr
    assert "no document is left of source books" in told
    assert "no_such" in puna(*arguments, "-s", "corpus.no_such=1", code=2).stderr
    assert [path.read_bytes() for path in written] == before
    assert not list(recipe.parent.glob(".recipe*"))
    # What an override names starts from the same folder the first time and later.
    (recipe.parent / "domains.txt").write_text("example.org\n")
    puna(*arguments, "-s", 'corpus.opt_out={domains = "domains.txt"}')
    for words in ([recipe, "--name", "other"], [recipe, tmp_path / "raw"]):
        told = puna("corpus", *words, "--out", tmp_path / "out", code=2).stderr
        assert "is a recipe, which is given alone" in told


def test_languages_over_a_recipe(made: Path, tmp_path: Path) -> None:
    arguments = ("corpus", made / "recipe.toml", "--out", tmp_path / "out", "--languages", "de")
    assert "no document is left" in puna(*arguments, code=2).stderr
    result = puna(*arguments, "-s", 'corpus.languages=["en"]', "--json")  # the later one holds
    assert json.loads(result.stdout)["sources"]["datasets"]["kept"]["documents"] > 0


def test_dropped_records_of_reasons_that_begin_so_with_their_texts(made: Path) -> None:
    listed = puna("corpus", "dropped", made, "--reason", "too", "--text").stdout
    assert "datasets  too short" in listed and "    too short\n" in listed
    refused = puna("corpus", "dropped", made, "--reason", "opt-out", code=2).stderr
    assert "no dropped record for the reason 'opt-out'" in refused


def test_addresses_of_pages_and_of_nothing(
    server: tuple[str, dict[str, bytes], list[str]], tmp_path: Path
) -> None:
    base, served, _ = server
    page = f"<html><body><p>{LETTER}</p><p>{LETTER.replace('road', 'river')}</p></body></html>".encode()
    served |= {"/about": page}
    (tmp_path / "addresses.txt").write_text(f"{base}/about\n{base}/gone.html\n")
    result = puna("corpus", tmp_path / "addresses.txt", "--out", tmp_path / "out")
    assert f"no reader takes {base}/gone.html" in result.stderr and "404" in result.stderr
    recipe = (tmp_path / "out" / "addresses" / "recipe.toml").read_text()
    assert f"{base}/about#sha256=" in recipe and "gone" not in recipe.partition("[corpus]")[2]
    refused = puna("corpus", f"{base}/gone.html", "--out", tmp_path / "out", code=2).stderr
    assert "nothing could be fetched" in refused
