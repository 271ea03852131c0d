"""GGUF files: metadata and tensors, read with bounds and written (the format is llama.cpp's, versions 2, 3).

A file is a head (magic, version, counts), metadata as (name, type, value), a list of tensors as (name, shape,
type, offset), and the tensors' bytes. Shapes are written with the fastest dimension first; here they are
torch's. The gguf library believes all counts that a file states; here each is compared with what the file can
hold before anything is made of it.
"""

import math
import mmap
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from puna.errors import UserError
from puna.model.weights.gguf_blocks import FORMATS

MAGIC, VERSION, ALIGNMENT = b"GGUF", 3, 32
# Kinds of values: their format in `struct`; STRING and ARRAY are others.
KINDS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
_NAMES = {form.code: name for name, form in FORMATS.items()}
# Llama 3 has 128,256 tokens and 280,147 merges; the largest vocabulary in use has twice as many.
MOST_STRINGS, MOST_NUMBERS, MOST_ENTRIES, LONGEST_STRING = 900_000, 4_000_000, 100_000, 4_000_000


class Value(NamedTuple):
    """One value of the metadata. kind: as in files; item: that of an array's items. A string that is no UTF-8
    is kept as bytes; numbers of an array are a numpy array."""

    kind: int
    data: Any
    item: int | None = None


class TensorInfo(NamedTuple):
    """A tensor in a file. start: of its bytes in the file, `size` of them."""

    shape: tuple[int, ...]
    type: str
    start: int
    size: int


class _Reader:
    """Reads on in a file; refuses to pass its end."""

    def __init__(self, path: Path, raw: Any) -> None:
        self.path, self.raw, self.at, self.strings, self.numbers = path, raw, 0, 0, 0

    def fail(self, problem: str) -> UserError:
        return UserError(f"{self.path} is no sound GGUF file: {problem} (byte {self.at:,})")

    def take(self, form: str) -> Any:
        size = struct.calcsize("<" + form)
        if self.at + size > len(self.raw):
            raise self.fail("it ends early")
        (value,) = struct.unpack_from("<" + form, self.raw, self.at)
        self.at += size
        return value

    def string(self) -> str | bytes:
        return self.list_of_strings(1)[0]

    def list_of_strings(self, count: int) -> list[str | bytes]:
        raw, at, size, found = self.raw, self.at, len(self.raw), []
        for _ in range(count):
            length = int.from_bytes(raw[at : at + 8], "little")
            at += 8
            if length > LONGEST_STRING or length > size - at:
                raise self.fail(f"a string of {length:,} bytes")
            found.append(_text(raw[at : at + length]))
            at += length
        self.at, self.strings = at, self.strings + count
        return found

    def name(self) -> str:
        if not isinstance(name := self.string(), str) or len(name) > 1000:
            raise self.fail("a name that is none")
        return name

    def value(self, name: str) -> Value:
        kind = self.take("I")
        if kind == STRING:
            return Value(kind, self.string())
        if kind in KINDS:
            return Value(kind, self.take(KINDS[kind]))
        if kind != ARRAY:
            raise self.fail(f"{name} is of the unknown kind {kind}")
        item, count = self.take("I"), self.take("Q")
        if item == STRING:
            if count > min(MOST_STRINGS - self.strings, (len(self.raw) - self.at) // 8):
                raise self.fail(f"{name} has {count:,} strings")
            return Value(kind, self.list_of_strings(count), item)
        if item not in KINDS:
            raise self.fail(f"{name} is an array of the kind {item}; arrays hold numbers or strings")
        dtype = np.dtype("<" + KINDS[item])
        self.numbers += count
        if self.numbers > MOST_NUMBERS or count * dtype.itemsize > len(self.raw) - self.at:
            raise self.fail(f"{name} has {count:,} numbers")
        data = np.frombuffer(self.raw[self.at : self.at + count * dtype.itemsize], dtype)
        self.at += count * dtype.itemsize
        return Value(kind, data, item)

    def tensor(self) -> tuple[str, TensorInfo]:
        name, dimensions = self.name(), self.take("I")
        if not 1 <= dimensions <= 4:
            raise self.fail(f"{name} has {dimensions} dimensions")
        shape = tuple(self.take("Q") for _ in range(dimensions))
        code, start = self.take("I"), self.take("Q")
        if code not in _NAMES:
            raise self.fail(f"{name} is of type {code}; known are {', '.join(FORMATS)}")
        form = FORMATS[_NAMES[code]]
        if shape[0] % form.numbers or not all(shape):
            raise self.fail(f"{name} has rows of {shape[0]} numbers in {_NAMES[code]}")
        size = math.prod(shape) // form.numbers * form.size
        return name, TensorInfo(shape[::-1], _NAMES[code], start, size)


def _text(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def read(path: Path) -> tuple[dict[str, Value], dict[str, TensorInfo]]:
    """Read the metadata and the list of tensors. Raises UserError for a damaged or hostile file."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as raw:
            return _read(_Reader(path, raw))
    except (OSError, ValueError) as error:  # an empty file cannot be mapped
        raise UserError(f"{path} cannot be read: {error}") from error


def _read(reader: _Reader) -> tuple[dict[str, Value], dict[str, TensorInfo]]:
    if reader.raw[:4] != MAGIC:
        raise reader.fail("it does not begin with GGUF")
    reader.at = 4
    if (version := reader.take("I")) not in (2, 3):
        raise reader.fail(f"version {version}; 2 and 3 are known, in little-endian order")
    tensor_count, value_count = reader.take("Q"), reader.take("Q")
    if max(tensor_count, value_count) > MOST_ENTRIES:
        raise reader.fail(f"{tensor_count:,} tensors and {value_count:,} values")
    metadata: dict[str, Value] = {}
    for _ in range(value_count):
        if (name := reader.name()) in metadata:
            raise reader.fail(f"{name} is there twice")
        metadata[name] = reader.value(name)
    tensors: dict[str, TensorInfo] = {}
    for _ in range(tensor_count):
        name, info = reader.tensor()
        if name in tensors:
            raise reader.fail(f"the tensor {name} is there twice")
        tensors[name] = info
    alignment = _alignment(reader, metadata)
    data = -(-reader.at // alignment) * alignment
    return metadata, dict(_placed(reader, tensors, data, alignment))


def _alignment(reader: _Reader, metadata: Mapping[str, Value]) -> int:
    alignment = metadata.get("general.alignment", Value(UINT32, ALIGNMENT)).data
    if not isinstance(alignment, int) or not 1 <= alignment <= 1 << 20:
        raise reader.fail(f"general.alignment = {alignment!r:.40}")
    return alignment


def _placed(
    reader: _Reader, tensors: Mapping[str, TensorInfo], data: int, alignment: int
) -> Iterator[tuple[str, TensorInfo]]:
    """The tensors with their places in the file, which must be aligned, inside, and apart."""
    free = 0
    for name, info in sorted(tensors.items(), key=lambda item: item[1].start):
        if info.start % alignment or info.start < free:
            raise reader.fail(f"the tensor {name} begins at {info.start:,}, inside another or not aligned")
        free = info.start + info.size
        if data + free > len(reader.raw):
            raise reader.fail(f"the tensor {name} ends behind the file")
    for name, info in tensors.items():
        yield name, info._replace(start=data + info.start)


def value(data: Any) -> Value:
    """A Python value as one of the metadata: numbers of 32 bits, as llama.cpp has them."""
    if isinstance(data, Value):
        return data
    if isinstance(data, list):
        items = {_kind(item) for item in data} or {STRING}
        item = INT32 if items == {UINT32} else items.pop()
        return Value(ARRAY, data if item == STRING else np.array(data, "<" + KINDS[item]), item)
    return Value(_kind(data), data)


def _kind(data: Any) -> int:
    return {bool: BOOL, int: UINT32, float: FLOAT32, str: STRING, bytes: STRING}[type(data)]


def _string(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw


def _packed(name: str, value: Value) -> bytes:
    head = _string(name) + struct.pack("<I", value.kind)
    if value.kind == STRING:
        return head + _string(value.data)
    if value.kind != ARRAY:
        return head + struct.pack("<" + KINDS[value.kind], value.data)
    assert value.item is not None
    head += struct.pack("<IQ", value.item, len(value.data))
    return head + (b"".join(map(_string, value.data)) if value.item == STRING else value.data.tobytes())


def write(
    path: Path,
    metadata: Mapping[str, Any],
    tensors: Iterable[tuple[str, tuple[int, ...], str]],
    data: Callable[[str], Any],
) -> None:
    """Write a file. tensors: (name, shape, type) in their order; data: the bytes of one of them, by its
    name. The file comes into being under another name, so that a broken-off one is never taken for whole."""
    values = {name: value(item) for name, item in metadata.items()}
    alignment = values.get("general.alignment", Value(UINT32, ALIGNMENT)).data
    listed = list(tensors)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(MAGIC + struct.pack("<IQQ", VERSION, len(listed), len(values)))
        for name, item in values.items():
            file.write(_packed(name, item))
        offset = 0
        for name, shape, kind in listed:
            form = FORMATS[kind]
            file.write(_string(name))
            file.write(struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape[::-1], form.code, offset))
            offset += -(-(math.prod(shape) // form.numbers * form.size) // alignment) * alignment
        for name, _, _ in listed:
            file.write(b"\0" * (-file.tell() % alignment))
            file.write(data(name))
        file.write(b"\0" * (-file.tell() % alignment))
    partial.replace(path)
