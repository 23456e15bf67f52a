"""What a plan's reader should know of the headers, counted; the first few of each kind named."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from ctrate_convert.errors import SampleError
from ctrate_convert.formats.cast import stored_dtype
from ctrate_convert.store.records.geometry import Geometry
from ctrate_convert.store.records.plan import ArrayHeader, PlanSettings

_NAMED = 5


@dataclass
class Named:
    """A number of things, and the names of the first few."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        """Count one more."""
        self.count += 1
        if len(self.first) < _NAMED:
            self.first.append(name)

    def extend(self, later: Named) -> None:
        """Count those that come after these."""
        self.count += later.count
        self.first = (self.first + later.first)[:_NAMED]

    def __bool__(self) -> bool:
        return self.count > 0

    def __str__(self) -> str:
        more = self.count - len(self.first)
        return ", ".join(self.first) + (f" and {more} more" if more > 0 else "")


@lru_cache
def _is_wider(dtype: str, target: str) -> bool:
    """Return True if integers of this type may not fit the array's type in the shard."""
    source = np.dtype(dtype)
    is_integer = target == "int16" and source.kind in "iu"
    return is_integer and not np.can_cast(source, np.int16)


@dataclass
class HeaderNotes:
    """The types, troubles and contradictions of a plan's volumes, as their headers tell them.

    ``failing`` will fail unless they are mended. ``left_out`` have entries that no shard will hold.
    ``wide`` have a wider type than int16. ``outputs`` counts the arrays in the shards by type. Of
    ``geometries`` volumes with a header, ``contradicted`` differ from the metadata table, the first
    one as ``contradiction`` says, and ``without_spacing`` of these claim no spacing.
    """

    failing: Named = field(default_factory=Named)
    left_out: Named = field(default_factory=Named)
    wide: Named = field(default_factory=Named)
    outputs: Counter[str] = field(default_factory=Counter)
    geometries: int = 0
    contradicted: Named = field(default_factory=Named)
    contradiction: str = ""
    without_spacing: int = 0

    def add_header(
        self, key: str, header: ArrayHeader | SampleError, settings: PlanSettings
    ) -> None:
        """Note one header, or why it could not be read."""
        try:
            if isinstance(header, SampleError):
                raise header
            target = stored_dtype(header, settings.dtype)
        except SampleError as error:
            self.failing.add(f"{key}: {error.what}")
            return
        self.outputs[target] += 1
        if header.left_out:
            names = Named()
            for name in header.left_out:
                names.add(name)
            self.left_out.add(f"{key} ({names})")
        if _is_wider(header.dtype, target):
            self.wide.add(key)

    def add_geometry(self, key: str, geometry: Geometry) -> None:
        """Note the geometry of a volume whose header was read."""
        self.geometries += 1
        if geometry.contradiction:
            self.contradiction = self.contradiction or geometry.contradiction
            self.contradicted.add(key)
            self.without_spacing += not geometry.spacing_mm

    def extend(self, later: HeaderNotes) -> None:
        """Add the notes of the volumes that come after these."""
        self.failing.extend(later.failing)
        self.left_out.extend(later.left_out)
        self.wide.extend(later.wide)
        self.outputs += later.outputs
        self.geometries += later.geometries
        self.contradicted.extend(later.contradicted)
        self.contradiction = self.contradiction or later.contradiction
        self.without_spacing += later.without_spacing

    def warnings(self, settings: PlanSettings) -> list[str]:
        """Return warnings about types, about volumes that will fail, and about geometry."""
        return [*self._about_headers(settings), *self._about_geometry()]

    def _about_headers(self, settings: PlanSettings) -> list[str]:
        warnings = []
        if self.failing:
            warnings.append(
                f"{self.failing.count} volumes will fail unless they are mended first; the others "
                f"go on: {self.failing}"
            )
        if self.left_out:
            warnings.append(
                f"{self.left_out.count} volumes have entries that no shard will hold; their "
                f"sources are kept unless --discard_members names them: {self.left_out}"
            )
        if len(self.outputs) > 1:
            counts = ", ".join(f"{number} {name}" for name, number in sorted(self.outputs.items()))
            warnings.append(
                f"the shards will hold more than one array type ({counts}), which some readers "
                "refuse; --dtype float16 makes them one"
            )
        if self.wide:
            outcome = "become int32, twice as large" if settings.dtype == "auto" else "fail"
            warnings.append(
                f"{self.wide.count} volumes have a wider type than int16; those whose values do "
                f"not fit {outcome}: {self.wide}"
            )
        if settings.layout == "ctclip" and self.outputs["int16"]:
            warnings.append(
                f"{self.outputs['int16']} arrays will be int16, but the original loader takes every"
                " .bin for float16; --dtype float16 is what it reads"
            )
        return warnings

    def _about_geometry(self) -> list[str]:
        wrong = self.contradicted
        if not wrong:
            return []
        if not self.without_spacing:
            claimed = "their spacing is the files' own"
        elif self.without_spacing == wrong.count:
            claimed = "no spacing is claimed for them"
        else:
            claimed = f"no spacing is claimed for {self.without_spacing:,} of them"
        return [
            f"the metadata table contradicts the arrays of {wrong.count:,} of {self.geometries:,} "
            f"volumes, and {claimed}: {wrong}; of {wrong.first[0]}, {self.contradiction}"
        ]
