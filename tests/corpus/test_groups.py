"""Raw files are cut into groups, and a group's results count for its own files alone."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.corpus import groups
from puna.corpus.groups import Group
from puna.corpus.settings import CorpusSettings
from puna.corpus.sources.fetch import RawFile


@given(st.lists(st.integers(0, 50), max_size=30), st.integers(1, 60))
def test_groups_keep_order_and_size(sizes: list[int], room: int) -> None:
    files = [RawFile("s", str(number), "", "", size) for number, size in enumerate(sizes)]
    cut = list(groups.cut(iter(files), room))
    assert [file for group in cut for file in group] == files
    assert all(group and (len(group) == 1 or sum(file.bytes for file in group) <= room) for group in cut)


def test_groups_of_tiny_files_have_not_too_many() -> None:
    files = [RawFile("s", str(number), "", "", number % 2) for number in range(2500)]
    cut = groups.cut(files, 1000 * groups.FILE_BYTES)
    assert [len(group) for group in cut] == [1000, 1000, 500]


@pytest.fixture
def group(tmp_path: Path) -> Group:
    source = {"name": "a", "reader": "lines", "uris": ["*"]}
    settings = CorpusSettings.model_validate({"sources": [source]})
    return Group(settings.sources[0], settings, 0, tmp_path, tmp_path)


def test_files_of_a_group_lie_on_disk_whatever_their_names(group: Group) -> None:
    names = ("é 漢\u2028", 'quo"te', "back\\slash", "not\udcffutf-8")
    files = [RawFile("a", name, f"/{name}", "unreadable: no", 3) for name in names]
    listed = group.with_files(files)
    assert listed.files == files
    assert len(pickle.dumps(listed)) == len(pickle.dumps(group.with_files(files * 1000)))


def test_results_are_found_again_for_the_same_files_at_the_same_place_alone(group: Group) -> None:
    files = [RawFile("a", name, f"/old/{name}", f"digest of {name}", 3) for name in ("x", "y")]
    moved = [replace(file, location=f"/new/{file.name}") for file in files]
    result = group.with_files(files).path("filtered")
    assert group.with_files(moved).path("filtered") == result and group.with_files(moved).files == moved
    others = [
        group.with_files(files[:1]),
        group.with_files(files[::-1]),
        group.with_files([files[0], replace(files[1], digest="another")]),
        replace(group, first=1).with_files(files),
    ]
    assert len({result, *(other.path("filtered") for other in others)}) == 5
