"""A view's source: a stored array in a shard of another dataset, and the recipe applied to it.

The shard's record tells where the array lies. The whole array is read and must have the digest that
the record says, so no view is made of damaged voxels.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import blake3
import numpy as np
from numpy.typing import NDArray

from ctrate_convert.errors import (
    DamageError,
    EnvironmentProblem,
    SampleError,
    UnreadableSource,
)
from ctrate_convert.formats.members import array_member_name
from ctrate_convert.reading.index import Shard, StoredSample, stored_sample
from ctrate_convert.reading.samples import parse_json
from ctrate_convert.reading.shard_file import ShardFile
from ctrate_convert.reading.viewed import Viewed
from ctrate_convert.sources.left_out import LeftOut
from ctrate_convert.sources.source import Source, SourceArray
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.records.base import read
from ctrate_convert.store.records.geometry import Axes
from ctrate_convert.store.records.plan import Layout, shard_number
from ctrate_convert.store.records.recipe import Recipe
from ctrate_convert.store.records.record import ConvertedSample, ShardRecord
from ctrate_convert.store.records.view import NativeArray, ViewFacts
from ctrate_convert.views.described import view_header


class ShardSource(Source):
    """The view of the sample ``key`` in the shard ``path`` of another dataset.

    Its elements are those of the view, in C order; the whole view is in memory while it is read.
    ``assume_axes`` are the volume's axes where its JSON does not tell them. ``promised`` are the
    facts of the view that was planned: a volume with other voxels, or facts, gives no such view.

    Raises:
        SampleError: the shard, its record or the sample's JSON is missing or damaged; or there is
            no view of this sample, because something that it needs is not known; or it would not be
            the one that was promised.
    """

    header_name = ""
    header_is_plain = True
    missing = "the shard that this view is made from is missing"

    def __init__(
        self,
        path: Path,
        key: str,
        recipe: Recipe,
        assume_axes: Axes = "",
        promised: ViewFacts | None = None,
        descriptor: int | None = None,
    ) -> None:
        self._key, self._recipe, self._assume_axes = key, recipe, assume_axes
        self._promised = promised
        self._rest: memoryview | None = None
        super().__init__(path, None, descriptor)

    def _open(self, array_key: str | None) -> None:
        del array_key
        record, record_sha256 = _record_of(self.path)
        with _as_sample_errors():
            sample, self._stored = _find(self.path, record, self._key)
            with ShardFile(self._stored.shard) as file:
                fields = _sound_json(file, self._stored, sample)
            self._viewed = Viewed(self._recipe, self._stored.array, fields, self._assume_axes)
        self._blake3 = sample.array.blake3
        native = NativeArray(
            shard=self.path.name, record_sha256=record_sha256, blake3=sample.array.blake3
        )
        self._header = view_header(self._viewed.view, native)
        self._require_promised()
        self.array = SourceArray(np.dtype(self._header.dtype), self._header.shape, False)

    def _require_promised(self) -> None:
        facts, promised = self._header.view, self._promised
        if facts is None or promised is None:
            return
        for name in ("native", *type(facts).model_fields):
            seen, expected = getattr(facts, name), getattr(promised, name)
            if name == "native" and seen and expected:
                # A record that was rebuilt from its shard has other bytes; the voxels are the same.
                seen, expected = seen.blake3, expected.blake3
            if seen != expected:
                what = "volume has other voxels" if name == "native" else f"view has another {name}"
                raise SampleError(
                    f"this {what} than when the views were planned", where=self.path,
                    seen=seen, expected=expected,
                    next_command="the same `ctrate-convert plan --view` again, then run",
                )  # fmt: skip

    def _fill(self, buffer: memoryview) -> int:
        if self._rest is None:
            self._rest = self._make().reshape(-1).view(np.uint8).data
        filled = min(len(buffer), len(self._rest))
        buffer[:filled] = self._rest[:filled]
        self._rest = self._rest[filled:]
        return filled

    def _make(self) -> NDArray[Any]:
        seen = blake3.blake3()
        little = np.dtype(self._stored.array.dtype).newbyteorder("<")

        def see(slab: NDArray[Any]) -> None:
            seen.update(np.ascontiguousarray(slab, little).data.cast("B"))

        with _as_sample_errors(), ShardFile(self._stored.shard) as file:
            made = self._viewed.read_whole(file, self._stored.array, see)
        if seen.hexdigest() != self._blake3:
            raise SampleError(
                "no view of damaged voxels", where=f"{self.path}, {self._stored.array.name}",
                seen=f"BLAKE3 {seen.hexdigest()[:16]}…", expected=f"{self._blake3[:16]}…",
                next_command=f"ctrate-convert verify {self.path.parent} --full --repair",
            )  # fmt: skip
        return np.ascontiguousarray(made, made.dtype.newbyteorder("<"))

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """Nothing: no view lets its source go."""
        return ()

    @property
    def raw_header(self) -> bytes:
        """Nothing: the recipe describes the array."""
        return b""

    def source_extra(self) -> list[dict[str, Any]]:
        """Return nothing: the other entries are those of the native sample."""
        return []

    @property
    def more_json(self) -> Mapping[str, object]:
        """The field ``view`` of the sample's JSON."""
        facts = self._header.view
        return {"view": facts.as_json()} if facts else {}


def _sound_json(file: ShardFile, stored: StoredSample, sample: ConvertedSample) -> dict[str, Any]:
    """Return the sample's JSON, which decides its view, after a look at its digest.

    Raises:
        DamageError: it is not the one that the record knows.
    """
    data = file.member(stored.json)
    seen = blake3.blake3(data).hexdigest()
    if not any(one.name == stored.json.name and one.blake3 == seen for one in sample.members):
        raise file.shard.damage(f"{stored.json.name} is not the one that the record knows")
    return parse_json(data, file, stored)


@contextlib.contextmanager
def _as_sample_errors() -> Iterator[None]:
    """Turn what is wrong with another dataset's shard into an error of this sample."""
    try:
        yield
    except DamageError as error:
        raise SampleError(
            error.what, where=error.where, seen=error.seen, expected=error.expected,
            next_command=error.next_command,
        ) from error  # fmt: skip
    except EnvironmentProblem as error:
        raise UnreadableSource(error.what, where=error.where) from error


def _record_of(path: Path) -> tuple[ShardRecord, str]:
    """Return the record of the shard ``path`` and its SHA-256."""
    record = Dataset(path.parent).record(shard_number(path.name))
    try:
        status = record.stat()
        return _parsed(record, status.st_ino, status.st_mtime_ns)
    except FileNotFoundError as error:
        raise SampleError("the record of a view's shard is missing", where=record) from error
    except DamageError as error:
        raise SampleError(error.what, where=error.where) from error


@lru_cache(maxsize=2)
def _parsed(path: Path, _inode: int, _mtime_ns: int) -> tuple[ShardRecord, str]:
    record = read(ShardRecord, path)
    return record, record.stored_sha256()


def _find(path: Path, record: ShardRecord, key: str) -> tuple[ConvertedSample, StoredSample]:
    sample = next((one for one in record.converted if one.key == key), None)
    if sample is None or record.tar is None:
        raise SampleError("the shard's record does not know this sample", where=path, seen=key)
    verify = f"ctrate-convert verify {path.parent} --full"
    shard = Shard(str(path), record.tar.size_bytes, verify)
    return sample, stored_sample(sample.model_dump(), shard, _layout_of(sample))


def _layout_of(sample: ConvertedSample) -> Layout:
    name = array_member_name(sample.key, "ctclip", sample.array.encoding)
    return "ctclip" if sample.array.name == name else "webdataset"
