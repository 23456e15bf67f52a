"""The lines of a chunk of samples, with all that the plan needs to know of them afterwards."""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from ctrate_convert.errors import SampleError
from ctrate_convert.formats.geometry import geometry_of
from ctrate_convert.planning.estimate import sample_sizes
from ctrate_convert.planning.samples.notes import HeaderNotes
from ctrate_convert.store.records.geometry import NO_GEOMETRY
from ctrate_convert.store.records.plan import ArrayHeader, PlannedSample, PlanSettings


class Form(NamedTuple):
    """How a volume's array is stored in its source; empty if its header could not be read."""

    dtype: str
    deflated: bool
    fortran_order: bool


NO_FORM = Form("", deflated=False, fortran_order=False)


def _numbers() -> array[int]:
    return array("q")


@dataclass
class Lines:
    """Lines of ``samples.jsonl``, and numbers of each: small enough to keep those of a whole plan.

    ``line_bytes`` counts the line's end too. The sizes are those of `SampleSizes`. ``to_cache`` are
    lines for the cache of headers.
    """

    data: bytearray = field(default_factory=bytearray)
    line_bytes: array[int] = field(default_factory=_numbers)
    source_bytes: array[int] = field(default_factory=_numbers)
    volume_bytes: array[int] = field(default_factory=_numbers)
    array_bytes: array[int] = field(default_factory=_numbers)
    beside_bytes: array[int] = field(default_factory=_numbers)
    turned_bytes: array[int] = field(default_factory=_numbers)
    voxels: array[int] = field(default_factory=_numbers)
    forms: list[Form] = field(default_factory=list)
    notes: HeaderNotes = field(default_factory=HeaderNotes)
    to_cache: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.line_bytes)

    def add(
        self, sample: PlannedSample, settings: PlanSettings, error: SampleError | None = None
    ) -> None:
        """Add the line of ``sample``; ``error`` says why it has no header."""
        line = sample.to_json()
        self.data += line
        self.data += b"\n"
        self.line_bytes.append(len(line) + 1)
        header = sample.header
        geometry = geometry_of(header, sample.metadata) if header else NO_GEOMETRY
        sizes = sample_sizes(sample, settings, geometry)
        self.source_bytes.append(sizes.source_bytes)
        self.volume_bytes.append(sizes.volume_bytes)
        self.array_bytes.append(sizes.array_bytes)
        self.beside_bytes.append(sizes.beside_bytes)
        self.turned_bytes.append(sizes.turned_bytes)
        self.voxels.append(math.prod(header.shape) if header else 0)
        self.forms.append(_form(header))
        if header is not None:
            self.notes.add_header(sample.key, header, settings)
            self.notes.add_geometry(sample.key, geometry)
        elif error is not None:
            self.notes.add_header(sample.key, error, settings)


@lru_cache
def _shared(dtype: str, deflated: bool, fortran_order: bool) -> Form:
    """Return the form; one object for all, which goes to another process once."""
    return Form(dtype, deflated, fortran_order)


def _form(header: ArrayHeader | None) -> Form:
    if header is None:
        return NO_FORM
    return _shared(header.dtype, header.compression == "deflated", header.fortran_order)
