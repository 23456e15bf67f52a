"""Rebuild one sample of a record from its members, its JSON, its decoded array and the plan."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import blake3
import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from ctrate_convert.checking.mending.rebuild_scan import ScannedShard
from ctrate_convert.errors import DamageError
from ctrate_convert.formats.geometry import geometry_of
from ctrate_convert.formats.members import LAYOUTS, array_member_name
from ctrate_convert.shards.readback import array_blocks
from ctrate_convert.store.records.plan import ArrayHeader, PlannedSample, PlanSettings
from ctrate_convert.store.records.record import (
    ArrayRecord,
    ConvertedSample,
    MemberRecord,
    SourceFingerprint,
)

_FROM_JSON = ("dtype", "encoding", "value_scale", "intensity", "max_abs_error")
_SINCE_NIFTI = ("hu_slope", "hu_intercept", "hu_from")
"""Fields that the JSON of earlier versions lacks."""

_ROUNDING = 1e-6
"""Relative tolerance: the JSON has the source's exact limits, the voxels went through a cast."""


def rebuild_sample(
    scanned: ScannedShard, planned: PlannedSample, settings: PlanSettings
) -> ConvertedSample:
    """Return what the record must say of one sample that is in the shard.

    Raises:
        DamageError: a member is missing or too many, or array and JSON contradict each other.
    """
    stored, *members = _members(scanned, planned.key, settings)
    facts = _facts(scanned, planned.key)
    array = _array(scanned, planned.key, stored, facts, settings)
    header = planned.header or _header(facts, array)
    return ConvertedSample(
        key=planned.key,
        source=SourceFingerprint(
            source=planned.source,
            size_bytes=planned.source_size_bytes,
            mtime_ns=planned.source_mtime_ns,
            ctime_ns=0,
            inode=0,
        ),
        source_header=header,
        array=array,
        members=tuple(members),
        geometry=geometry_of(header, planned.metadata),
    )


def _members(scanned: ScannedShard, key: str, settings: PlanSettings) -> list[MemberRecord]:
    """Return the sample's members in the order of writing: the array first, then the others."""
    layout = LAYOUTS[settings.layout]
    first = array_member_name(key, settings.layout, settings.encoding)
    expected = [first, *(f"{key}.{name}" for name in (layout.json, layout.report, layout.labels))]
    seen = [member.name for member in scanned.samples[key]]
    if seen[: len(expected)] != expected:
        raise DamageError(
            f"the members of {key} are not those of a sample",
            where=scanned.path,
            seen=", ".join(seen),
            expected=", ".join(expected),
        )
    return scanned.samples[key]


def _facts(scanned: ScannedShard, key: str) -> dict[str, Any]:
    try:
        facts = json.loads(scanned.json[key])
    except ValueError as error:
        raise DamageError(
            f"the JSON of {key} cannot be read: {error}", where=scanned.path
        ) from error
    if not isinstance(facts, dict) or facts.get("key") != key:
        raise DamageError(f"the JSON of {key} is of another sample", where=scanned.path)
    return facts


def _array(
    scanned: ScannedShard,
    key: str,
    stored: MemberRecord,
    facts: dict[str, Any],
    settings: PlanSettings,
) -> ArrayRecord:
    is_plain = settings.encoding == "npy"
    try:
        array = ArrayRecord.model_validate(
            {
                **{name: facts.get(name) for name in _FROM_JSON},
                "name": stored.name,
                "offset": stored.offset,
                "size_bytes": stored.size_bytes,
                "shape": tuple(facts.get("shape") or ()),
                # Replaced below: of an array the digest is that of its elements alone.
                "blake3": stored.blake3,
                "stored_blake3": None if is_plain else stored.blake3,
                "value_min": facts.get("value_min"),
                "value_max": facts.get("value_max"),
                **{name: facts[name] for name in _SINCE_NIFTI if name in facts},
                # Counted below, once the array was decoded.
                "nan_count": 0,
                "infinite_count": 0,
            }
        )
        seen = _Seen()
        for block in array_blocks(scanned.path, array):
            seen.add(block)
    except (ValidationError, ValueError) as error:
        what = f"the array of {key} is not what its JSON says: {error}"
        raise DamageError(what, where=scanned.path) from error
    _require_fitting(scanned, key, array, seen)
    return array.model_copy(
        update={
            "blake3": seen.digest.hexdigest(),
            "nan_count": seen.nan_count,
            "infinite_count": seen.infinite_count,
        }
    )


@dataclass
class _Seen:
    """Digest, counts and range of the elements, collected while the array is decoded."""

    digest: blake3.blake3 = field(default_factory=blake3.blake3)
    nan_count: int = 0
    infinite_count: int = 0
    low: float = np.inf
    high: float = -np.inf

    def add(self, block: NDArray[Any]) -> None:
        """Add the next elements."""
        self.digest.update(block.data.cast("B"))
        finite = block
        if block.dtype.kind == "f":
            nan = int(np.count_nonzero(np.isnan(block)))
            self.nan_count += nan
            finite = block[np.isfinite(block)]
            self.infinite_count += block.size - finite.size - nan
        if finite.size:
            self.low = min(self.low, float(finite.min()))
            self.high = max(self.high, float(finite.max()))


def _require_fitting(scanned: ScannedShard, key: str, array: ArrayRecord, seen: _Seen) -> None:
    """Raise DamageError unless the voxels have the JSON's range, as far as the cast allows."""
    if seen.low > seen.high:  # no voxel is finite
        return
    low, high = seen.low * array.value_scale, seen.high * array.value_scale
    slack = array.max_abs_error + _ROUNDING * max(abs(low), abs(high), abs(array.value_scale))
    if abs(low - array.value_min) > slack or abs(high - array.value_max) > slack:
        raise DamageError(
            f"the voxels of {key} are not those that its JSON tells of",
            where=scanned.path,
            seen=f"{low:g}…{high:g}",
            expected=f"{array.value_min:g}…{array.value_max:g}",
        )


def _header(facts: dict[str, Any], array: ArrayRecord) -> ArrayHeader:
    """Return a source header with the stored array's own dtype and shape.

    It stands in if planning could not read the source's header.
    """
    return ArrayHeader(
        array_key=str(facts.get("source_array_key", "")),
        dtype=np.dtype(array.dtype).newbyteorder("<").str,
        shape=array.shape,
        fortran_order=False,
        compression="stored",
    )
