"""Test volumes on disk: CT voxels at real size, in every way that an NPZ can hold them.

The voxels are a real CT's where its files are at hand, else a synthetic chest's. Slices repeat
with small independent noise, or a compressor would find the copies. The last axis runs along the
body, as in CT-RATE's own arrays.
"""

from __future__ import annotations

import multiprocessing
import os
import zipfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from ctrate_convert.synthetic import chest_phantom

REAL_CT_VARIABLE = "CTRATE_REAL_CT"
REAL_CT_NAME = "partial_body_512x512x20_int16"
_REAL_CT_FILE = f"{REAL_CT_NAME}.npz"
_PHANTOM_SHAPE = (96, 96, 40)
_SIBLING = Path(__file__).resolve().parents[2] / "shared" / "data" / "real-ct"

_PIECE_VOXELS = 2**23
_NUMPY_LEVEL = 6
_PADDING_HU = -1024
_NOISE_HU = 2

DType = Literal["float32", "int16"]
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class SourceKind:
    """One way in which a source can hold its voxels; floats are HU / 1000, integers HU."""

    dtype: DType
    deflated: bool
    fortran: bool = False

    @property
    def name(self) -> str:
        """As the tables show it."""
        order = ", Fortran" if self.fortran else ""
        return f"{self.dtype} {'deflated' if self.deflated else 'stored'}{order}"


@dataclass(frozen=True)
class Volume:
    """A test volume: its kind, its shape, its noise, and how hard it was deflated.

    ``seed`` chooses the noise, which is even and at most ``noise_hu``. Deflated at level 6 it is
    what ``np.savez_compressed`` writes; level 1 is for volumes whose size alone matters.
    """

    kind: SourceKind
    shape: Shape
    seed: int = 0
    level: int = _NUMPY_LEVEL
    noise_hu: int = _NOISE_HU

    @property
    def array_bytes(self) -> int:
        """Bytes of its elements."""
        return int(np.prod(self.shape)) * np.dtype(self.kind.dtype).itemsize

    @property
    def file_name(self) -> str:
        """Tells everything that its bytes depend on."""
        size = "x".join(map(str, self.shape))
        kind = self.kind.name.replace(", ", "_").replace(" ", "_")
        noise = "" if self.noise_hu == _NOISE_HU else f"_noise{self.noise_hu}"
        return f"{origin_name()}_{size}_{kind}_seed{self.seed}_level{self.level}{noise}.npz"


def real_ct() -> Path | None:
    """The file with real CT voxels, where it is at hand."""
    folder = Path(os.environ.get(REAL_CT_VARIABLE, _SIBLING))
    path = folder / _REAL_CT_FILE
    return path if path.is_file() else None


def origin_name() -> str:
    """``real`` or ``phantom``."""
    return "real" if real_ct() else "phantom"


def origin_text() -> str:
    """Where the voxels come from, for the results."""
    if real_ct():
        return "the slices of a real CT (512×512×20, int16), repeated with independent noise"
    return (
        "a synthetic chest, repeated with independent noise (no real CT at hand; "
        f"set {REAL_CT_VARIABLE} to a folder with {_REAL_CT_FILE})"
    )


def volumes_in_memory() -> list[tuple[str, NDArray[Any]]]:
    """Names and voxels (int16) of all real volumes at hand, else of a synthetic chest."""
    path = real_ct()
    if path is None:
        return [("a synthetic chest", chest_phantom(_PHANTOM_SHAPE, np.random.default_rng(0)))]
    volumes = []
    for file in sorted(path.parent.glob("*.npz"), reverse=True):
        with np.load(file, allow_pickle=False) as archive:
            volumes.append((file.stem, np.ascontiguousarray(archive[archive.files[0]])))
    return volumes


def make(volumes: list[Volume], folder: Path, processes: int = 2) -> list[Path]:
    """The files of ``volumes``; those that are not in ``folder`` yet are written."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [v for v in dict.fromkeys(volumes) if not (folder / v.file_name).exists()]
    if missing:
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, spawn) as pool:
            list(pool.map(_write, missing, [folder] * len(missing)))
    return [folder / volume.file_name for volume in volumes]


def _write(volume: Volume, folder: Path) -> None:
    path = folder / volume.file_name
    temporary = path.with_suffix(".partial")
    compression = zipfile.ZIP_DEFLATED if volume.kind.deflated else zipfile.ZIP_STORED
    with (
        zipfile.ZipFile(temporary, "w", compression, compresslevel=volume.level) as archive,
        archive.open("data.npy", "w", force_zip64=True) as stream,
    ):
        np.lib.format.write_array_header_1_0(
            cast(Any, stream),
            {
                "descr": np.lib.format.dtype_to_descr(np.dtype(volume.kind.dtype)),
                "fortran_order": volume.kind.fortran,
                "shape": volume.shape,
            },
        )
        for piece in _pieces(volume):
            stream.write(piece.data.cast("B"))
    temporary.rename(path)


def _pieces(volume: Volume) -> Iterator[NDArray[Any]]:
    """The volume in file order, a few rows (in Fortran order: planes) at a time."""
    rng = np.random.default_rng(volume.seed)
    slices = _slices(volume.shape)
    order = _bouncing(slices.shape[2], volume.shape[2], volume.seed)
    count = volume.shape[2 if volume.kind.fortran else 0]
    step = max(1, _PIECE_VOXELS * count // int(np.prod(volume.shape)))
    for start in range(0, count, step):
        if volume.kind.fortran:
            piece = slices[:, :, order[start : start + step]].transpose(2, 1, 0)
        else:
            piece = slices[start : start + step][:, :, order]
        piece = np.ascontiguousarray(piece)
        noise = rng.integers(-volume.noise_hu, volume.noise_hu + 1, piece.shape, np.int8)
        piece += noise * (piece > _PADDING_HU)
        if volume.kind.dtype == "float32":
            yield (piece / np.float32(1000)).astype(np.float32)
        else:
            yield piece


@lru_cache(maxsize=2)
def _slices(shape: Shape) -> NDArray[np.int16]:
    """A few slices of ``shape``'s rows and columns, cut from the middle of the origin's."""
    path = real_ct()
    if path is None:
        rows, columns, planes = shape
        return chest_phantom((rows, columns, min(20, planes)), np.random.default_rng(0))
    with np.load(path, allow_pickle=False) as archive:
        slices: NDArray[np.int16] = archive["data"]
    for axis in (0, 1):
        size, wanted = slices.shape[axis], shape[axis]
        first = (size - wanted) // 2
        slices = np.take(slices, np.arange(first, first + wanted), axis, mode="wrap")
    return slices


def _bouncing(size: int, count: int, start: int) -> NDArray[np.intp]:
    """0, 1, … size-1, size-2, … 1, 0, 1, …: neighbours stay neighbours."""
    if size == 1:
        return np.zeros(count, np.intp)
    turn = np.concatenate([np.arange(size), np.arange(size - 2, 0, -1)])
    return np.resize(np.roll(turn, -start), count)
