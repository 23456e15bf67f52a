"""Open a source with the class of its kind, which the file's name tells."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from ctrate_convert.errors import SampleError
from ctrate_convert.sources.nifti import NiftiSource
from ctrate_convert.sources.npz import NpzSource
from ctrate_convert.sources.source import Source, fetch, open_source_file
from ctrate_convert.store.records.plan import ArrayHeader, PlanSettings, SourceKind
from ctrate_convert.store.records.view import ViewFacts

SUFFIXES: dict[str, SourceKind] = {".npz": "npz", ".nii.gz": "nifti", ".nii": "nifti"}
"""The endings of sources' names, in lower case, and the kind that each stands for."""

KIND_NAMES: dict[SourceKind, str] = {"npz": "NPZ", "nifti": "NIfTI", "shard": "view"}
"""The kinds' names in messages."""

_CLASSES: dict[SourceKind, type[Source]] = {"npz": NpzSource, "nifti": NiftiSource}


def split_name(name: str) -> tuple[str, SourceKind] | None:
    """Return the stem and the kind of a file ``name``; None if it is no source's name."""
    lower = name.lower()
    for suffix, kind in SUFFIXES.items():
        if lower.endswith(suffix):
            return name[: -len(suffix)], kind
    return None


def open_source(path: Path, array_key: str | None = None, descriptor: int | None = None) -> Source:
    """Return the open source ``path``; a context manager. The arguments are those of `Source`.

    Raises:
        SampleError: the file cannot be read, or holds no single volume.
    """
    named = split_name(path.name)
    if named is None:
        raise SampleError(
            "not a kind of source", where=path, expected=f"a name in {', '.join(SUFFIXES)}"
        )
    return _CLASSES[named[1]](path, array_key, descriptor)


def open_planned(
    key: str,
    path: Path,
    settings: PlanSettings,
    promised: ViewFacts | None = None,
    descriptor: int | None = None,
) -> Source:
    """Return the open source of a planned sample: a file of its own, or a shard to make a view of.

    A view must be the one that ``promised`` tells of.

    Raises:
        SampleError: the file cannot be read, or holds no single volume; or there is no view of it,
            or another one.
    """
    if settings.view is None:
        return open_source(path, settings.array_key, descriptor)
    # Here, since only views need the kernel and all that reads shards.
    from ctrate_convert.sources.shard import ShardSource

    return ShardSource(path, key, settings.view, settings.assume_axes, promised, descriptor)


def read_array_header(path: Path, array_key: str | None = None) -> ArrayHeader:
    """Return the header of the volume in ``path`` without reading its data.

    Raises:
        SampleError: the file cannot be read, or holds no single volume.
    """
    with open_source(path, array_key) as source:
        return source.header


def fetch_ahead(path: Path) -> None:
    """Ask the kernel to fetch the start of the next source, if it can be opened."""
    with contextlib.suppress(OSError):
        descriptor = open_source_file(path)
        try:
            fetch(descriptor, 0)
        finally:
            os.close(descriptor)
