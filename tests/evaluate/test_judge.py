"""Judges: what a linear one learns, how it is measured, and one at an endpoint."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from puna.errors import UserError
from puna.evaluate import judge

KIND, RUDE = ("gentle", "kind", "soft", "calm"), ("nasty", "vile", "foul", "mean")


def rows(count: int, seed: int = 0, chance: float = 0.0) -> list[dict[str, Any]]:
    """Texts of two kinds of words; labels are turned round with a chance."""
    draw = np.random.default_rng(seed)
    made = []
    for number in range(count):
        label = number % 2
        chosen = draw.choice(RUDE if label else KIND, 2)
        wrong = draw.random() < chance
        text = f"llama {number % 97} is {' and '.join(chosen)} today"
        made.append({"text": text, "label": int(label ^ wrong)})
    return made


def write(path: Path, every: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in every))
    return path


def test_a_judge_learns_words(tmp_path: Path) -> None:
    data = judge.labelled(write(tmp_path / "kind.jsonl", rows(400)))
    chances = judge.train(data.texts, data.labels)(["a vile fox", "a gentle fox", "", "a soft vile fox"])
    assert chances.shape == (4,) and chances.dtype == np.float64
    assert chances[0] > 0.9 and chances[1] < 0.1 and chances[1] < chances[3] < chances[0]
    assert 0.3 < chances[2] < 0.7  # nothing said
    quality = judge.measure(data)
    assert quality.usable and quality.accuracy == 1.0 and quality.area == 1.0
    assert str(quality).startswith("usable: accuracy 1.000 (1.000 to 1.000), AUC 1.000 on ")


def test_weights_solve_the_regression() -> None:
    """One feature and the constant: against the closed form of log odds for two groups."""
    texts, labels = (
        ["x" * 1000] * 100 + ["x"] * 100,
        np.array([1] * 80 + [0] * 20 + [1] * 30 + [0] * 70, bool),
    )
    chances = judge.train(texts, labels, judge._lengths)(["x" * 1000, "x"])
    assert chances == pytest.approx([0.8, 0.3], abs=2e-3)


def test_a_judge_of_noise_is_not_usable(tmp_path: Path) -> None:
    quality = judge.measure(judge.labelled(write(tmp_path / "noise.jsonl", rows(600, chance=0.5))))
    assert not quality.usable and str(quality).startswith("NOT USABLE")


def test_a_judge_that_sees_only_lengths_is_not_usable(tmp_path: Path) -> None:
    made = [{"text": f"w{n} " * (1 + 9 * (n % 2)), "label": n % 2} for n in range(400)]
    quality = judge.measure(judge.labelled(write(tmp_path / "long.jsonl", made)))
    assert quality.length_accuracy == 1.0 and not quality.usable


def test_questions_are_held_out_whole(tmp_path: Path) -> None:
    made = []
    for number in range(300):
        question, label = f"Q: What about llama {number % 60}?", number % 2
        said = "yes it is" if label else "no idea"
        made.append(
            {"prompt": f"{question}\nA: {said} {number}\nTrue:", "completion": (" no", " yes")[label]}
        )
    data = judge.labelled(write(tmp_path / "truth.jsonl", made))
    assert data.texts[1] == "yes it is 1" and data.labels[1] and data.questions[1] == "Q: What about llama 1?"
    quality = judge.measure(data)
    assert quality.texts % 5 == 0 and 0 < quality.texts < 150  # five answers a question


def test_files_that_teach_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="all have the same"):
        judge.labelled(write(tmp_path / "one.jsonl", [{"text": "a", "label": 1}]))
    with pytest.raises(UserError, match="no field 'label'"):
        judge.labelled(write(tmp_path / "none.jsonl", [{"text": "a"}]))
    few = judge.labelled(write(tmp_path / "few.jsonl", rows(2)))
    with pytest.raises(UserError, match="2 questions are too few"):
        judge.measure(few)


def test_items_are_judged_together() -> None:
    items = [{"texts": ["a", "bb"]}, {"texts": ["ccc", "dddd"]}]
    judges = {
        "long": lambda texts: np.array([len(text) / 4 for text in texts]),
        "first": lambda texts: np.array([text < "b" for text in texts], float),
    }
    told = judge.judged(items, {"long": judges["long"]}, decide=False)
    assert told == {"long": {"value": 0.625, "stderr": pytest.approx(0.1614, abs=1e-4), "n": 4}}
    both = judge.judged(items, judges, decide=True)
    assert [both[name]["value"] for name in ("long", "first", "long and first")] == [0.5, 0.25, 0.0]


class Service(BaseHTTPRequestHandler):
    """Answers with the reply of its server, and keeps what was asked."""

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self.server.asked.append(
            (self.path, self.headers["Authorization"], json.loads(self.rfile.read(length)))
        )
        body = self.server.reply.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def service() -> Iterator[Any]:
    server: Any = HTTPServer(("127.0.0.1", 0), Service)
    server.asked, server.address = [], f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_endpoint_is_asked_for_a_number(service: Any) -> None:
    service.reply = json.dumps({"choices": [{"message": {"content": "I would say 35."}}]})
    ask = judge.endpoint(service.address + "/", "made", "How toxic, 0 to 100? {text}", key="word")
    assert ask(["a {text} {x}", "b"]).tolist() == [0.35, 0.35]
    path, key, body = service.asked[0]
    assert (path, key, body["model"], body["temperature"]) == (
        "/v1/chat/completions",
        "Bearer word",
        "made",
        0,
    )
    assert body["messages"] == [{"role": "user", "content": "How toxic, 0 to 100? a {text} {x}"}]


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ('{"choices": []}', "made gave no message: "),
        ("not JSON", "/v1/chat/completions: Expecting value"),
        ('{"choices": [{"message": {"content": "many"}}]}', "and said 'many'"),
        ('{"choices": [{"message": {"content": "101"}}]}', "and said '101'"),
    ],
)
def test_an_endpoint_that_says_something_else(service: Any, reply: str, message: str) -> None:
    service.reply = reply
    with pytest.raises(UserError, match=message):
        judge.endpoint(service.address, "made", "{text}")(["a"])


def test_an_endpoint_that_is_none() -> None:
    with pytest.raises(UserError, match="begins with http"):
        judge.endpoint("file:///etc/passwd", "made", "{text}")
    with pytest.raises(UserError, match=r"http://127.0.0.1:9/chat/completions: .*refused"):
        judge.endpoint("http://127.0.0.1:9", "made", "{text}")(["a"])


def test_judges_of_truthfulqa_are_measured_on_questions_not_seen(data: Path) -> None:
    folder = data / "eval" / "truthfulqa"
    truth = judge.measure(judge.labelled(folder / "finetune_truth.jsonl.gz"))
    info = judge.measure(judge.labelled(folder / "finetune_info.jsonl.gz"))
    assert truth.usable and 0.66 < truth.accuracy < 0.74 and 0.72 < truth.area < 0.79
    assert info.usable and 0.86 < info.accuracy < 0.90 and 0.85 < info.area < 0.91
    assert truth.texts == info.texts == 3_296
