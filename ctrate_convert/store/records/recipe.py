"""A recipe: all that decides a view's voxels, in TOML; two with the same `recipe_id` are the same.

A recipe names its axes by x (across the patient), y (front to back) and z (along the patient), so
it serves shards whatever the order of their axes is.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, ValidationError, model_validator

from ctrate_convert.errors import SettingsError
from ctrate_convert.store.records.base import MAX_ARRAY_BYTES, Encoding, Record, sha256_hex

KERNEL_VERSION = 1
"""Raised whenever the kernel gives another bit for the same recipe and volume."""

SizeRule = Literal["int(n*(c/t))", "int(n*c/t)", "round(n*c/t)", "round((n-1)*c/t+1)"]
"""The number of voxels along an axis of n voxels of c mm that is resampled to t mm.

The first two differ by one where a product lies at an integer: 242 of 26,056 pairs of size and
spacing. ``round`` is Python's, to even; the last one is that of MONAI's ``compute_shape_offset``.
"""

Coordinates = Literal["half_pixel", "origin", "center"]
"""Where voxel i of m lies among the n voxels of the source.

``half_pixel``: at (i + 0.5)·n/m - 0.5, not below 0, as in torch's ``interpolate`` with
``align_corners=False``: the edges of the volume stay. ``origin``: at i·t/c, not beyond the last
voxel: the centre of the first voxel stays. ``center``: at (n - 1)/2 + (i - (m - 1)/2)·t/c, within
the source: the centre of the volume stays, as in TorchIO's ``Resample``.
"""

Output = Literal["int16", "uint8", "float16"]
"""``int16``: Hounsfield units, rounded to even. ``uint8``: the window in 0 to 255, rounded to even.
``float16``: the window as ``values``, or Hounsfield units without a window."""

ViewAxes = Literal["xyz", "xzy", "yxz", "yzx", "zxy", "zyx"]
"""The axes of a view, first to last."""

_Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,79}\Z")]
_Orientation = Annotated[str, StringConstraints(pattern=r"^([LR][PA][IS])?\Z")]
_Mm = Annotated[float, Field(ge=0.01, le=1000)]
_Voxels = Annotated[int, Field(ge=1, le=2**16)]

OUTPUT_BYTES: dict[Output, int] = {"int16": 2, "uint8": 1, "float16": 2}
"""The bytes of an element of each output."""

_INT16 = (-(2.0**15), 2.0**15 - 1)
_LEAST_WINDOW_HU = 1.0
_FLOAT16 = 65504.0
_LEAST_DIFFERENCE = 0.001
_NO_TOML = re.compile("[\x7f-\x9f]")
"""What `json` writes as it is, TOML forbids or a terminal may obey: DEL and the controls of C1."""

_NOT_OF_THE_ID = {"name", "about", "sources"}


class SpacingMm(Record):
    """The distance in mm between neighbours along each axis."""

    x: _Mm
    y: _Mm
    z: _Mm


class Size(Record):
    """The number of voxels along each axis."""

    x: _Voxels
    y: _Voxels
    z: _Voxels

    @property
    def voxels(self) -> int:
        """The number of all voxels."""
        return math.prod((self.x, self.y, self.z))


class CodeSource(Record):
    """The public code whose arithmetic a recipe has.

    ``commit`` is the one that was read; it is None where a package was read: ``release`` has the
    name and the version of that.
    """

    repository: str
    commit: str | None = None
    release: str | None = None
    file: str


class Recipe(Record):
    """What is done to a volume in Hounsfield units, in this order.

    Turn its axes to ``orientation``; clip to ``window_hu`` if ``clip`` is ``before``; resample to
    ``spacing_mm``; clip if it is ``after``; turn into ``output``; cut or pad around the middle to
    ``size``; order the axes.

    - ``orientation``: the directions in which x, y and z shall grow, such as ``RAS``; empty leaves
      each axis as the shard has it.
    - ``window_hu``: at least 1 HU wide, within the limits of int16.
    - ``values``: what training code makes of the window's ends, such as (-1, 1); float16 holds
      them, and they differ by at least 0.001.
    - ``size``: of at most 2 GiB. Without one, a view is as large as its volume. ``size_is``:
      ``exact`` cuts and pads to the size; ``least`` only pads, so that views are that large or
      larger. ``odd_voxel``: on which side the odd one is cut or padded.
    - ``pad_hu``: the Hounsfield units of the padding.
    - ``encoding``: in which a view is meant to be stored.
    """

    name: _Name
    about: str = ""
    sources: tuple[CodeSource, ...] = ()
    spacing_mm: SpacingMm
    size_rule: SizeRule
    coordinates: Coordinates
    interpolation: Literal["linear"] = "linear"
    orientation: _Orientation = ""
    window_hu: tuple[float, float] | None = None
    clip: Literal["before", "after"] = "after"
    output: Output = "int16"
    values: tuple[float, float] | None = None
    axes: ViewAxes
    size: Size | None = None
    size_is: Literal["exact", "least"] = "exact"
    odd_voxel: Literal["before", "after"] = "after"
    pad_hu: float | None = None
    encoding: Encoding = "b2nd"

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        window = self.window_hu
        if window is None:
            if self.output == "uint8" or self.values is not None:
                raise ValueError("uint8 and values need a window_hu")
        elif not window[0] < window[1]:
            raise ValueError("window_hu is (low, high) with low < high")
        elif window[1] - window[0] < _LEAST_WINDOW_HU:
            raise ValueError("window_hu is narrower than 1 HU")
        elif not _INT16[0] <= window[0] < window[1] <= _INT16[1]:
            raise ValueError("window_hu does not fit int16: -32768 to 32767")
        if self.values is not None:
            if max(map(abs, self.values)) > _FLOAT16:
                raise ValueError("values do not fit float16: -65504 to 65504")
            if abs(self.values[1] - self.values[0]) < _LEAST_DIFFERENCE:
                raise ValueError("values are two different numbers, at least 0.001 apart")
        if (self.size is None) != (self.pad_hu is None):
            raise ValueError("size and pad_hu go together")
        if self.size is None and self.size_is != "exact":
            raise ValueError("size_is needs a size")
        low, high = window or _INT16
        if self.pad_hu is not None and not low <= self.pad_hu <= high:
            raise ValueError("pad_hu lies outside window_hu")
        if self.size and self.size.voxels * OUTPUT_BYTES[self.output] > MAX_ARRAY_BYTES:
            raise ValueError(f"a view of this size is larger than {MAX_ARRAY_BYTES} bytes (2 GiB)")
        return self

    @property
    def title(self) -> str:
        """The name and the beginning of the id, for people: ``ctclip (1b5e0a4c7f21)``."""
        return f"{self.name} ({self.recipe_id[:12]})"

    @property
    def recipe_id(self) -> str:
        """The SHA-256 of all that decides the view, and of the kernel's version.

        The name, the words about it and the sources are left out: they change no voxel.
        """
        fields = self.model_dump(mode="json", exclude=_NOT_OF_THE_ID)
        canonical = json.dumps(
            {"kernel_version": KERNEL_VERSION, **fields}, sort_keys=True, separators=(",", ":")
        )
        return sha256_hex(canonical.encode())


def recipe_of(fields: dict[str, Any], where: object) -> Recipe:
    """Return the recipe with these fields, as `tomllib` reads them.

    Raises:
        SettingsError: a name is unknown or missing, or a value is none that the name can have.
    """
    try:
        # By JSON, because only there a list may stand for a tuple.
        return Recipe.model_validate_json(json.dumps(fields, default=str))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the recipe as a whole"
        why = first["msg"].removeprefix("Value error, ")
        raise SettingsError(
            f"not a recipe: {why}", where=f"{where}, at {place}",
            next_command="ctrate-convert recipes ctclip shows one",
        ) from error  # fmt: skip


def recipe_in_toml(text: str, where: object) -> Recipe:
    """Return the recipe that a TOML file holds.

    Raises:
        SettingsError: ``text`` is no TOML, or no recipe.
    """
    try:
        fields = tomllib.loads(text)
    except ValueError as error:  # also for an integer of thousands of digits
        raise SettingsError(f"not a TOML file: {error}", where=where) from error
    return recipe_of(fields, where)


def as_toml(recipe: Recipe) -> str:
    """Return the recipe as TOML, which `recipe_in_toml` reads to an equal one."""
    fields = recipe.model_dump(mode="json", exclude_none=True)
    sources = fields.pop("sources")
    lines = [f"{name} = {_value(value)}" for name, value in fields.items()]
    for source in sources:
        lines += ["", "[[sources]]", *(f"{key} = {_value(text)}" for key, text in source.items())]
    return "\n".join([*lines, ""])


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_value(one)}" for key, one in value.items()) + " }"
    # A JSON string, number or list of numbers is the same in TOML, but for a few controls.
    text = json.dumps(value, ensure_ascii=False)
    return _NO_TOML.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
