"""Tasks asked of an OpenAI-compatible server on this machine."""

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from puna.errors import UserError
from puna.evaluate import paper, runner
from puna.evaluate.endpoint import Endpoint
from puna.evaluate.task import Generation, Options, Task, find
from puna.generate.engine import Sampling
from tests.evaluate import made


class Server(ThreadingHTTPServer):
    """Answers each prompt with its last word and what it was asked with; `broken` answers nothing of use."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[dict[str, Any]] = []
        self.broken = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self._answer({"data": [{"id": "org/small"}]} if self.path == "/v1/models" else {})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.path == "/v1/completions"
        self.server.asked.append(asked)
        word = asked["prompt"].split()[-1]
        text = f" {word} é!\nsixth: {asked['seed'] % 7}"
        self._answer({"choices": [{"text": text, "finish_reason": "length"}]})

    def _answer(self, value: Any) -> None:
        body = self.server.broken.encode() or json.dumps(value).encode()
        self.send_response(503 if self.server.broken == "too busy" else 200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *unused: Any) -> None:
        pass


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


def words(data: Any, options: Options) -> Iterator[Generation]:
    for number, word in enumerate(("llama", "über", "fox")):
        yield Generation(
            id=str(number), question=f"Say {word}", check=lambda text, word=word: float(word in text),
            samples=options.samples or 2, temperature=0.5, top_p=0.9, max_new_tokens=7,
            stops=("a", "b", "c", "d", "sixth"),
        )  # fmt: skip


TASK = Task("words", 1, 3, {}, words, {"paper": "accuracy", "lm-eval": "accuracy"})


def measure(server: Server, out: Path, task: Task = TASK, **more: Any) -> dict[str, Any]:
    asked = Endpoint(server.url)
    options = Options(samples=more.pop("samples", 0))
    return runner.run(task, asked, asked, options, out, asked.identity, **more)  # type: ignore[arg-type]


def test_texts_are_asked_once_and_cut_at_every_stop(server: Server, tmp_path: Path) -> None:
    told: list[str] = []
    result = measure(server, tmp_path, tell=told.append)
    assert told[0] == "words: 3 items, for an endpoint"
    assert result["scores"]["accuracy"]["value"] == 1 / 3  # "a" and "b" are stops
    assert (result["mode"], result["model"]) == ("endpoint", f"{server.url} org/small")
    lines = (tmp_path / "words.paper.items.jsonl").read_text().splitlines()
    texts = [json.loads(line)["texts"] for line in lines]
    assert texts == [[" ll"] * 2, [" ü"] * 2, [" fox é!\n"] * 2]
    assert len(server.asked) == 6
    first = next(asked for asked in server.asked if asked["prompt"] == "Say fox")
    assert {**first, "seed": 0} == {
        "model": "org/small", "prompt": "Say fox", "seed": 0, "max_tokens": 7, "temperature": 0.5,
        "top_p": 0.9, "stop": ["a", "b", "c", "d"],
    }  # fmt: skip
    assert len({asked["seed"] for asked in server.asked}) == 6
    before = {(asked["prompt"], asked["seed"]) for asked in server.asked}
    server.asked.clear()
    measure(server, tmp_path, samples=3)
    assert len(server.asked) == 3  # the third sample of each
    server.asked.clear()
    measure(server, tmp_path / "again", samples=3)
    assert before < {(asked["prompt"], asked["seed"]) for asked in server.asked}


def test_options_are_not_asked_and_the_tables_say_why(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="gives no log-probabilities: choose tasks whose answers are written"):
        measure(server, tmp_path / "small", find("piqa"), data=made.write(tmp_path / "rows"))
    measure(server, tmp_path / "small")
    model = paper.read(tmp_path / "small")
    (note,) = paper.notes(paper.tables()[0], [model])
    assert note.startswith(
        "n/a of small (endpoint): not run, or asks for log-probabilities, which an endpoint"
    )


def test_samples_are_numbered_from_the_first_wanted(server: Server) -> None:
    asked = Endpoint(server.url + "/")
    prompts = [asked.tokenizer.encode(text) for text in ("one", "two é")]
    found = list(asked.sample(prompts, n=2, first_sample=3, max_new_tokens=4, sampling=Sampling()))
    assert sorted(each[:2] for each in found) == [(0, 3), (0, 4), (1, 3), (1, 4)]
    assert {sample.text for _, _, sample in found if sample.finish == "length"} == {
        f" {word} é!\nsixth: {each['seed'] % 7}"
        for each in server.asked
        for word in (each["prompt"].split()[-1],)
    }


@pytest.mark.parametrize(
    ("broken", "told"), [("too busy", "503: Service Unavailable too busy"), ("{}{", "Extra data")]
)
def test_a_server_that_cannot_is_named(server: Server, broken: str, told: str) -> None:
    asked = Endpoint(server.url)
    server.broken = broken
    with pytest.raises(UserError, match=rf"{server.url}/completions: .*{told}"):
        list(asked.sample([[65]] * 20, max_new_tokens=4))


def test_nobody_listens() -> None:
    with pytest.raises(UserError, match=r"http://127.0.0.1:9/v1/models: .*refused"):
        Endpoint("http://127.0.0.1:9/v1")
