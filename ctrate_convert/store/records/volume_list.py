"""The lists of volumes that a plan was made with, so that a cohort can be named and compared."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ctrate_convert.store.records.base import Record, Sha256

ListOption = Literal["keep_file", "exclude_file"]


class VolumeList(Record):
    """One list of volumes: the option that named it, its file's name, its keys and its bytes.

    ``keys`` counts distinct keys. ``sha256`` is that of the bytes which the keys were read from.
    """

    option: ListOption
    name: str
    keys: int = Field(ge=0)
    sha256: Sha256

    @property
    def described(self) -> str:
        """The list in words, for reports."""
        names = "1 name" if self.keys == 1 else f"{self.keys:,} names"
        return f"--{self.option} {self.name}: {names}, SHA-256 {self.sha256}"


class GenerationLists(Record):
    """The lists that one generation of the plan was made with."""

    generation: int = Field(ge=0)
    lists: tuple[VolumeList, ...]
