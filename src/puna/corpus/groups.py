"""Groups of raw files: what a worker takes at once, and its own files between the passes."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass, replace
from pathlib import Path

from puna.corpus.record import digest
from puna.corpus.settings import CorpusSettings, SourceSettings
from puna.corpus.sources.fetch import RawFile
from puna.corpus.tables import unfinished

FILE_BYTES = 4096  # what a raw file counts as at least
SUFFIXES = {  # of a group's files: the list of its raw files, and what each pass leaves
    "files": "json",
    "read": "parquet",
    "lines": "npy",
    "keep": "npy",
    "filtered": "parquet",
    "minhash": "npy",
    "scores": "parquet",
}


@dataclass(frozen=True)
class Group:
    """Some raw files of a source, which go through each pass together.

    first: how many raw files of the source come before them. folder: where its own files are, and root: what
    paths in the settings start from. key: of its raw files, set by `with_files`.
    """

    source: SourceSettings
    settings: CorpusSettings
    first: int
    folder: Path
    root: Path
    key: str = ""

    @property
    def name(self) -> str:
        """What its files' names begin with: the same only for the same raw files at the same place."""
        return f"{self.source.name}-{self.first:08d}-{self.key}"

    def path(self, kind: str) -> Path:
        """Return the path of one of its files (a key of `SUFFIXES`)."""
        return self.folder / f"{self.name}.{kind}.{SUFFIXES[kind]}"

    @property
    def files(self) -> list[RawFile]:
        """Its raw files, in order. The list is on disk, since a corpus may have millions."""
        return [RawFile(*fields) for fields in json.loads(self.path("files").read_bytes())]

    def with_files(self, files: Iterable[RawFile]) -> "Group":
        """Return the group of these raw files, and write their list.

        Its key comes from their names, digests and sizes, so what an earlier attempt left is found again only
        where it cut the source in the same place, also while processes of that attempt still write.
        """
        listed = [astuple(file) for file in files]
        content = [(name, sha256, size) for _source, name, _location, sha256, size in listed]
        group = replace(self, key=digest(json.dumps(content))[:12])
        with unfinished(group.path("files")) as part:
            part.write_text(json.dumps(listed))
        return group


def groups_of(
    settings: CorpusSettings,
    files: Mapping[str, Iterable[RawFile]],
    folder: Path,
    root: Path,
    group_bytes: int,
) -> list[Group]:
    """Cut the files of all sources into groups, in order; remove what is left of groups of another size."""
    # Groups are sent to every worker, so their settings go without the list of all files.
    sources = tuple(source.model_copy(update={"uris": ()}) for source in settings.sources)
    settings = settings.model_copy(update={"sources": sources})
    folder.mkdir(parents=True, exist_ok=True)
    groups = []
    for source in sources:
        first = 0
        for own in cut(files[source.name], group_bytes):
            group = Group(source, settings, first, folder.absolute(), root.absolute())
            groups.append(group.with_files(own))
            first += len(own)
    names = {group.name for group in groups}
    for path in folder.iterdir():
        if path.is_file() and path.name.partition(".")[0] not in names:
            path.unlink()
    return groups


def cut(files: Iterable[RawFile], group_bytes: int) -> Iterator[list[RawFile]]:
    """Cut a source's files, in order, into lots of about `group_bytes` raw bytes, at least one file each.

    A tiny file counts as a block of a disk, so that a lot has not too many of them.
    """
    lot: list[RawFile] = []
    room = group_bytes
    for file in files:
        size = max(file.bytes, FILE_BYTES)
        if lot and size > room:
            yield lot
            lot, room = [], group_bytes
        lot.append(file)
        room -= size
    if lot:
        yield lot
