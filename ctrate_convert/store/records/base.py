"""The base class of all records: frozen, strictly typed, without unknown keys, readable JSON."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from ctrate_convert.errors import DamageError, SettingsError
from ctrate_convert.store.durable import read_regular

# ``\Z`` and not ``$``, which also matches before a line end; so in the patterns below.
Key = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,80}\Z")]
"""A sample's key: the VolumeName without ``.nii.gz``. No dot or slash, as readers split at dots."""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}\Z")]
Blake3 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}\Z")]

Encoding = Literal["npy", "npy.gz", "b2nd"]
"""How an array is stored in its member of the tar."""

MAX_ARRAY_BYTES = 2**31
"""The most bytes that an array may take which a few bytes ask for: a recipe, a crop, or a packed
member.

The largest volume of CT-RATE takes 0.8 GiB at two bytes a voxel.
"""

SizeBytes = Annotated[int, Field(ge=0, lt=2**63)]
"""A size or an offset in bytes that a file can have."""

# ``(?s)``: a name may hold a line end, and the look-ahead must see what follows it.
RelativePath = Annotated[
    str, StringConstraints(pattern=r"(?s)^(?!.*(^|/)\.{0,2}(/|\Z))[^\x00]+\Z", max_length=4096)
]
"""A path below the data folder: no leading slash, no empty, ``.`` or ``..`` component."""

_GIVEN: dict[frozenset[str], set[str]] = {}


class Record(BaseModel):
    """A frozen record. Reading one refuses unknown keys, wrong types and NaN."""

    # pydantic's default regex engine has no look-ahead, which `RelativePath` needs.
    # Unknown keys are refused: they may be conditions of a later version, such as those of a
    # consent.
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, regex_engine="python-re"
    )

    def model_post_init(self, _context: Any, /) -> None:
        """Share the set of the fields that were given with all records that have the same ones.

        A set for each record takes as much memory as the values. Nothing changes a shared set:
        records are frozen, and `model_copy` copies it.
        """
        given = self.__pydantic_fields_set__
        shared = _GIVEN.setdefault(frozenset(given), given)
        object.__setattr__(self, "__pydantic_fields_set__", shared)

    def to_json(self) -> bytes:
        """Return one line of UTF-8 JSON without a line end; equal records give equal bytes."""
        return self.model_dump_json().encode()

    def as_stored(self) -> Self:
        """Return the record as it will be when read back, with every field set."""
        return type(self).model_validate_json(self.to_json())

    def stored_sha256(self, *, without: str | None = None) -> str:
        """Return the SHA-256 of the stored JSON, for a record that was read back or is `as_stored`.

        The hash leaves out fields that the stored JSON does not have, because a later version of
        the program added them with a default. So a record of an earlier version keeps its hash.
        """
        data = self.model_dump_json(exclude_unset=True, exclude={without} if without else None)
        return sha256_hex(data.encode())

    def to_pretty_json(self) -> bytes:
        """Return indented UTF-8 JSON, for files that people read."""
        return self.model_dump_json(indent=1).encode() + b"\n"


R = TypeVar("R", bound=Record)


def parse(kind: type[R], data: bytes, where: object) -> R:
    """Return a record of ``kind`` parsed from JSON.

    Raises:
        DamageError: ``data`` is not such a record; the message names the first wrong place.
    """
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise DamageError(
            f"not a valid {kind.__name__}: {first['msg']}" + (f" at {place}" if place else ""),
            where=where,
        ) from error
    except SettingsError as error:  # raised by the validator of `PlanSettings`
        raise DamageError(f"not a valid {kind.__name__}: {error.what}", where=where) from error


def read(kind: type[R], path: Path) -> R:
    """Return a record of ``kind`` read from a file.

    Raises:
        FileNotFoundError: there is no such file.
        DamageError: the file is not such a record.
    """
    return parse(kind, read_regular(path), path)


def sha256_hex(data: bytes) -> str:
    """Return the SHA-256 of ``data`` in hexadecimal, as ``sha256sum`` prints it."""
    return hashlib.sha256(data).hexdigest()
