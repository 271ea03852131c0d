"""Safetensors files, read with bounds: https://huggingface.co/docs/safetensors describes the format.

A file is the length of a header in eight bytes, the header as JSON, and the tensors' bytes one after the
other. The library takes headers of 100 MB and names that are there twice; here neither is taken.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from puna.errors import UserError
from puna.model.weights.source import HEADER_BYTES, Entry, parse_json

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def entries(path: Path) -> dict[str, Entry]:
    """The tensors of a file. Raises UserError for a damaged or hostile one."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > size - 8:
                raise UserError(f"{path} is damaged: its header would have {length:,} of {size:,} bytes")
            if length > HEADER_BYTES:
                raise UserError(f"{path}: a header of {length:,} bytes; at most {HEADER_BYTES:,} are read")
            raw = file.read(length)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    header = parse_json(raw, f"the header of {path}")
    header.pop("__metadata__", None)
    parts = {name: _part(described, f"{path}: {name[:200]}") for name, described in header.items()}
    position = 0
    for name, (_, _, start, end) in sorted(parts.items(), key=lambda item: item[1][2:]):
        if start != position:
            raise UserError(
                f"{path} is damaged: {name[:200]} begins at byte {start:,} of the data, "
                f"where the tensor before it ends at {position:,}"
            )
        position = end
    if position != size - 8 - length:
        raise UserError(f"{path} is damaged: {size - 8 - length:,} bytes of data instead of {position:,}")
    return {name: _entry(path, 8 + length, *part) for name, part in parts.items()}


def _part(described: Any, where: str) -> tuple[str, tuple[int, ...], int, int]:
    """(dtype, shape, first byte, byte behind the last) of one tensor."""
    try:
        dtype, shape, (start, end) = described["dtype"], described["shape"], described["data_offsets"]
        numbers = all(type(number) is int and number >= 0 for number in (*shape, start, end))
    except (TypeError, KeyError, ValueError) as error:
        raise UserError(f"{where} is not described by dtype, shape and data_offsets") from error
    if dtype not in DTYPES:
        raise UserError(f"{where} is of type {str(dtype)[:40]}; known are {', '.join(DTYPES)}")
    if not numbers or len(shape) > 8 or end - start != math.prod(shape) * DTYPES[dtype].itemsize:
        raise UserError(f"{where} has shape {shape!r:.100} of {dtype} in bytes {start!r:.40} to {end!r:.40}")
    return dtype, tuple(shape), start, end


def _entry(path: Path, data: int, dtype: str, shape: tuple[int, ...], start: int, end: int) -> Entry:
    def read() -> Tensor:
        return torch.frombuffer(read_bytes(path, data + start, end - start), dtype=DTYPES[dtype]).view(shape)

    return Entry(shape, read)


def write(
    path: Path, weights: Mapping[str, Entry], dtype: torch.dtype, metadata: Mapping[str, str] | None = None
) -> None:
    """Write weights in one type, each read when its turn has come: the bytes that the library writes."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for name, entry in sorted(weights.items()):
        start, end = end, end + math.prod(entry.shape) * dtype.itemsize
        header[name] = {"dtype": NAMES[dtype], "shape": entry.shape, "data_offsets": [start, end]}
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    with path.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        for _, entry in sorted(weights.items()):
            weight = entry.read().to(dtype).contiguous()
            file.write(weight.view(-1).view(torch.uint8).numpy().data)
            del weight  # before the next one is read


def read_bytes(path: Path, start: int, count: int) -> bytearray:
    """Bytes of a file. Raises UserError where it has become shorter since its header was read."""
    raw = bytearray(count)
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        view = memoryview(raw)
        while len(view):
            if not (got := file.readinto(view)):
                raise UserError(f"{path} ends {len(view):,} bytes early")
            view = view[got:]
    return raw
