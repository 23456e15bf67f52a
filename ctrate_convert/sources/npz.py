"""Read NPZ volumes: streamed, checked against their CRC-32, never unpickled."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ctrate_convert.errors import SampleError
from ctrate_convert.formats.npy_header import NpyHeader, read_header
from ctrate_convert.sources.extra import (
    MAX_EXTRA_BYTES,
    Look,
    base64_bytes,
    divide,
    estimated_bytes,
    json_text,
    read_all,
)
from ctrate_convert.sources.inventory import Inventory, take_inventory
from ctrate_convert.sources.left_out import LeftOut, user_attributes
from ctrate_convert.sources.member import Member
from ctrate_convert.sources.npz_geometry import entries_with_geometry, stated_geometry
from ctrate_convert.sources.source import Source, SourceArray, unreadable
from ctrate_convert.sources.zip_structure import STORED, Entry
from ctrate_convert.store.records.plan import ArrayHeader

_NAMED = 8
"""The number of entries that an error message names."""


class NpzSource(Source):
    """An open NPZ file and the one volume in it.

    ``array_key`` names the volume. Without it, the volume is the only numeric array of three
    dimensions or more, and every other entry must be readable.

    Raises:
        SampleError: the file cannot be read, or has no single numeric 3-D array (named
            ``array_key``).
    """

    header_name = "npy-header"

    def _open(self, array_key: str | None) -> None:
        self._readers: dict[Entry, tuple[Member, bytes]] = {}
        inventory = take_inventory(self._descriptor, self.path)
        looks = self._look_at(inventory.entries)
        entry, npy = self._choose(looks, array_key)
        # It stands behind the header, which was just read through it.
        self._member, self._raw_header = self._readers[entry]
        self._readers.clear()
        self.header_is_plain = not npy.says_more
        self.array = SourceArray(npy.dtype, npy.shape, npy.fortran_order)
        others = [look for look in looks if look.entry is not entry]
        self._comment = inventory.comment
        self._extra, self._left_out = self._divide(others, inventory)
        self._header = ArrayHeader(
            array_key=entry.name.removesuffix(".npy"),
            dtype=npy.dtype.str,
            shape=npy.shape,
            fortran_order=npy.fortran_order,
            compression="stored" if entry.method == STORED else "deflated",
            extra_bytes=estimated_bytes(self._extra, self._comment) + base64_bytes(npy.size_bytes),
            geometry=stated_geometry(entries_with_geometry(self._extra), self._read_with_text),
        )

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """Entries that are too large, pickled or broken, loose bytes, attributes of the file."""
        return self._left_out

    @property
    def raw_header(self) -> bytes:
        """The volume's npy header."""
        return self._raw_header

    def _look_at(self, entries: tuple[Entry, ...]) -> list[Look]:
        times = Counter(entry.name for entry in entries)
        return [self._look(entry, times[entry.name]) for entry in entries]

    def _look(self, entry: Entry, times: int) -> Look:
        if not entry.name or times > 1:
            return Look(entry, None, "its name stands there twice" if times > 1 else "has no name")
        try:
            member = Member(self._descriptor, entry, self.path)
            if not entry.name.endswith(".npy"):
                return Look(entry, None, "")
            pieces: list[bytes] = []

            def read(size_bytes: int) -> bytes:
                pieces.append(member.read(size_bytes))
                return pieces[-1]

            header = read_header(read)
            self._readers[entry] = member, b"".join(pieces)
        except SampleError as error:
            return Look(entry, None, error.what)
        promised = header.size_bytes + header.data_bytes
        if promised != entry.size_bytes and not header.dtype.hasobject:
            trouble = "the array's header and the zip directory disagree on its size"
            return Look(entry, header, f"{trouble}: {header}, {entry.size_bytes} bytes")
        return Look(entry, header, "")

    def _choose(self, looks: list[Look], array_key: str | None) -> tuple[Entry, NpyHeader]:
        named = looks if array_key is None else _named(looks, array_key)
        possible = [
            look for look in named if not look.trouble and look.header and look.header.may_be_volume
        ]
        broken = [look for look in named if look.trouble]
        if not possible or (array_key is not None and broken):
            raise self._refused("no numeric 3-D array", named, array_key)
        if len(possible) > 1:
            what = "several arrays of 3-D or more; name one with --array_key"
            raise self._refused(what, named, array_key)
        # One of them may be a second volume whose header is damaged: then the choice is not clear.
        if broken:
            what = "entries that cannot be read; name the volume with --array_key"
            raise self._refused(what, broken, array_key)
        entry, header = possible[0].entry, possible[0].header
        if header is None or not header.is_volume:
            raise self._refused("no numeric 3-D array", named, array_key)
        return entry, header

    def _refused(self, what: str, looks: list[Look], array_key: str | None) -> SampleError:
        seen = ", ".join(map(str, looks[:_NAMED]))
        if len(looks) > _NAMED:
            seen += f" and {len(looks) - _NAMED} more"
        nothing = f"no array named {array_key}" if array_key else "no array"
        return SampleError(
            what, where=self.path, seen=seen or nothing, expected="one numeric 3-D array"
        )

    def _divide(
        self, others: list[Look], inventory: Inventory
    ) -> tuple[list[Look], tuple[LeftOut, ...]]:
        # The zip's comment travels with the entries and counts like them.
        travelling, left_out = divide(others, MAX_EXTRA_BYTES - len(inventory.comment))
        left_out += inventory.loose
        return travelling, (*left_out, *user_attributes(self._descriptor))

    def source_extra(self) -> list[dict[str, Any]]:
        """Return the entries for the sample's JSON; docs/shards.md describes the fields.

        Raises:
            SampleError: their data are damaged.
        """
        try:
            return read_all(self._extra, self._comment, self._read)
        except OSError as error:
            raise unreadable(self.path, error) from error

    def _read_with_text(self, look: Look) -> tuple[bytes, bytes, str]:
        header, content = self._read(look)
        return header, content, json_text(look.header, content)

    def _read(self, look: Look) -> tuple[bytes, bytes]:
        member = Member(self._descriptor, look.entry, self.path)
        header = member.read(look.header.size_bytes) if look.header else b""
        content = member.read(look.content_bytes)
        # A damaged entry fails the sample: otherwise it would be gone with its source.
        member.check_end()
        return header, content

    def _fill(self, buffer: memoryview) -> int:
        left = self._member.left_bytes
        if left == 0:
            return 0
        self._member.fetch_ahead()
        filled = self._member.read_into(buffer[: min(len(buffer), left)])
        if filled < min(len(buffer), left):
            raise SampleError("array data ends early", where=self.path)
        if filled == left:
            self._member.check_end()
        return filled


def _named(looks: list[Look], array_key: str) -> list[Look]:
    return [look for look in looks if look.entry.name == f"{array_key}.npy"]
