"""Parse CT-RATE volume names: ``train_1_a_2.nii.gz`` is split, patient, scan, reconstruction."""

from __future__ import annotations

import re
from dataclasses import dataclass

_VOLUME = re.compile(r"(train|valid)_([1-9]\d*)_([a-z])_([1-9]\d*)", re.ASCII)


@dataclass(frozen=True, order=True)
class VolumeName:
    """The parts of a volume name; orders by split, patient *number*, scan, reconstruction."""

    split: str
    patient: int
    scan: str
    reconstruction: int

    @property
    def key(self) -> str:
        """The sample key, such as ``train_1_a_2``."""
        return f"{self.split}_{self.patient}_{self.scan}_{self.reconstruction}"


def parse_key(key: str) -> VolumeName | None:
    """Return the parts of a key, or None if it does not follow CT-RATE's naming."""
    parts = key_parts(key)
    if parts is None:
        return None
    split, patient, scan, reconstruction = parts
    return VolumeName(split, int(patient), scan, int(reconstruction))


def key_parts(key: str) -> tuple[str, ...] | None:
    """Return the four parts of a key as text, or None if it does not follow CT-RATE's naming."""
    match = _VOLUME.fullmatch(key)
    return None if match is None else match.groups()


def key_of_volume(volume_name: str) -> str:
    """Return the key for a VolumeName cell of a table: the name without ``.nii.gz``."""
    return volume_name.removesuffix(".nii.gz")
