"""Normal forms of URLs for opt-outs; those for citations are tested in readers/wiki/test_references.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.text.urls import host_and_path


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("HTTP://Example.ORG", ("example.org", "/")),
        ("https://example.org:443/a?b#c", ("example.org", "/a?b")),
        ("http://example.org:8080/", ("example.org:8080", "/")),
        ("https://example.org:80/", ("example.org:80", "/")),
        ("http://user:word@example.org./a", ("example.org", "/a")),
        ("http://example.org/%7Ea/%e4%bd?q=%2f", ("example.org", "/~a/%E4%BD?q=%2F")),
        ("http://example.org/ä b", ("example.org", "/%C3%A4%20b")),
        ("http://example.org/a/./b/../../c/..", ("example.org", "/")),
        ("http://example.org/a/../../b?x=/../", ("example.org", "/b?x=/../")),
        ("http://example.org?q", ("example.org", "/?q")),
        ("http://Bücher.example/", ("xn--bcher-kva.example", "/")),
        ("http://%65xample.org/", ("example.org", "/")),
        ("http://[2001:DB8::1]:81/a", ("[2001:db8::1]:81", "/a")),
        ("//example.org/a", ("example.org", "/a")),
        ("example.org/a", ("example.org", "/a")),
        ("http://example.org/100%", ("example.org", "/100%25")),
        ("http://example.org/a*b$[c]", ("example.org", "/a%2Ab%24[c]")),
        ("pypi:flask==3/flask/app.py", ("", "")),
        ("", ("", "")),
        ("http://", ("", "/")),
    ],
)
def test_host_and_path(url: str, expected: tuple[str, str]) -> None:
    assert host_and_path(url) == expected


@given(st.text(alphabet="abc/.%2fFé?#:@ [", max_size=30))
def test_host_and_path_are_stable(text: str) -> None:
    host, path = host_and_path("http://h.example/" + text)
    assert host == "h.example" and host_and_path("http://h.example" + path) == (host, path)


@given(st.text() | st.text(st.characters(codec=None)))
def test_any_url_has_a_normal_form(text: str) -> None:
    assert isinstance(host_and_path(text), tuple)
