"""Addresses of raw data, and files downloaded from them."""

import errno
import functools
import glob
import hashlib
import http.server
import io
import os
import random
import shutil
import tarfile
import threading
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from puna.corpus.sources import fetch
from puna.errors import UserError

HEX = "ab" * 32


def test_forms_of_an_address() -> None:
    wheel = fetch.parse(f"pypi:a-b==1.0/a_b-1.0-py3-none-any.whl#sha256={HEX}!a/*.txt")
    assert (wheel.kind, wheel.location, wheel.sha256, wheel.members) == (
        "pypi",
        "a-b==1.0/a_b-1.0-py3-none-any.whl",
        HEX,
        ("a/*.txt",),
    )
    remote = fetch.parse(f"https://host.example/x.warc.gz#sha256={HEX}")
    assert (remote.kind, remote.location, remote.members) == ("remote", "https://host.example/x.warc.gz", ())
    for uri, where, members in (
        ("/a/b.zip!*.txt", "/a/b.zip", ("*.txt",)),
        ("a!b/c.tar.gz!d!e", "a!b/c.tar.gz", ("d!e",)),
        ("a!b.txt", "a!b.txt", ()),
    ):
        local = fetch.parse(uri)
        assert (local.kind, local.location, local.members) == ("local", where, members)
    assert fetch.parse("file:/a/b").location == "/a/b" and fetch.parse("a/*.txt").kind == "local"


@pytest.mark.parametrize(
    "uri",
    ["https://host.example/x", "pypi:a==1/a.whl", "pypi:a==1/a.whl#sha256=12", f"pypi:a/a.whl#sha256={HEX}"],
)
def test_what_cannot_be_reproduced_is_refused(uri: str) -> None:
    with pytest.raises(UserError, match=r"needs its digest|is written pypi:"):
        fetch.parse(uri)


def test_files_in_one_archive_are_one_address() -> None:
    far = f"https://host.example/x.zip#sha256={HEX}"
    uris = [
        f"{far}!*.txt",
        "a.zip!b",
        "c.txt",
        f"{far}!d",
        far,
        "a.zip",
        f"{far}!e",
        "a.zip!f",
        "file:a.zip!g",
    ]
    found = [(address.location, address.members) for address in fetch.parse_all(uris)]
    remote = "https://host.example/x.zip"
    assert found == [
        (remote, ("*.txt", "d", "e")),
        ("a.zip", ("b", "f", "g")),
        ("c.txt", ()),
        (remote, ()),
        ("a.zip", ()),
    ]


def test_a_name_that_is_no_text_ends_the_run_or_is_skipped(tmp_path: Path) -> None:
    for name in (b"a.txt", b"b\xff.txt", b"c\n.txt", "d\xa0\u202f.txt".encode()):
        (tmp_path / os.fsdecode(name)).write_text("x")
    found = fetch.local_files("s", fetch.parse("*.txt"), tmp_path, skip=True)
    assert [(file.name, file.unreadable) for file in found] == [
        ("a.txt", ""),
        ("b\\udcff.txt", "the name is not text in UTF-8"),
        ("c\\n.txt", "the name has control characters, such as a line end"),
        ("d\xa0\u202f.txt", ""),
    ]
    with pytest.raises(
        UserError, match=r"source s: the name 'b\\udcff\.txt' is not text in UTF-8; rename the file"
    ):
        fetch.local_files("s", fetch.parse("*.txt"), tmp_path)


def test_a_folder_with_a_name_that_is_no_text_has_a_digest(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "a").write_text("x")
    before = fetch.content_digest(tmp_path / "f")
    for name in (b"f/\xff", b"f/\xfe"):
        (tmp_path / "f" / "a").rename(tmp_path / os.fsdecode(name))
        assert before != (before := fetch.content_digest(tmp_path / "f"))
        (tmp_path / os.fsdecode(name)).rename(tmp_path / "f" / "a")


def test_local_files_in_name_order_with_digests(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "c.md"):
        (tmp_path / name).write_text(name)
    found = fetch.local_files("s", fetch.parse("*.txt"), tmp_path)
    assert [file.name for file in found] == ["a.txt", "b.txt"]
    assert found[0].digest == hashlib.sha256(b"a.txt").hexdigest()
    for missing in ("*.warc", "no.txt"):
        with pytest.raises(UserError, match=f"source s: nothing at .*{missing[-4:]}"):
            fetch.local_files("s", fetch.parse(missing), tmp_path)


def test_a_folders_digest_depends_on_names_and_content(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "a").write_text("x")
    before = fetch.content_digest(tmp_path / "f")
    (tmp_path / "f" / "a").rename(tmp_path / "f" / "b")
    renamed = fetch.content_digest(tmp_path / "f")
    (tmp_path / "f" / "b").write_text("y")
    assert len({before, renamed, fetch.content_digest(tmp_path / "f")}) == 3


REQUESTED: list[str] = []  # paths that the server was asked for, by the test that runs


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    folder = tmp_path / "served"
    folder.mkdir()
    REQUESTED.clear()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            REQUESTED.append(self.path)
            super().do_GET()

        def log_message(self, *arguments: object) -> None:
            pass

    handler = functools.partial(Handler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", folder
        running.shutdown()


def test_a_remote_archive_is_verified_and_its_members_unpacked(
    server: tuple[str, Path], tmp_path: Path
) -> None:
    base, folder = server
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        for name in ("x/one.txt", "x/two.md", "x/three.txt", "../evil.txt"):
            archive.writestr(name, name)
    digest = fetch.file_digest(folder / "a.zip")
    found = fetch.fetch("s", fetch.parse(f"{base}/a.zip#sha256={digest}!*.txt"), tmp_path / "to")
    assert [file.path.read_text() for file in found] == ["x/one.txt", "x/three.txt"]
    assert not (tmp_path / "evil.txt").exists() and not (tmp_path / "to" / "evil.txt").exists()
    (whole,) = fetch.fetch("s", fetch.parse(f"{base}/a.zip#sha256={digest}"), tmp_path / "whole")
    assert whole.path.read_bytes() == (folder / "a.zip").read_bytes()


def test_equal_names_do_not_overwrite_each_other(server: tuple[str, Path], tmp_path: Path) -> None:
    base, folder = server
    found = []
    for name in ("a", "b"):
        (folder / name).mkdir()
        (folder / name / "data.txt").write_text(name)
        uri = f"{base}/{name}/data.txt#sha256={fetch.file_digest(folder / name / 'data.txt')}"
        found += fetch.fetch("s", fetch.parse(uri), tmp_path / "to")
    assert [file.path.read_text() for file in found] == ["a", "b"]


def served_files(server: tuple[str, Path]) -> list[fetch.Address]:
    """Addresses of a text, a zip of which one member is wanted, and another text."""
    base, folder = server
    (folder / "one.txt").write_text("1")
    packed(folder / "two.zip", [("two.txt", b"2"), ("two.md", b"other")])
    (folder / "three.txt").write_text("3")
    addresses = []
    for name, members in (("one.txt", ""), ("two.zip", "!*.txt"), ("three.txt", "")):
        digest = fetch.file_digest(folder / name)
        addresses.append(fetch.parse(f"{base}/{name}#sha256={digest}{members}"))
    return addresses


def test_a_second_attempt_downloads_only_what_is_missing(server: tuple[str, Path], tmp_path: Path) -> None:
    addresses, downloads = served_files(server), tmp_path / "downloads"
    served = server[1] / "three.txt"
    content = served.read_bytes()
    served.unlink()
    one, _, three = addresses
    fetch.fetch("s", one, tmp_path / "first", downloads)
    with pytest.raises(UserError, match=r"source s: .*three\.txt: could not be downloaded"):
        fetch.fetch("s", three, tmp_path / "first", downloads)
    assert REQUESTED == ["/one.txt", "/three.txt"]
    shutil.rmtree(tmp_path / "first")
    served.write_bytes(content)
    REQUESTED.clear()
    files = []
    for address in addresses:
        files += fetch.fetch("s", address, tmp_path / "second", downloads)
    assert REQUESTED == ["/two.zip", "/three.txt"]
    assert [file.path.read_text() for file in files] == ["1", "2", "3"]
    REQUESTED.clear()
    shutil.rmtree(tmp_path / "second")
    for address in addresses:  # a third attempt, after a failure behind the last download
        fetch.fetch("s", address, tmp_path / "third", downloads)
    assert not REQUESTED
    assert {path.name for path in downloads.iterdir()} == {address.sha256 for address in addresses}


def test_a_download_that_was_damaged_since_is_downloaded_again(
    server: tuple[str, Path], tmp_path: Path
) -> None:
    one, *_ = served_files(server)
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / one.sha256).write_text("2")
    (file,) = fetch.fetch("s", one, tmp_path / "to", tmp_path / "downloads")
    assert file.path.read_text() == "1" and REQUESTED == ["/one.txt"]


def test_a_download_is_linked_or_copied(
    server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, *_ = served_files(server)
    download = tmp_path / "downloads" / one.sha256
    (linked,) = fetch.fetch("s", one, tmp_path / "linked", tmp_path / "downloads")
    assert linked.path.samefile(download)
    (again,) = fetch.fetch("s", one, tmp_path / "linked", tmp_path / "downloads")
    assert again == linked and again.path.read_text() == "1"

    def across_devices(*paths: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", across_devices)
    (copied,) = fetch.fetch("s", one, tmp_path / "copied", tmp_path / "downloads")
    assert copied.path.read_text() == "1" and not copied.path.samefile(download)
    assert [path for path in (tmp_path / "copied").rglob("*") if path.is_file()] == [copied.path]


def test_what_goes_wrong_on_the_way_is_told(server: tuple[str, Path], tmp_path: Path) -> None:
    base, folder = server
    (folder / "a.zip").write_text("no zip")
    digest = fetch.file_digest(folder / "a.zip")
    for uri, message in (
        (f"{base}/a.zip#sha256={HEX}", f"has digest {digest}, the address says {HEX}"),
        (f"{base}/b.zip#sha256={HEX}", "could not be downloaded: HTTP Error 404"),
        (f"{base}/a.zip#sha256={digest}!*.txt", "neither a zip nor a tar archive"),
        (f"http://127.0.0.1:9/x#sha256={HEX}", "could not be downloaded"),
        (f"{base}/a b.zip#sha256={HEX}", "could not be downloaded"),
    ):
        with pytest.raises(UserError, match=message):
            fetch.fetch("s", fetch.parse(uri), tmp_path / "to")
    assert list((tmp_path / "to").iterdir()) == []


def test_a_wheel_comes_through_pip(tmp_path: Path) -> None:
    """Takes the smallest wheel of the shipped recipe."""
    from puna import recipe

    uris = [uri for source in recipe.load(recipe.find("laptop")).corpus.sources for uri in source.uris]
    requests = fetch.parse(next(uri for uri in uris if "requests==" in uri))
    (file,) = fetch.fetch("code", requests, tmp_path)
    assert file.digest == requests.sha256 and zipfile.is_zipfile(file.path)
    with pytest.raises(UserError, match="pip could not download it"):
        fetch.fetch("code", fetch.parse(requests.uri.replace(requests.sha256, HEX)), tmp_path)


def test_a_file_that_cannot_be_read_has_its_reason_or_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.txt", "b.txt", "project/a.py", "project/b.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)

    def digest(path: Path) -> str:
        if path.name.startswith("b."):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return hashlib.sha256(path.read_bytes()).hexdigest()

    before = fetch.content_digest(tmp_path / "project")
    monkeypatch.setattr(fetch, "cached_digest", digest)
    one, two = fetch.local_files("s", fetch.parse("*.txt"), tmp_path, skip=True)
    assert (one.unreadable, two.unreadable, two.bytes) == ("", "Permission denied", 0)
    (folder,) = fetch.local_files("s", fetch.parse("project"), tmp_path, skip=True)
    assert not folder.unreadable and folder.digest != before  # read again when the file can be
    for uri in ("*.txt", "project"):
        with pytest.raises(
            UserError,
            match=r"source s: .*b\.(txt|py) cannot be read: Permission denied\n.*on_damaged_file to skip",
        ):
            fetch.local_files("s", fetch.parse(uri), tmp_path)


def test_a_folder_that_cannot_be_listed_does_not_count_as_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "project" / "inside").mkdir(parents=True)
    listed = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("inside"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    (file,) = fetch.local_files("s", fetch.parse("project"), tmp_path, skip=True)
    assert file.unreadable == "Permission denied"


def packed(path: Path, files: list[tuple[str, bytes]]) -> Path:
    """A zip or a packed tar of these files, in this order."""
    if path.suffix == ".zip":
        with warnings.catch_warnings(), zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            warnings.simplefilter("ignore")  # of two files of one name
            for name, content in files:
                archive.writestr(name, content)
    else:
        with tarfile.open(path, f"w:{path.suffix[1:].removeprefix('tar')}") as tar:
            for name, content in files:
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    return path


def whole(path: Path) -> fetch.RawFile:
    (file,) = fetch.local_files("s", fetch.parse(str(path)), path.parent)
    return file


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.tar.bz2", "a.tar.xz"])
def test_members_of_local_archives(tmp_path: Path, name: str) -> None:
    """Whatever their names, they end inside the folder, under the names they had, each with its own
    content."""
    long = f"{'x' * 300}.txt"
    files = [
        ("b/two.txt", b"2"),
        ("a/one.txt", b"1"),
        ("b/two.txt", b"again"),
        ("b", b""),
        ("c/three.md", b"3"),
        (f"d/{long}", b"4"),
    ]
    chaff = [
        ("../evil.txt", b""),
        ("/tmp/evil.txt", b""),
        ("__MACOSX/a/._one.txt", b""),
        ("a/.hidden.txt", b""),
    ]
    path = packed(tmp_path / name, [*chaff, *files, ("e/line\nend.txt", b"5")])
    found = fetch.unpack(whole(path), ["*.txt"], tmp_path / "to")
    inside = [
        ("a/one.txt", b"1"),
        ("b/two.txt", b"2"),
        ("b/two.txt", b"again"),
        (f"d/{long}", b"4"),
        ("e/line\ufffdend.txt", b"5"),
    ]
    assert [(file.name, file.path.read_bytes()) for file in found] == [
        (f"{path}!{name}", content) for name, content in inside
    ]
    assert all(
        file.path.is_relative_to(tmp_path / "to") and file.digest == fetch.file_digest(file.path)
        for file in found
    )
    assert len([child for child in (tmp_path / "to").rglob("*") if child.is_file()]) == len(found)
    with pytest.raises(UserError, match=r"holds no file that matches \*\.html"):
        fetch.unpack(whole(path), ["*.html"], tmp_path / "to")


def test_many_patterns_of_one_archive_are_one_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file once, in name order; a pattern that nothing matches is named."""
    names = [f"p{number}/[{number}].xml" for number in range(300)]
    path = packed(
        tmp_path / "a.tar.gz", [(name, name.encode()) for name in [*names, "one.txt", "two.txt", "three.md"]]
    )
    opened, compared = [], []
    reading, comparing = fetch.archives.members, fetch.fnmatch.fnmatchcase
    monkeypatch.setattr(fetch.archives, "members", lambda *arguments: opened.append(1) or reading(*arguments))
    monkeypatch.setattr(
        fetch.fnmatch, "fnmatchcase", lambda *arguments: compared.append(1) or comparing(*arguments)
    )
    patterns = [glob.escape(name) for name in names]
    found = fetch.unpack(whole(path), [*patterns, "*.txt", "one.*"], tmp_path / "to")
    assert [file.name for file in found] == [
        f"{path}!{name}" for name in sorted([*names, "one.txt", "two.txt"])
    ]
    assert all(
        file.path.read_text() == file.name.partition("!")[2] for file in found if file.name.endswith("xml")
    )
    assert len(opened) == 1 and len(compared) == 2 * 303
    with pytest.raises(UserError, match=r"holds no file that matches no\[1\]\.xml, \*\.html$"):
        fetch.unpack(whole(path), [*patterns, "no[1].xml", "*.html"], tmp_path / "to")


def test_links_of_a_tar_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            entry = tarfile.TarInfo(f"{kind.decode()}.txt")
            entry.type, entry.linkname = kind, str(tmp_path / "secret.txt")
            archive.addfile(entry)
    with pytest.raises(UserError, match="holds no file"):
        fetch.unpack(whole(tmp_path / "a.tar"), "*.txt", tmp_path / "to")


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_a_bomb_is_not_unpacked(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "EXPANSION_ALLOWANCE_BYTES", 1_000_000)
    path = packed(tmp_path / name, [("one.txt", b"1"), ("zeros.txt", bytes(20_000_000))])
    with pytest.raises(UserError, match=f"{name}: it unpacks to over 200 times its size"):
        fetch.unpack(whole(path), ["*.txt"], tmp_path / "to")
    assert sum(child.stat().st_size for child in (tmp_path / "to").rglob("*") if child.is_file()) == 1


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_a_damaged_archive_gives_what_can_be_read_and_is_named(tmp_path: Path, name: str) -> None:
    content = random.Random(1).randbytes(20_000).hex().encode()
    path = packed(tmp_path / name, [("one.txt", b"1"), ("two.txt", content), ("three.txt", b"3")])
    raw = bytearray(path.read_bytes())
    raw[10_000:10_500] = bytes(500)
    path.write_bytes(raw)
    one, *others, broken = fetch.unpack(whole(path), ["*.txt"], tmp_path / "to", skip=True)
    assert one.path.read_bytes() == b"1" and not one.unreadable
    if name == "a.zip":
        assert [file.path.read_bytes() for file in others] == [b"3"]
    assert (
        broken.name == (f"{path}!two.txt" if name == "a.zip" else str(path))
        and "the archive is damaged" in broken.unreadable
    )
    assert len([child for child in (tmp_path / "to").rglob("*") if child.is_file()]) == len(others) + 1
    with pytest.raises(UserError, match=f"source s: .*{name}: the archive is damaged"):
        fetch.unpack(whole(path), ["*.txt"], tmp_path / "again")


def test_an_encrypted_file_of_a_zip_costs_only_itself(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.zip", [("a.txt", b"a"), ("b.txt", b"b"), ("c.txt", b"c")])
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"PK\3\4") + 6] |= 1
    raw[raw.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(raw)
    found = fetch.unpack(whole(path), ["*.txt"], tmp_path / "to", skip=True)
    reason = "the archive cannot be unpacked: it is encrypted"
    assert [(file.name, file.unreadable) for file in found] == [
        (f"{path}!b.txt", ""),
        (f"{path}!c.txt", ""),
        (f"{path}!a.txt", reason),
    ]
    assert [file.path.read_bytes() for file in found[:2]] == [b"b", b"c"] and found[2].bytes == 0
    with pytest.raises(UserError, match=f"a.zip: {reason}$"):
        fetch.unpack(whole(path), ["*.txt"], tmp_path / "again")


def test_what_a_damaged_file_unpacks_to_counts_for_a_bomb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "EXPANSION_ALLOWANCE_BYTES", 2_000_000)
    monkeypatch.setattr(fetch, "MAXIMUM_EXPANSION", 1)
    path = packed(tmp_path / "a.zip", [(f"{number}.txt", bytes(1_500_000)) for number in range(3)])
    raw = bytearray(path.read_bytes())
    at = raw.index(b"PK\1\2")
    raw[at + 16] ^= 1  # the first one's checksum
    path.write_bytes(raw)
    found = fetch.unpack(whole(path), ["*.txt"], tmp_path / "to", skip=True)
    assert [(file.name, "it unpacks to over" in file.unreadable) for file in found] == [
        (str(path), True),
        (f"{path}!0.txt", False),
    ]


@pytest.mark.parametrize("name", ["a.zip", "a.tar"])
def test_long_names_in_any_script(tmp_path: Path, name: str) -> None:
    names = [f"{'漢' * 110}.txt", f"{'é' * 99}x.txt", f"{'x' * 300}.txt"]
    path = packed(tmp_path / name, [(name, b"x") for name in names])
    found = fetch.unpack(whole(path), ["*.txt"], tmp_path / "to")
    assert [file.name for file in found] == sorted(f"{path}!{name}" for name in names)
    assert all(file.path.read_bytes() == b"x" and file.path.suffix == ".txt" for file in found)


def test_a_header_that_is_none_is_damage_and_not_the_end(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.tar", [("one.txt", b"1"), ("two.txt", b"2"), ("three.txt", b"3")])
    raw = bytearray(path.read_bytes())
    raw[1024] = 255
    path.write_bytes(raw)
    assert [
        bool(file.unreadable) for file in fetch.unpack(whole(path), ["*.txt"], tmp_path / "to", skip=True)
    ] == [False, True]


def test_a_wrong_checksum_of_a_packed_tar_is_told(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.tar.gz", [("one.txt", b"1")])
    raw = bytearray(path.read_bytes())
    raw[-8] ^= 1
    path.write_bytes(raw)
    assert [
        bool(file.unreadable) for file in fetch.unpack(whole(path), ["*.txt"], tmp_path / "to", skip=True)
    ] == [False, True]
