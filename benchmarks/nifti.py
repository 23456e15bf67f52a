"""NIfTI: conversion with and without deletion, memory, the order of axes, and reading headers.

The usual way of training repositories: ``nibabel.load``, ``get_fdata``, ``astype``, ``tarfile``;
its sources are unlinked unproven.
"""

from __future__ import annotations

import functools
import gzip
import multiprocessing
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.pool import Pool
from pathlib import Path

import nibabel
import numpy as np

from benchmarks import our_way
from benchmarks.conversion import Candidate, run_jobs
from benchmarks.measure import Cost, Spread, cost_of, in_turns, ratios
from benchmarks.memory import LIMIT_MIB, nothing, peak_mib
from benchmarks.original_way import add
from benchmarks.report import Table, Target
from benchmarks.volumes import Shape, SourceKind, Volume, make
from ctrate_convert.formats.affines import rows_of
from ctrate_convert.formats.nifti import header_bytes
from ctrate_convert.sources.kinds import read_array_header

_TURNED = SourceKind("int16", deflated=True, fortran=True)
"""The same elements as an NPZ: nibabel's array, whose first axis is the fastest."""

_SAMPLES = 8
_AFFINE = rows_of(np.diag([-0.7, -0.7, 1.5, 1.0]))
_LEVEL = 6
_CANDIDATES = (Candidate("npy"), Candidate("b2nd"))
_HEADERS = 1000
_PIECE_BYTES = 2**24


@dataclass(frozen=True)
class Size:
    """How much is measured; ``long`` is the volume whose memory is."""

    shape: Shape
    long: Shape
    rounds: int


FULL = Size((512, 512, 240), (512, 512, 2000), rounds=3)
QUICK = Size((256, 256, 60), (256, 256, 200), rounds=2)


def tables(work: Path, size: Size) -> list[Table]:
    """Everything, one after the other."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        conversion = _conversion(pool, work, size)
    return [conversion, _memory(work, size), _headers(work)]


# --- Conversion -----------------------------------------------------------------------------------


def _conversion(pool: Pool, work: Path, size: Size) -> Table:
    sources = _sources(work, size.shape, _SAMPLES)
    turned = make(
        [Volume(_TURNED, size.shape, seed=number % 2) for number in range(_SAMPLES)],
        work / "volumes",
    )
    ways: list[Callable[[], Cost]] = [
        functools.partial(_usual, pool, work, sources, deleting=True),
        functools.partial(_usual, pool, work, sources, deleting=False),
    ]
    for candidate in _CANDIDATES:
        for files, deleting in ((sources, True), (sources, False), (turned, False)):
            ways.append(functools.partial(_ours, pool, work, files, candidate, deleting=deleting))
    usual_deleting, usual, *costs = in_turns(ways, size.rounds)
    rows, verdicts = [], []
    for number, candidate in enumerate(_CANDIDATES):
        released, keeping, through_scratch = costs[3 * number : 3 * number + 3]
        against = ratios(usual_deleting, released)
        rows.append(
            [
                candidate.name,
                str(against),
                str(ratios(usual, keeping)),
                str(ratios(through_scratch, keeping)),
                str(_wall(through_scratch, keeping)),
            ]
        )
        if candidate.encoding == "b2nd":
            verdicts.append(Target("b2nd, deleting", low=2.0).note(against.median) + ".")
    return Table(
        "NIfTI (.nii.gz, int16): how many times faster than nibabel, astype and tarfile",
        ["encoding", "CPU, deleting", "CPU, keeping", "axes zyx over xyz, CPU", "… and wall"],
        rows,
        [
            f"One worker, one shard of {_SAMPLES} volumes of {'×'.join(map(str, size.shape))}. "
            "Medians over the rounds, lowest and highest in brackets; above 1× ours is faster.",
            "Deleting, ours reads every source again and compares every voxel with the shard; the "
            "usual way unlinks its sources unproven.",
            "Axes: the file's own order is a (z, y, x) array; as (x, y, z), here from an NPZ with "
            "the same elements, it has to be turned through a scratch file.",
            *verdicts,
        ],
    )


def _wall(numerators: Sequence[Cost], denominators: Sequence[Cost]) -> Spread:
    pairs = zip(numerators, denominators, strict=True)
    return Spread.of(one.wall_s / other.wall_s for one, other in pairs)


def _sources(work: Path, shape: Shape, samples: int, level: int = _LEVEL) -> list[Path]:
    return [
        _nifti(work, Volume(_TURNED, shape, number % 2, level=level)) for number in range(samples)
    ]


def _nifti(work: Path, volume: Volume) -> Path:
    """A NIfTI file with the elements of the NPZ ``volume``; it is kept for the next time."""
    (npz,) = make([volume], work / "volumes")
    path = npz.with_suffix(".nii.gz")
    if not path.exists():
        temporary = path.with_suffix(".partial")
        header = header_bytes(np.dtype("<i2"), volume.shape, _AFFINE)
        with (
            zipfile.ZipFile(npz) as archive,
            archive.open("data.npy") as stream,
            temporary.open("wb") as raw,
            gzip.GzipFile("", "wb", volume.level, raw, 0) as target,
        ):
            np.lib.format.read_magic(stream)
            np.lib.format.read_array_header_1_0(stream)
            target.write(header)
            while piece := stream.read(_PIECE_BYTES):
                target.write(piece)
        temporary.rename(path)
    return path


def _usual(pool: Pool, work: Path, sources: Sequence[Path], *, deleting: bool) -> Cost:
    inputs, out = our_way.inputs_to_delete(work, sources), work / "usual"
    out.mkdir()
    job = functools.partial(
        usual_way, sorted((inputs / "npz").iterdir()), out / "shard-000000.tar", deleting=deleting
    )
    cost = run_jobs(pool, [job], out)
    shutil.rmtree(inputs)
    return cost


def usual_way(sources: Sequence[Path], tar_path: Path, *, deleting: bool) -> None:
    """One shard: load, cast, tar; then unlink."""
    with tarfile.open(tar_path, "w") as tar:
        for source in sources:
            volume = nibabel.load(source).get_fdata().astype(np.float16)
            add(tar, f"{source.name.partition('.')[0]}.bin", volume.tobytes())
    if deleting:
        for source in sources:
            source.unlink()


def _ours(
    pool: Pool, work: Path, sources: Sequence[Path], candidate: Candidate, *, deleting: bool
) -> Cost:
    inputs, out = our_way.inputs_to_delete(work, sources), work / "ours"
    our_way.plan(inputs, out, _SAMPLES, **vars(candidate), delete_source_files=deleting)
    step = our_way.convert_and_delete if deleting else our_way.convert
    cost = run_jobs(pool, [functools.partial(step, out, 0)], out)
    shutil.rmtree(inputs)
    return cost


# --- Memory ---------------------------------------------------------------------------------------


def _memory(work: Path, size: Size) -> Table:
    idle = peak_mib(nothing)
    (source,) = _sources(work, size.long, 1, level=1)
    rows, worst = [], 0.0
    for candidate in (*_CANDIDATES, Candidate("npy.gz")):
        inputs, out = our_way.inputs_to_delete(work, [source]), work / "ours"
        our_way.plan(inputs, out, 1, **vars(candidate), delete_source_files=True)
        above = peak_mib(our_way.convert_and_delete, out, 0) - idle
        shutil.rmtree(inputs)
        shutil.rmtree(out)
        worst = max(worst, above)
        rows.append([candidate.name, f"{above:.0f} MiB"])
    target = work / "usual.tar"
    above = peak_mib(functools.partial(usual_way, deleting=False), [source], target) - idle
    target.unlink()
    rows.append(["nibabel, astype, tarfile", f"{above:,.0f} MiB"])
    return Table(
        f"Memory of a worker on one .nii.gz of {'×'.join(map(str, size.long))}, int16",
        ["encoding", "peak above an idle worker"],
        rows,
        [Target("The worst of ours", high=LIMIT_MIB, unit=" MiB").note(worst) + "."],
    )


# --- Headers --------------------------------------------------------------------------------------


def _headers(work: Path) -> Table:
    volume = Volume(SourceKind("int16", deflated=True), (64, 64, 32))
    (npz,) = make([volume], work / "volumes")
    nifti = _nifti(work, Volume(_TURNED, (64, 64, 32)))
    ways = {"NPZ": npz, "NIfTI (.nii.gz)": nifti}
    costs = in_turns(
        [
            functools.partial(cost_of, functools.partial(_read_headers, path))
            for path in ways.values()
        ],
        rounds=5,
        settled=False,
    )
    rows = [
        [name, f"{_HEADERS / min(cost.wall_s for cost in seen):,.0f} a second"]
        for name, seen in zip(ways, costs, strict=True)
    ]
    rows.append(["NPZ over NIfTI, CPU", str(ratios(*costs))])
    return Table(
        "Reading headers, as a plan does, one thread, files in the page cache",
        ["source", "headers"],
        rows,
    )


def _read_headers(path: Path) -> None:
    for _ in range(_HEADERS):
        read_array_header(path)
