"""puna chat: on a small model whose texts mean nothing, by a pipe, in this process and in a terminal."""

import contextlib
import io
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from puna.cli import chat as cli
from puna.errors import UserError
from puna.generate import load
from puna.generate.engine import Engine, Sampling
from puna.generate.load import Loaded, Origin
from puna.model.config import LlamaConfig
from puna.model.llama import Llama
from puna.tokens import chat
from puna.tokens.chat import FORMATS
from puna.tokens.conversations import Turn
from tests.tiny import command, environment, puna
from tests.tokens.conversations import small_bytes, small_sentencepiece

CHATML = FORMATS["chatml"]


def small(template: str | None, context: int = 128, **made: Any) -> Loaded:
    tokenizer = made.get("tokenizer") or small_bytes()
    shape = {"dim": 32, "n_layers": 1, "n_heads": 2, "ffn_dim": 48, "max_seq_len": context}
    model = Llama.empty(LlamaConfig(**shape, vocab_size=tokenizer.vocab_size))
    model.init_weights(3)
    return Loaded(model, tokenizer, template, tokenizer.stops, Origin("native", Path("here"), {}, {}))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of models: one with chatml's template, one without any, one with a template of others."""
    folder = tmp_path_factory.mktemp("models")
    load.save(small(chat.jinja(CHATML, begins=False)), folder / "tuned", "native")
    load.save(small(None), folder / "base", "native")
    load.save(
        small("{{ messages[0]['content'] }}", tokenizer=small_sentencepiece()), folder / "other", "native"
    )
    return folder


def talk(form: chat.Format | None = CHATML, tokens: int = 6, **how: Any) -> cli.Conversation:
    loaded = small(None, **how)
    sampling = Sampling(temperature=how.get("temperature", 1.0))
    return cli.Conversation(
        Engine(loaded.model, loaded.tokenizer), form, how.get("system"), tokens, sampling, 5
    )


def talked(model: Path, lines: str, **options: Any) -> tuple[str, str]:
    """(what is printed, what is told) of `puna chat` on a pipe, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdin", io.StringIO(lines))
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                cli.chat(model, **{"tokens": 5, **options})
            except UserError as error:
                print(f"refused: {error}", file=sys.stderr)
    return out.getvalue(), err.getvalue()


def test_a_tuned_model_answers_line_by_line(saved: Path) -> None:
    said = "Hi\nHow are\\\nyou?\n\n/quit\nnever said\n"
    result = puna("chat", saved / "tuned", "--tokens", 5, "--temperature", 0, input=said)
    assert "tuned: chat format chatml, by the model's template; it reads 128 tokens" in result.stderr
    assert result.stderr.count(" of 128 tokens]") == 2 and result.stderr.count("cut after --tokens 5") == 2
    assert talked(saved / "tuned", said, temperature=0) == (result.stdout, result.stderr)
    alone, told = talked(saved / "tuned", "Hi\n", temperature=0)
    assert result.stdout.startswith(alone) and len(result.stdout) > len(alone)
    assert talked(saved / "tuned", "Hi\n", temperature=0, system="Be kind.")[1] != told


def test_a_base_model_is_continued_and_this_is_said(saved: Path) -> None:
    _, told = talked(saved / "base", "Hi\n")
    assert (
        "the model has no chat template, so it goes on from what you type and nothing is put around it"
        in told
    )
    assert "[7 of 128 tokens] cut after --tokens 5" in told  # two letters and five tokens
    assert "has a chat template that is not known here, so it goes on" in talked(saved / "other", "Hi\n")[1]
    assert "chat format koala, as you say" in talked(saved / "base", "Hi\n", form="koala")[1]


def test_what_cannot_be(saved: Path) -> None:
    _, refused = talked(saved / "base", "", system="Be kind.")
    assert "--system is for a chat format" in refused and "--format" in refused
    _, refused = talked(saved / "base", "", form="chatlm")
    assert "--format chatlm: no such chat format; there are vicuna_v1.1, koala" in refused
    run = puna("chat", saved / "tuned", "--tokens", 5, code=2, input=f"Hi\n{'long ' * 60}\nHi\n")
    assert "and the model reads 128: begin anew with /new" in run.stderr and run.stdout.count("\n") == 1


def test_bytes_that_are_no_text_are_told(saved: Path) -> None:
    lines = io.TextIOWrapper(io.BytesIO(b"Hi\nno\xff\n"), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(UserError, match=r"no UTF-8: .* byte 0xff"):
        patch.setattr("sys.stdin", lines)
        cli.chat(saved / "tuned", tokens=5)


def test_what_a_tokenizer_lacks_is_told_at_once(tmp_path: Path) -> None:
    from puna.tokens.settings import TokenizerSettings
    from puna.tokens.tokenizer import Tokenizer, train

    plain = Tokenizer(train(["The llamas graze."] * 9, TokenizerSettings(vocab_size=271)))
    load.save(small(None, tokenizer=plain), tmp_path / "plain", "native")
    printed, refused = talked(tmp_path / "plain", "Hi\n", form="chatml")
    assert "needs control tokens that the tokenizer has not: <|im_start|>, <|im_end|>" in refused
    assert printed == ""


def test_prompts_are_those_of_the_format() -> None:
    one = talk(system="Be kind.")
    assert not one.take("Hi")
    user, answer = one.said
    before = [Turn("system", "Be kind."), Turn("user", user), Turn("assistant", answer), Turn("user", "So?")]
    expected = chat.encode(before, CHATML, one.engine.tokenizer, open=True).ids
    assert one.prompt([*one.said, "So?"]) == expected
    one = talk(None)
    one.said = ["The old", " llama walks."]
    assert one.prompt([*one.said, "Then"]) == one.engine.tokenizer.encode("The old llama walks.\nThen")


def test_an_answer_is_the_engines() -> None:
    one = talk()
    one.take("Hi")
    loaded = small(None)
    how = {"max_new_tokens": 6, "sampling": Sampling(temperature=1.0), "seed": 5}
    ((_, _, sample),) = Engine(loaded.model, loaded.tokenizer).sample([one.prompt(["Hi"])], **how)
    assert one.said == ["Hi", sample.text.strip()] and one.said[1]


def test_an_answer_ends_where_the_format_ends_it(capsys: pytest.CaptureFixture[str]) -> None:
    """At a token that ends no text of the tokenizer's; here the one that the model writes first."""
    one = talk(temperature=0)
    tokenizer = one.engine.tokenizer
    assert chat.stop_ids(CHATML, tokenizer).isdisjoint(tokenizer.stops)
    ((_, _, sample),) = one.engine.sample([one.prompt(["Hi"])], max_new_tokens=1)
    one.take("Hi")
    assert "cut after" in capsys.readouterr().err
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chat, "stop_ids", lambda form, tokenizer: frozenset(sample.tokens))
        one.take("/retry")
    told = capsys.readouterr().err
    assert "cut" not in told and one.said == ["Hi", ""]


def test_retry_undo_and_new(capsys: pytest.CaptureFixture[str]) -> None:
    one = talk()
    for line in ("/retry", "/undo"):
        one.take(line)
    assert capsys.readouterr().err == "nothing is said yet\n" * 2
    one.take("Hi")
    first = list(one.said)
    one.take("/retry")
    assert one.said[0] == "Hi" and one.said[1] != first[1] and one.tries == 1
    one.take("So?")
    assert len(one.said) == 4 and one.tries == 0
    one.take("/undo")
    assert one.said[:1] == ["Hi"] and len(one.said) == 2
    one.take("/newer")
    assert len(one.said) == 2
    one.take(" /new")
    assert one.said[2] == " /new"
    one.take("/new")
    assert one.said == [] and one.take("/quit")
    assert "taken back: So?" in (told := capsys.readouterr().err) and "no command /newer; /help" in told


def test_a_full_context_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    one = talk(context=32, tokens=100)
    one.take("Hi")
    assert "[32 of 32 tokens] cut: the context is full; /new begins anew" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"and the model reads 32: begin anew with /new, take .* /undo"):
        one.take("So?")
    assert len(one.said) == 2


def test_control_c_ends_an_answer_and_keeps_what_is_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pieces: list[Any] = []

    def shown(strip: bool) -> Any:
        def show(piece: Any) -> None:
            pieces.append(piece)
            if len(pieces) == 3:
                os.kill(os.getpid(), signal.SIGINT)

        return show

    monkeypatch.setattr(cli, "_shown", shown)
    one = talk(tokens=50)
    before = signal.getsignal(signal.SIGINT)
    one.take("Hi")
    assert signal.getsignal(signal.SIGINT) is before
    assert "tokens] stopped" in capsys.readouterr().err and len(pieces) <= 5
    one.take("So?")
    assert len(one.said) == 4


def test_what_a_model_writes_moves_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    from puna.generate.engine import Piece

    show = cli._shown(strip=True)
    for text in (" ", "\n a", " \x1b[2J", "\t\x07é\x9b\n"):
        show(Piece(0, 0.0, text))
    assert capsys.readouterr().out == "a \ufffd[2J\t\ufffdé\ufffd\n"


def test_in_a_terminal(saved: Path) -> None:
    """Prompts are shown, mistakes do not end the conversation, Ctrl-D does."""
    ours, theirs = pty.openpty()
    arguments = command("chat", saved / "tuned", "--tokens", 4)
    process = subprocess.Popen(
        arguments, stdin=theirs, stdout=theirs, stderr=theirs, env={**environment(), "TERM": "dumb"}
    )
    os.close(theirs)
    shown = b""

    def wait_for(text: bytes) -> None:
        nonlocal shown
        end = time.monotonic() + 60
        while text not in shown:
            assert time.monotonic() < end and process.poll() is None, shown
            if select.select([ours], [], [], 1)[0]:
                shown += os.read(ours, 4096)
        shown = shown[shown.index(text) + len(text) :]

    try:
        wait_for(b"> ")
        os.write(ours, b"Hi \\\n")
        wait_for(b". ")
        os.write(ours, b"you\n")
        wait_for(b"of 128 tokens]")
        wait_for(b"> ")
        os.write(ours, b"long " * 50 + b"\n")
        wait_for(b"begin anew with /new")
        wait_for(b"> ")
        os.write(ours, b"never said")
        wait_for(b"never said")  # it is read
        time.sleep(0.2)  # readline waits for a key then: a signal just before that wakes nothing
        process.send_signal(signal.SIGINT)
        if not select.select([ours], [], [], 5)[0]:
            process.send_signal(signal.SIGINT)
        wait_for(b"/quit or Ctrl-D ends")
        wait_for(b"> ")
        os.write(ours, b"/help\n")
        wait_for(b"is said, whatever it is.")
        wait_for(b"> ")
        os.write(ours, b"\x04")
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_help_is_quick() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import sys; import puna.cli.main; print('torch' in sys.modules)"],
        capture_output=True, text=True, env=environment(), check=True,
    )  # fmt: skip
    assert done.stdout == "False\n"
