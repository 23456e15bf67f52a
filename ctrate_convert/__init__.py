"""Convert CT-RATE chest CT volumes to WebDataset shards without losing a scan."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ctrate_convert.errors import (
        CtrateError,
        DamagedShardWarning,
        DamageError,
        EnvironmentProblem,
        Interrupted,
        RefusedError,
        SampleError,
        SettingsError,
        UnreadableSource,
        WorkerDied,
    )
    from ctrate_convert.formats.members import LABEL_NAMES
    from ctrate_convert.reading.decoder import decoder
    from ctrate_convert.reading.pipeline import open_dataset
    from ctrate_convert.reading.volumes import Volumes
    from ctrate_convert.views.unview import unview

__all__ = [
    "LABEL_NAMES",
    "CtrateError",
    "DamageError",
    "DamagedShardWarning",
    "EnvironmentProblem",
    "Interrupted",
    "RefusedError",
    "SampleError",
    "SettingsError",
    "UnreadableSource",
    "Volumes",
    "WorkerDied",
    "__version__",
    "decoder",
    "open_dataset",
    "unview",
]

__version__ = "0.1.0"

_FROM = {
    "LABEL_NAMES": "ctrate_convert.formats.members",
    "Volumes": "ctrate_convert.reading.volumes",
    "decoder": "ctrate_convert.reading.decoder",
    "open_dataset": "ctrate_convert.reading.pipeline",
    "unview": "ctrate_convert.views.unview",
}


def __getattr__(name: str) -> object:
    """Import an exported name on first use: importing the reading side may take seconds."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_FROM.get(name, "ctrate_convert.errors")), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
