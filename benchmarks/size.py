"""How small, how fast, how exact: each way to store an array, through our own writers and readers.

On the real volumes where they are at hand, else on a synthetic chest.
"""

from __future__ import annotations

import functools
import gzip
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import Cost, Spread, cost_of, in_turns
from benchmarks.report import Table, Target
from benchmarks.volumes import REAL_CT_NAME, volumes_in_memory
from ctrate_convert.formats.cast import BLOCK_VOXELS, Caster
from ctrate_convert.formats.codecs import CODECS
from ctrate_convert.formats.codecs.target import ArrayTarget
from ctrate_convert.formats.tar import TarWriter, WrittenMember
from ctrate_convert.store.durable import PartialFile
from ctrate_convert.store.records.plan import ChunkShape, Encoding

FULL_ROUNDS = 7
QUICK_ROUNDS = 2

_ONE_HU = 0.001
_GZIP_LEVEL = 6

Array = NDArray[Any]


@dataclass(frozen=True)
class Way:
    """One way to store an array."""

    encoding: Encoding
    chunk_shape: ChunkShape = "cube"

    @property
    def name(self) -> str:
        """As the table shows it."""
        return f"{self.encoding}, {self.chunk_shape}" if self.encoding == "b2nd" else self.encoding


_TARGETS = {
    "int16 → int16: b2nd, cube": (
        Target("smaller", low=3.2),
        Target("write", low=400, unit=" MB/s"),
        Target("read", low=800, unit=" MB/s"),
    ),
    f"float32 → int16 in steps of {_ONE_HU:g}: b2nd, cube": (Target("smaller", low=6.4),),
}
"""What is asked of one of the real volumes, by row."""

WAYS = (Way("npy"), Way("npy.gz"), Way("b2nd"), Way("b2nd", "slab"))


@dataclass(frozen=True)
class Stored:
    """A source as it would be stored: the elements, what they cost in exactness, in HU."""

    source: Array
    elements: Array
    error_hu: float
    name: str

    @classmethod
    def of(cls, hu: Array, source: str, target: str) -> Stored:
        """``hu`` held as ``source`` and cast by the `Caster` to ``target``."""
        floats = source == "float32"
        values = (hu / np.float32(1000)).astype(np.float32) if floats else hu
        step = _ONE_HU if floats and target == "int16" else None
        caster = Caster(values.dtype, np.dtype(target), step, num_voxels=values.size)
        flat = values.reshape(-1)
        elements = np.concatenate(
            [
                caster.cast(flat[first : first + BLOCK_VOXELS]).copy()
                for first in range(0, len(flat), BLOCK_VOXELS)
            ]
        )
        error = caster.measured().max_abs_error * (1000 if floats else 1)
        name = f"{source} → {target}" + (f" in steps of {step:g}" if step else "")
        return cls(values, elements.reshape(hu.shape), error, name)


def tables(work: Path, rounds: int) -> list[Table]:
    """One table a volume."""
    return [_table(work, title, hu, rounds) for title, hu in volumes_in_memory()]


def _table(work: Path, title: str, hu: Array, rounds: int) -> Table:
    folder = work / "size"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rows = []
    verdicts = []
    for source, target in (("int16", "int16"), ("float32", "int16"), ("float32", "float16")):
        stored = Stored.of(hu, source, target)
        written = {way: write_member(folder, way, stored.elements) for way in WAYS}
        packed = gzip.compress(stored.elements.tobytes(), _GZIP_LEVEL)
        work_of: list[Callable[[], object]] = []
        for way, member in written.items():
            work_of += [
                functools.partial(write_member, folder, way, stored.elements),
                functools.partial(_read, folder, way, stored.elements, member),
            ]
        work_of += [
            functools.partial(gzip.compress, stored.elements.tobytes(), _GZIP_LEVEL),
            functools.partial(gzip.decompress, packed),
        ]
        costs = in_turns(
            [functools.partial(cost_of, one) for one in work_of], rounds, settled=False
        )
        sizes = {way.name: member.size_bytes for way, member in written.items()}
        sizes[f"gzip {_GZIP_LEVEL}"] = len(packed)
        for number, (way_name, size_bytes) in enumerate(sizes.items()):
            name = f"{stored.name}: {way_name}"
            smaller = stored.source.nbytes / size_bytes
            write, read = (_speed(stored.elements, cost) for cost in costs[2 * number :][:2])
            rows.append(
                [
                    name,
                    f"{smaller:.2f}×",
                    f"{size_bytes / hu.size:.2f}",
                    f"{write:,.0f}",
                    f"{read:,.0f}",
                    f"{stored.error_hu:.4g}",
                ]
            )
            notes = [
                one.note(seen)
                for one, seen in zip(_TARGETS.get(name, ()), (smaller, write, read), strict=False)
            ]
            if notes and title == REAL_CT_NAME:
                verdicts.append(f"{name}: {'; '.join(notes)}.")
    shutil.rmtree(folder)
    return Table(
        f"Size: {title}, {'×'.join(map(str, hu.shape))}",
        ["source → stored as", "smaller than source", "bytes a voxel", "write", "read", "error"],
        rows,
        [
            "float32 is HU / 1000. Write and read in MB of stored elements per CPU second of one "
            "core, medians; error is the largest of any voxel, in HU.",
            "Through our own writers and readers: writing includes the tar, the digest of the "
            "stored bytes and the scratch file, reading comes from the page cache. The cast is "
            "not included; npy is the elements as they are. gzip in memory, for comparison.",
            *verdicts,
        ],
    )


def _path(folder: Path, way: Way) -> Path:
    return folder / f"{way.encoding}-{way.chunk_shape}"


def write_member(folder: Path, way: Way, elements: Array) -> WrittenMember:
    """Write the elements into a file of their own in ``folder``, as one member of a tar."""
    path = _path(folder, way)
    path.unlink(missing_ok=True)
    flat = elements.reshape(-1)
    with PartialFile(path) as partial:
        target = ArrayTarget(
            tar=TarWriter(partial),
            name=f"sample.volume.{way.encoding}",
            dtype=elements.dtype,
            shape=elements.shape,
            scratch=folder,
            chunk_shape=way.chunk_shape,
        )
        with CODECS[way.encoding].writer(target) as writer:
            for first in range(0, len(flat), BLOCK_VOXELS):
                writer.put(flat[first : first + BLOCK_VOXELS])
            member = writer.finish()
        partial.path.rename(path)
    return member


def _read(folder: Path, way: Way, elements: Array, member: WrittenMember) -> None:
    blocks = CODECS[way.encoding].read_blocks(
        _path(folder, way),
        member.offset,
        member.size_bytes,
        elements.dtype,
        elements.shape,
    )
    if sum(block.size for block in blocks) != elements.size:
        raise RuntimeError(f"{way.name} gives back another number of elements")


def _speed(elements: Array, costs: list[Cost]) -> float:
    return elements.nbytes / 1e6 / Spread.of(cost.cpu_s for cost in costs).median
