"""What is scrubbed, what looks alike and is not, and that any text takes linear time."""

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.corpus.filters.privacy import KINDS, PrivateData, scrub, scrub_url, told
from puna.corpus.record import Record
from tests.timing import within


@pytest.mark.parametrize(
    "text",
    [
        "mail me: ⟦jane.doe@mail.uni-x.de⟧.",
        "A B ⟦<a.b+c@gmail.com>⟧, ⟦<x@herd.org>⟧⟦<y@herd.org>⟧ <⟦z@herd.org⟧ or ⟦q@herd.org⟧>",
        "(⟦x_1@sub.dept.ac.uk⟧)", "mailto:⟦x@herd.org⟧?subject=a", "⟦A@B.ORG⟧,⟦c@d.net⟧",
        "邮箱⟦foo@bar.com⟧请", "write to ⟦x@herd.org⟧: now", "⟦foo@example.com⟧", "⟦a@b.co⟧\n⟦c@d.co⟧",
    ],
)  # fmt: skip
def test_email(text: str) -> None:
    check(text, "email")


@pytest.mark.parametrize(
    "text",
    [
        "⟦+49 30 123456⟧", "⟦(555) 234-5678⟧", "⟦555-234-5678⟧", "⟦1-555-234-5678⟧", "⟦555.234.5678⟧",
        "⟦+1 (555) 234-5678⟧", "⟦+15552345678⟧", "call ⟦020 7946 0958⟧ now", "Tel. ⟦030/1234567⟧",
        "⟦01 23 45 67 89⟧", "⟦01.23.45.67.89⟧", "⟦0044 20 7946 0958⟧", "Phone: ⟦5551234⟧",
        "tel:⟦+33123456789⟧", "Tel: ⟦+33 1 23 45 67 89⟧ (office)", "⟦089 / 123 45 67⟧",
        "⟦+44 (0)20 7946 0958⟧", "⟦+352-26203652⟧", "Fax no. ⟦12 34 56 78⟧",
        "⟦+86 138\u00a00013\u00a08000⟧", "⟦+49 30 123456⟧ or ⟦+49 30 654321⟧", "тел. ⟦8 495 123 45 67⟧",
        "call ⟦<+49 30 123456>⟧, <⟦+49 30 654321⟧",
    ],
)  # fmt: skip
def test_phone(text: str) -> None:
    check(text, "phone")


@pytest.mark.parametrize(
    "text",
    [
        "server ⟦8.8.4.4⟧", "http://⟦151.101.1.69⟧/", "⟦81.169.145.10⟧/24",
        "from ⟦2a00:1450:4001:81b::200e⟧ port", "[⟦2a00:1450:4001:81b::200e⟧]:80", "at ⟦130.89.148.77⟧.",
        "from ⟦<2a00:1450:4001:81b::200e>⟧", "⟦<2a00:1450:4001:81b::200e>⟧⟦<2a00:1450:4001:81b::200f>⟧",
        "⟦81.169.145.10⟧-⟦81.169.145.20⟧", "dns=⟦9.9.9.9⟧", "⟦2a00:1450:4001:81b:0:0:0:200e⟧",
    ],
)  # fmt: skip
def test_ip(text: str) -> None:
    check(text, "ip")


def check(text: str, kind: str) -> None:
    plain = text.replace("⟦", "").replace("⟧", "")
    before, *parts = text.split("⟦")
    expected = before + "".join(f"<{kind.upper()}>" + part.split("⟧")[1] for part in parts)
    scrubbed, counts = scrub(plain)
    assert scrubbed == expected and counts == {**dict.fromkeys(KINDS, 0), kind: len(parts)}
    assert scrub(plain, [each for each in KINDS if each != kind])[0] == plain


@pytest.mark.parametrize(
    "text",
    [
        "1999-2004", "in 2001-02-03 and 2003", "2020-11-26 07:47:02", "01.02.2003 04:05", "05/06/2007",
        "1914 - 1918, 1939 - 1945", "ISBN 978-0-306-40615-7", "ISBN 0-306-40615-2",
        "ISBN 978 0 306 40615 7", "ISSN 0317-8471", "arXiv:0704.0001", "10.1016/0370-2693(94)90034-5",
        "$1,234,567.00", "1 234 567 890", "100 200 300 400 500", "+12345678", "+1.23456789", "3.14159265",
        "0.123 456 789", "100000 m3", "40.7128, -74.0060", "+40.7128 -74.0060", "051° 30' 26",
        "Boston, MA 02110-1301, USA", "pages 123-456-7890123", "1 2 3 4 5 6 7 8 9 10 11 12",
        "123e4567-e89b-12d3-a456-426614174000", "00 01 02 03 04 05 06 07", "0644 0755", "0x0123 4567 89",
        "1234567890", "4111111111111111", "version 1.2.3.4", "v1.2.3.4", "foo-1.2.3.4.tar.gz", "1.2.3.4-5",
        "Section 3.1.2.4 Foo", "6.2.4.3, about addresses", "1.3.6.1.4.1.311",
        "10.0.0.1 127.0.0.1 255.255.255.0 192.168.1.1 172.16.0.1 0.0.0.0 224.0.0.1 203.0.113.5",
        "256.300.1.2", "Chrome/49.0.2623.112", "12:34:56 2012:10:11", "std::vector a::b", "dead::beef",
        "2001:db8::1 fe80::1 ::1", "00:1a:2b:3c:4d:5e", "x@self.weight", "git@github.com:a/b.git",
        "icon@2x.png", "react@16.7.0", "@property.setter", "user@host", "a @ b.com", "@user",
        "root@localhost.localdomain",
    ],
)  # fmt: skip
def test_what_looks_alike_stays(text: str) -> None:
    assert scrub(text) == (text, dict.fromkeys(KINDS, 0))
    assert scrub(f"see {text}, then")[0] == f"see {text}, then"


PIECES = [
    "a", "7", "555-234-5678", " ", ".", "@", "+49 30 1234567", "x@y.org", "8.8.4.4", "server ", ":",
    "2a00::1", "-", "(", ")", "\n", "/", "Tel. ", "<", ">",
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join) | st.text())
def test_a_second_time_changes_nothing_and_the_counts_are_those_of_the_placeholders(text: str) -> None:
    scrubbed, counts = scrub(text)
    placeholders = [f"<{kind.upper()}>" for kind in KINDS]
    assert sum(counts.values()) == sum(scrubbed.count(each) - text.count(each) for each in placeholders)
    assert scrub(scrubbed) == (scrubbed, dict.fromkeys(KINDS, 0))
    assert scrub(text, []) == (text, {})


@pytest.mark.parametrize(
    "piece",
    [
        "1", "a", "@", "a@", "a@b.", "a.", "1 ", "1.", "(", "+", "1(", "12-", "1.1.", ":", "a:", "2a00:",
        "+1", "0", "01 ", "12345((((((", "Tel. 1", "a" * 70 + "@b.co", "555-234-",
    ],
)  # fmt: skip
def test_time_is_linear(piece: str) -> None:
    within(2, lambda: scrub(piece * (300_000 // len(piece))))


def test_books_are_hardly_touched(data: Path) -> None:
    """Their licence has one phone number and some e-mail addresses; one, a guide to Debian, an IP address."""
    totals, numbers = dict.fromkeys(KINDS, 0), 0
    for path in sorted((data / "raw" / "gutenberg").glob("*.txt")):
        text = path.read_text("utf-8", "replace")
        numbers += text.count("(801) 596-1887")
        for kind, count in scrub(text)[1].items():
            totals[kind] += count
    assert (totals["phone"], totals["ip"]) == (numbers, 1) and numbers and 0 < totals["email"] < 60


def test_text_title_and_address_are_scrubbed_and_counted_together() -> None:
    address = "https://herd.org/of/jane@herd.org?tel=%2B49+30+123456"
    record = Record(text="From 8.8.4.4, a@b.org", title="By jane@herd.org", url=address)
    untouched = Record(text="a text", title="a title", url="https://herd.org/a/1")
    PrivateData(KINDS).apply([record, untouched])
    assert (record.text, record.title) == ("From <IP>, <EMAIL>", "By <EMAIL>")
    assert record.url == "https://herd.org/of/%3CEMAIL%3E?tel=%3CPHONE%3E"
    assert record.detail == "3 email, 1 phone, 1 ip"
    assert (untouched.url, untouched.title, untouched.detail) == ("https://herd.org/a/1", "a title", "")


@pytest.mark.parametrize(
    ("address", "scrubbed", "counts"),
    [
        ("https://a.org/?m=jane%40herd.org&x=1", "https://a.org/?m=%3CEMAIL%3E&x=1", "1 email"),
        ("https://a.org/?next=https%3A%2F%2Fb.org%2F%3Fm%3Djane%2540herd.org",
         "https://a.org/?next=https:%2F%2Fb.org%2F%3Fm%3D%3CEMAIL%3E", "1 email"),
        ("https://a.org/s?q=tel+030+1234567#jane@herd.org",
         "https://a.org/s?q=tel+%3CPHONE%3E#%3CEMAIL%3E", "1 email, 1 phone"),
        ("http://a.org/call/555-234-5678/", "http://a.org/call/%3CPHONE%3E/", "1 phone"),
        ("http://a.org/ip/81.169.145.10;by=jane@herd.org", "http://a.org/ip/%3CIP%3E;by=%3CEMAIL%3E",
         "1 email, 1 ip"),
        ("https://a.org/?ip=2a00:1450:4001:81b::200e", "https://a.org/?ip=%3CIP%3E", "1 ip"),
        ("ftp://jane:secret@a.org:21/x", "ftp://%3CEMAIL%3E@a.org:21/x", "1 email"),
        ("http://jane%40herd.org:x@a.org/", "http://%3CEMAIL%3E@a.org/", "1 email"),
        ("http://151.101.1.69/a", "http://151.101.1.69/a", ""),  # the host says who published it
        ("mailto:jane@herd.org?subject=a", "mailto:%3CEMAIL%3E?subject=a", "1 email"),
        ("http://[broken/jane@herd.org", "http://[broken/%3CEMAIL%3E", "1 email"),
        ("jane@herd.org.txt#1", "jane@herd.org.txt#1", ""),  # no top-level domain
        ("mail of jane@herd.org#1", "mail of <EMAIL>#1", "1 email"),
        ("https://a.org/2012/03/04/1234567890-a%20b?v=1.2.3.4&id=4111111111111111",
         "https://a.org/2012/03/04/1234567890-a%20b?v=1.2.3.4&id=4111111111111111", ""),
        ("https://medium.com/@jane/a-post-0a1b2c3d4e5f", "https://medium.com/@jane/a-post-0a1b2c3d4e5f", ""),
    ],
)  # fmt: skip
def test_addresses(address: str, scrubbed: str, counts: str) -> None:
    found, own = scrub_url(address)
    assert (found, told(own)) == (scrubbed, counts)
    again, more = scrub_url(found)
    assert again == found and not more.total()
    assert scrub_url(address, [])[0] == address


URL_PIECES = [*PIECES, "%40", "%", "&", "=", "?", "#", ";", "+", "%2B49", "é", "%E9", "\ud800"]


@given(st.lists(st.sampled_from(URL_PIECES), max_size=30).map("".join) | st.text())
def test_an_address_keeps_its_host_and_its_parts(rest: str) -> None:
    address = f"https://jane.herd.org:80/{rest}"
    scrubbed, counts = scrub_url(address)
    assert scrubbed.startswith("https://jane.herd.org:80/") and (counts or scrubbed == address)
    assert urlsplit(scrubbed).hostname == "jane.herd.org"
    cut = [re.split("[/?#&=;]", each) for each in (address, scrubbed)]
    assert len(cut[0]) == len(cut[1])
    written = sum(unquote(part).count(f"<{kind.upper()}>") for kind in KINDS for part in cut[1])
    assert written >= counts.total()


@pytest.mark.parametrize("piece", ["1", "a@", "%40", "%25", "/", "a@b.co/", "+", "1.1.", "555-234-"])
def test_addresses_take_linear_time(piece: str) -> None:
    within(2, lambda: scrub_url("http://a.org/" + piece * (100_000 // len(piece))))
