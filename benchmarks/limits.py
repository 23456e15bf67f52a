"""How near the conversion comes to what its single steps cost at least, alone."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import blake3
import numpy as np

from benchmarks import our_way
from benchmarks.conversion import Size
from benchmarks.measure import Cost, Spread, cost_of, in_turns, ratios
from benchmarks.report import Table
from benchmarks.volumes import SourceKind, Volume, make
from ctrate_convert.formats.cast import BLOCK_VOXELS
from ctrate_convert.sources.npz import NpzSource

_DEFLATED = SourceKind("float32", deflated=True)
_STORED = SourceKind("float32", deflated=False)


def table(work: Path, size: Size) -> Table:
    """Measure each step alone, in turns with the conversion of the same volume."""
    volumes = [Volume(_DEFLATED, size.shape), Volume(_STORED, size.shape)]
    deflated, stored = make(volumes, work / "volumes")
    in_bytes = volumes[0].array_bytes
    steps = _steps(work, deflated, stored, in_bytes)
    inputs = [work / "inputs_deflated", work / "inputs_stored"]
    for folder, path in zip(inputs, (deflated, stored), strict=True):
        shutil.rmtree(folder, ignore_errors=True)
        our_way.write_inputs(folder, [path])
    ours = [functools.partial(_convert, folder, work / "ours") for folder in inputs]
    alone = [functools.partial(cost_of, step) for _, _, step in steps]
    costs = in_turns([*ours, *alone], size.rounds)
    for folder in inputs:
        shutil.rmtree(folder)
    (work / "copy").unlink()
    names = ["conversion, float32 deflated", "conversion, float32 stored"]
    rows = [
        _row(name, size_bytes, cost, costs[:2])
        for name, size_bytes, cost in zip(
            [*names, *(name for name, _, _ in steps)],
            [in_bytes, in_bytes, *(size_bytes for _, size_bytes, _ in steps)],
            costs,
            strict=True,
        )
    ]
    return Table(
        "Limits: what one step costs alone",
        ["step", "MB", "MB/s of CPU", "MB/s", "of deflated", "of stored"],
        rows,
        [
            f"One float32 volume of {in_bytes / 1e6:.0f} MB; digests are over what a shard holds "
            "of it. MB/s by CPU second, then by wall clock.",
            "The last columns: the step's CPU as a part of the whole conversion's.",
        ],
    )


def _steps(
    work: Path, deflated: Path, stored: Path, in_bytes: int
) -> list[tuple[str, int, Callable[[], object]]]:
    values = np.random.default_rng(0).integers(0, 256, in_bytes, np.uint8)
    copy = np.empty_like(values)
    half = values[: in_bytes // 2].data
    return [
        ("inflate and CRC-32, as ours", in_bytes, functools.partial(_read_through, deflated)),
        ("np.load, deflated", in_bytes, functools.partial(_load, deflated)),
        ("read and CRC-32, stored, as ours", in_bytes, functools.partial(_read_through, stored)),
        ("np.load, stored", in_bytes, functools.partial(_load, stored)),
        ("memcpy", in_bytes, functools.partial(np.copyto, copy, values)),
        ("cp", in_bytes, functools.partial(_cp, stored, work / "copy", sync=False)),
        ("cp and fsync", in_bytes, functools.partial(_cp, stored, work / "copy", sync=True)),
        ("sha256", in_bytes // 2, functools.partial(hashlib.sha256, half)),
        ("BLAKE3", in_bytes // 2, functools.partial(blake3.blake3, half)),
    ]


def _convert(inputs: Path, out: Path) -> Cost:
    our_way.plan(inputs, out, samples_per_shard=1)
    cost = cost_of(lambda: our_way.convert(out, 0))
    shutil.rmtree(out)
    return cost


def _read_through(path: Path) -> None:
    with NpzSource(path) as volume:
        for _ in volume.blocks(BLOCK_VOXELS):
            pass


def _load(path: Path) -> None:
    with np.load(path) as archive:
        archive["data"]


def _cp(source: Path, target: Path, *, sync: bool) -> None:
    target.unlink(missing_ok=True)
    subprocess.run(["cp", "--reflink=never", source, target], check=True)
    if sync:
        descriptor = os.open(target, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _row(name: str, size_bytes: int, costs: list[Cost], ours: list[list[Cost]]) -> list[str]:
    cpu, wall = (
        Spread.of(seconds).median
        for seconds in ([cost.cpu_s for cost in costs], [cost.wall_s for cost in costs])
    )
    parts = [f"{ratios(costs, whole).median:.2f}" for whole in ours]
    mega = size_bytes / 1e6
    return [name, f"{mega:.0f}", f"{mega / cpu:,.0f}", f"{mega / wall:,.0f}", *parts]
