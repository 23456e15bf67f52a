"""Write one sample to the tar: source → inflate → CRC → cast → tar → digest, block by block."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import blake3
import numpy as np
from numpy.typing import NDArray

from ctrate_convert.formats.cast import BLOCK_VOXELS, Caster, Int16Overflow, stored_dtype
from ctrate_convert.formats.codecs import CODECS
from ctrate_convert.formats.codecs.target import ArrayTarget
from ctrate_convert.formats.geometry import geometry_of
from ctrate_convert.formats.hounsfield import ToHounsfield, to_hounsfield, without_scaling
from ctrate_convert.formats.measured import Measured
from ctrate_convert.formats.members import (
    LAYOUTS,
    AboutSource,
    array_member_name,
    small_members,
)
from ctrate_convert.formats.reorder import in_c_order
from ctrate_convert.formats.tar import TarWriter, WrittenMember
from ctrate_convert.shards.second_look import largest_excess
from ctrate_convert.sources.kinds import open_planned
from ctrate_convert.sources.source import Source
from ctrate_convert.store.records.plan import ArrayHeader, PlannedSample, PlanSettings
from ctrate_convert.store.records.record import (
    ArrayRecord,
    ConvertedSample,
    Intensity,
    MemberRecord,
)
from ctrate_convert.views.described import unit_of

OnBytes = Callable[[int], None]
"""A function that is called with each block's number of source bytes; it may raise to stop."""


def convert_sample(
    sample: PlannedSample,
    settings: PlanSettings,
    tar: TarWriter,
    scratch: Path,
    on_bytes: OnBytes,
) -> ConvertedSample:
    """Write all members of ``sample``; return its places, digests and errors for the record.

    After an exception the tar holds a part of the sample; the caller rolls it back.

    Raises:
        SampleError: this volume cannot be converted, with the reason.
        OSError: the output, not the source, is in the way.
    """
    start = tar.position
    path = Path(settings.data_folder) / sample.source
    try:
        return _convert_as(None, path, sample, settings, tar, scratch, on_bytes)
    except Int16Overflow:
        if settings.dtype != "auto":
            raise
    tar.rollback(start)  # integers stay integers: int16 if they fit, else int32
    return _convert_as("int32", path, sample, settings, tar, scratch, on_bytes)


def _convert_as(
    target: str | None,
    path: Path,
    sample: PlannedSample,
    settings: PlanSettings,
    tar: TarWriter,
    scratch: Path,
    on_bytes: OnBytes,
) -> ConvertedSample:
    promised = sample.header.view if sample.header else None
    with open_planned(sample.key, path, settings, promised) as volume:
        extra = volume.source_extra()
        name = target or stored_dtype(volume.header, settings.dtype)
        dtype = np.dtype(name).newbyteorder("<")
        caster = _caster(volume, dtype, settings)
        member = ArrayTarget(
            tar=tar,
            name=array_member_name(sample.key, settings.layout, settings.encoding),
            dtype=dtype,
            shape=volume.array.shape,
            scratch=scratch,
            header=LAYOUTS[settings.layout].array_has_header,
            chunk_shape=settings.chunk_shape,
            attributes={"value_scale": caster.value_scale},
        )
        elements = blake3.blake3()
        with CODECS[settings.encoding].writer(member) as writer:
            for block in _cast(volume, caster, dtype, scratch, on_bytes):
                elements.update(block.data.cast("B"))
                writer.put(block)
            written = writer.finish()
        measured = caster.measured()
        look_again = functools.partial(largest_excess, volume, caster, on_bytes=on_bytes)
        # Only after the array was written: the bound follows from the spread of all voxels.
        measured.check(settings.max_error, look_again)
        header = volume.header
        hounsfield, intensity = _unit(measured, header, sample.metadata)
        array = _array_record(
            {
                "encoding": settings.encoding,
                "blake3": elements.hexdigest(),
                "intensity": intensity,
                "hu_slope": hounsfield.slope,
                "hu_intercept": hounsfield.intercept,
                "hu_from": hounsfield.evidence,
            },
            written,
            measured,
            member,
        )
        about = AboutSource(
            header=header,
            geometry=geometry_of(header, sample.metadata),
            raw_header=volume.raw_header,
            extra=extra,
            more=volume.more_json,
        )
        members = [
            tar.add(name, data)
            for name, data in small_members(sample, array, about, settings.layout)
        ]
        return ConvertedSample(
            key=sample.key,
            # After the last read, since it raises if the source was changed while it was read.
            source=volume.fingerprint(sample.source),
            source_header=header,
            geometry=about.geometry,
            array=array,
            members=tuple(MemberRecord(**vars(written)) for written in members),
        )


def _caster(volume: Source, dtype: np.dtype[Any], settings: PlanSettings) -> Caster:
    num_voxels = math.prod(volume.array.shape)
    return Caster(
        volume.array.dtype,
        dtype,
        settings.step,
        num_voxels=num_voxels,
        scaling=volume.header.scaling,
    )


def _unit(
    measured: Measured, header: ArrayHeader, metadata: Mapping[str, str]
) -> tuple[ToHounsfield, Intensity]:
    """Return how the stored elements become Hounsfield units, and the scale that they are in."""
    if header.view is not None:
        return unit_of(header.view)
    shown, scaling = measured.intensity, header.scaling
    hounsfield = to_hounsfield(shown, scaling, measured.value_scale, metadata)
    return hounsfield, without_scaling(shown, scaling)


def _array_record(
    facts: Mapping[str, object], written: WrittenMember, measured: Measured, target: ArrayTarget
) -> ArrayRecord:
    return ArrayRecord.model_validate(
        {
            **facts,
            "name": written.name,
            "offset": written.offset,
            "size_bytes": written.size_bytes,
            "dtype": target.dtype.name,
            "shape": target.shape,
            "stored_blake3": written.blake3 or None,
            "value_scale": measured.value_scale,
            "max_abs_error": measured.max_abs_error,
            "value_min": measured.value_min,
            "value_max": measured.value_max,
            "nan_count": measured.nan_count,
            "infinite_count": measured.infinite_count,
        }
    )


def _cast(
    volume: Source,
    caster: Caster,
    dtype: np.dtype[Any],
    scratch: Path,
    on_bytes: OnBytes = lambda _: None,
) -> Iterator[NDArray[Any]]:
    """Yield the volume in C order in the shard's type; each block is valid until the next."""

    def blocks() -> Iterator[NDArray[Any]]:
        for block in volume.blocks(BLOCK_VOXELS):
            on_bytes(block.nbytes)
            yield caster.cast(block)

    source = volume.array
    return in_c_order(blocks(), source.shape, dtype, scratch, fortran_order=source.fortran_order)
