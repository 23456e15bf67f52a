"""Copy the small entries beside the volume verbatim into the sample's JSON.

All entries have the same keys and types, so that Hugging Face readers infer one type for them. The
first entry is always the zip's own comment, which is mostly empty: a list without entries would
have no type.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NoReturn

import numpy as np

from ctrate_convert.formats.npy_header import NpyHeader
from ctrate_convert.sources.left_out import LeftOut
from ctrate_convert.sources.zip_structure import Entry

MAX_EXTRA_BYTES = 2**20
"""The content of all entries together that still goes into the shard."""

_JSON_ESCAPES = 9 / 8
"""The growth of JSON text inside JSON: about every eighth character is an escaped quote."""


@dataclass(frozen=True)
class Look:
    """An entry with its npy header, or the trouble with it; a file that is no array has neither."""

    entry: Entry
    header: NpyHeader | None
    trouble: str

    @property
    def content_bytes(self) -> int:
        """The size of the entry's content without the npy header."""
        return self.entry.size_bytes - (self.header.size_bytes if self.header else 0)

    def __str__(self) -> str:
        return f"{self.entry.name} ({self.trouble or self.header or 'file'})"


def divide(looks: Sequence[Look], budget_bytes: int) -> tuple[list[Look], list[LeftOut]]:
    """Return the entries that go into the shard, in directory order, and those left out."""
    travelling: list[Look] = []
    left_out: list[LeftOut] = []
    for look in looks:
        if why := _why_not(look, budget_bytes):
            left_out.append(LeftOut(look.entry.name, why))
            continue
        budget_bytes -= look.content_bytes
        travelling.append(look)
    return travelling, left_out


def _why_not(look: Look, budget_bytes: int) -> str:
    if look.trouble:
        return look.trouble
    if look.header is not None and look.header.dtype.hasobject:
        return f"pickled Python objects, {_size(look.content_bytes)}"
    if look.content_bytes > budget_bytes:
        what = f"array of {look.header}" if look.header else "file"
        return f"{what}, {_size(look.content_bytes)}"
    return ""


def _size(size_bytes: int) -> str:
    if size_bytes < 2**20:
        return f"{size_bytes:,} bytes"
    return f"{size_bytes / 2**20:,.1f} MiB"


def as_fields(
    name: str, header: NpyHeader | None, raw_header: bytes, content: bytes, text: str | None = None
) -> dict[str, Any]:
    """Return one entry of ``source_extra`` as JSON fields."""
    return {
        "name": name,
        "dtype": header.dtype.str if header else "",
        "shape": list(header.shape) if header else [len(content)],
        "fortran_order": header.fortran_order if header else False,
        "header_base64": base64.b64encode(raw_header).decode(),
        "base64": base64.b64encode(content).decode(),
        "json": json_text(header, content) if text is None else text,
    }


def estimated_bytes(looks: Sequence[Look], comment: bytes) -> int:
    """Return the size that the entries add to the sample's JSON, beyond an empty list.

    The size is exact except for entries that may be JSON, whose text has not been read yet.
    """
    more_bytes = 0
    for look in looks:
        head_bytes = look.header.size_bytes if look.header else 0
        fields = as_fields(look.entry.name, look.header, b"", b"", "")
        if look.header is None:
            fields["shape"] = [look.content_bytes]
        more_bytes += len(", ") + len(json.dumps(fields, ensure_ascii=False).encode())
        more_bytes += base64_bytes(head_bytes) + base64_bytes(look.content_bytes)
        if _probably_json(look):
            more_bytes += int(look.content_bytes * _JSON_ESCAPES)
    return _comment_bytes(comment) + more_bytes


@lru_cache(maxsize=16)
def _comment_bytes(comment: bytes) -> int:
    """Return the size of the first entry, which nearly every volume has in common."""
    return len(json.dumps(as_fields("", None, b"", comment), ensure_ascii=False).encode())


def base64_bytes(size_bytes: int) -> int:
    """Return the length of ``size_bytes`` bytes as base64 text."""
    return 4 * -(-size_bytes // 3)


def _probably_json(look: Look) -> bool:
    name = look.entry.name.removesuffix(".npy")
    if look.header is None:
        return name.endswith(".json")
    return len(look.header.shape) <= 1 and (
        name.endswith(("json", "metadata")) or look.header.dtype.kind == "S"
    )


def json_text(header: NpyHeader | None, content: bytes) -> str:
    """Return the JSON object or list in ``content`` as text; empty if there is none.

    A single number or word is valid JSON too, but such content is usually not meant as JSON.
    """
    try:
        text = _text(header, content)
        if text.lstrip()[:1] in ("{", "["):
            # Python accepts NaN and Infinity, which JSON does not have.
            json.loads(text, parse_constant=_refuse)
            return text
    except (ValueError, RecursionError):
        pass  # the entry still travels as base64
    return ""


def _text(header: NpyHeader | None, content: bytes) -> str:
    if header is None:
        return content.decode()
    if len(header.shape) > 1:
        return ""
    if header.dtype in (np.uint8, np.int8):
        return content.decode()
    if header.dtype.kind in "SU" and header.dtype.itemsize == len(content) > 0:
        item = np.frombuffer(content, header.dtype)[0]
        return item.decode() if isinstance(item, bytes) else str(item)
    return ""


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")


Read = Callable[[Look], tuple[bytes, bytes]]
"""A function that returns the npy header and the content of an entry after checking them."""


def read_all(looks: Sequence[Look], comment: bytes, read: Read) -> list[dict[str, Any]]:
    """Return the complete list for ``source_extra``."""
    return [
        as_fields("", None, b"", comment, ""),
        *(as_fields(look.entry.name, look.header, *read(look)) for look in looks),
    ]
