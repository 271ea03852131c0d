"""Opt-out by pattern, domain and robots rules: the examples of RFC 9309, and matching against `re`."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.corpus.filters import opt_out
from puna.corpus.filters.opt_out import BY_DOMAIN, BY_PATTERN, BY_ROBOTS, OptOut
from puna.errors import UserError
from tests.timing import within


def written(folder: Path, text: str) -> Path:
    path = folder / "file.txt"
    path.write_text(text, "utf-8")
    return path


def test_domains_cover_their_subdomains(tmp_path: Path) -> None:
    listed = "# list\nexample.org\n\n*.Herd.example  # and below\nbücher.example\n192.0.2.7\n"
    opt_out = OptOut(domains=written(tmp_path, listed))
    for url in (
        "http://example.org/x",
        "https://a.b.EXAMPLE.org:8080/",
        "http://herd.example",
        "http://www.xn--bcher-kva.example/",
        "http://192.0.2.7/",
    ):
        assert opt_out.refuses(url) == BY_DOMAIN, url
    for url in (
        "http://anexample.org/",
        "http://example.org.other.example/",
        "http://other.example/example.org",
        "file.jsonl",
        "",
        "http://org/",
    ):
        assert opt_out.refuses(url) == "", url


def test_a_million_domains_are_fast(tmp_path: Path) -> None:
    opt_out = OptOut(domains=written(tmp_path, "".join(f"d{number}.example\n" for number in range(200_000))))
    urls = [f"https://www.d{number}.example/page" for number in range(190_000, 210_000)]
    refused = within(2, lambda: sum(opt_out.refuses(url) == BY_DOMAIN for url in urls))
    assert refused == 10_000
    long = "http://" + "a." * 200_000 + "d7.example/"
    assert within(1, lambda: opt_out.refuses(long)) == BY_DOMAIN


@pytest.mark.parametrize(
    ("pattern", "refused", "free"),
    [
        ("example.org/private/", ["http://example.org/private/", "https://example.org/private/a?b"],
         ["http://example.org/privat", "http://a.example.org/private/"]),
        ("https://example.org/*.pdf$", ["http://example.org/a/b.pdf"],
         ["http://example.org/a.pdf?x", "http://example.org/pdf"]),
        ("example.org", ["http://example.org/", "http://example.org/a"], ["http://example.org.other.example/"]),
        ("example.org$", ["http://example.org"], ["http://example.org/a"]),
        ("*.example.org/a", ["http://x.example.org/ab"],
         ["http://example.org/a", "http://other.example/x.example.org/a"]),
        ("*/private/", ["http://example.org/private/x"], ["http://example.org/a/private/"]),
        ("*/*/private/", ["http://example.org/a/private/"], ["http://example.org/private"]),
        ("example.org/a b", ["http://example.org/a%20b"], []),
        ("example.org/Ä", ["http://example.org/%c3%84"], ["http://example.org/ä"]),
        ("example.org/a%2A", ["http://example.org/a*"], ["http://example.org/ab"]),
    ],
)  # fmt: skip
def test_patterns(tmp_path: Path, pattern: str, refused: list[str], free: list[str]) -> None:
    if " " in pattern:
        with pytest.raises(UserError, match="row 1"):
            OptOut(patterns=written(tmp_path, pattern))
        pattern = pattern.replace(" ", "%20")
    opt_out = OptOut(patterns=written(tmp_path, f"{pattern}\n"))
    assert [opt_out.refuses(url) for url in refused] == [BY_PATTERN] * len(refused)
    assert [opt_out.refuses(url) for url in free] == [""] * len(free)


@given(st.text(alphabet="ab*/", max_size=12), st.booleans(), st.text(alphabet="ab/", max_size=14))
def test_matching_equals_a_regular_expression(pattern: str, whole: bool, text: str) -> None:
    expression = ".*".join(map(re.escape, pattern.split("*")))
    match = re.fullmatch(expression, text) if whole else re.match(expression, text)
    assert opt_out._rule(pattern + "$" * whole).matches(text) == bool(match)


def test_matching_is_linear() -> None:
    rule = opt_out._rule("/" + "*a" * 200 + "*b")
    assert not within(2, lambda: rule.matches("/" + "a" * 100_000))


ROBOTS = """
Host: example.org
User-agent: CCBot        # RFC 9309, section 2.2.2 and on
User-agent: OtherBot
Disallow: /example/page/
Allow: /example/page/disallowed.gif
Disallow: /*.gif$
Allow: /publications/
Disallow: /publications/*/draft
Disallow: /tie
Allow: /tie
Crawl-delay: 10
Disallow: /path/%e4%bd%a0
Disallow: /star-with-%2A.html

User-agent: *
Disallow: /

User-agent: ccbot
Disallow: /second-group

Host: open.example
User-agent: *
Disallow:

Host: closed.example
User-agent: *
Disallow: /
Sitemap: https://closed.example/map

Host: other.example:8080
User-agent: GPTBot
Disallow: /
"""


@pytest.mark.parametrize(
    ("url", "refused"),
    [
        ("http://example.org/example/page/", True),
        ("http://example.org/example/page/disallowed.gif", False),
        ("http://example.org/example/page", False),
        ("http://example.org/a.gif", True),
        ("http://example.org/a.gif?x", False),
        ("http://example.org/publications/1", False),
        ("http://example.org/publications/1/draft", True),
        ("http://example.org/tie", False),
        ("http://example.org/path/你", True),
        ("http://example.org/path/%E4%BD%A0/x", True),
        ("http://example.org/star-with-*.html", True),
        ("http://example.org/star-with-a.html", False),
        ("http://example.org/second-group", True),
        ("http://example.org/free", False),
        ("http://www.example.org/example/page/", False),
        ("http://open.example/a", False),
        ("https://closed.example/a", True),
        ("https://closed.example/robots.txt", False),
        ("http://other.example:8080/", False),
        ("http://unknown.example/", False),
    ],
)
def test_robots(tmp_path: Path, url: str, refused: bool) -> None:
    assert OptOut(robots=written(tmp_path, ROBOTS)).refuses(url) == (BY_ROBOTS if refused else "")


def test_robots_of_several_agents(tmp_path: Path) -> None:
    path = written(tmp_path, ROBOTS)
    assert OptOut(robots=path, agents=("CCBot", "gptbot")).refuses("http://other.example:8080/") == BY_ROBOTS
    assert OptOut(robots=path, agents=("NewBot",)).refuses("http://example.org/free") == BY_ROBOTS
    assert OptOut(robots=path, agents=("NewBot",)).refuses("http://other.example:8080/") == ""


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("domains", "good.example\nhttp://bad.example/", "row 2: 'http://bad.example/' is no host"),
        ("domains", "a b", "row 1"),
        ("patterns", "good.example/a\n\n/only/a/path", "row 3: '/only/a/path' is no URL pattern"),
        ("patterns", "*", "row 1"),
        ("robots", "User-agent: *", "row 1: a rule before any host"),
        ("robots", "Host: a.example\nUser-agent: *\nDisallow: private", "row 3: 'private' is no path"),
        ("robots", "Host: a.example\nnonsense", "row 2: 'nonsense' is no rule"),
        ("robots", "Host: a b", "row 1"),
    ],
)
def test_mistakes_are_named_with_file_and_row(tmp_path: Path, kind: str, text: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as error:
        OptOut(**{kind: written(tmp_path, text)})
    assert "file.txt" in str(error.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no opt-out file there"):
        OptOut(domains=tmp_path / "none")
    path = tmp_path / "x"
    path.write_bytes(b"a.example\n\xff.example\n")
    with pytest.raises(UserError, match="not UTF-8"):
        OptOut(domains=path)


def test_nothing_is_refused_without_files() -> None:
    assert OptOut().refuses("http://example.org/") == ""
