"""Conversion that deletes its sources, against the original's way, which deletes unproven.

Ours reads each source and its sample once more, in another process than the writer's, and compares
every voxel before it unlinks the source. The original's way unlinks once its tar is closed.
"""

from __future__ import annotations

import functools
import multiprocessing
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.pool import Pool
from pathlib import Path

from benchmarks import original_way, our_way
from benchmarks.conversion import KINDS, Candidate, Size, run_jobs, usual_candidates
from benchmarks.measure import Cost, in_turns, ratios
from benchmarks.report import Table, Target
from benchmarks.volumes import SourceKind, Volume, make

FULL = Size((480, 480, 240), rounds=5)
QUICK = Size((480, 480, 60), rounds=2)

_SAMPLES = 12
"""Of one shard. A default shard holds 100, which share its fixed costs; 12 fit in memory."""

_TARGETS = {
    (SourceKind("float32", deflated=True), "npy"): Target("CPU", low=1.2),
    (SourceKind("float32", deflated=False), "npy"): Target("CPU", low=1.0),
    (SourceKind("int16", deflated=False), "npy"): Target("CPU", low=1.0),
    (SourceKind("float32", deflated=True), "b2nd"): Target("CPU", low=0.9),
    (SourceKind("int16", deflated=True), "b2nd"): Target("CPU", low=0.9),
}
"""How many times as fast as the original's way, which proves nothing, this has to be."""


@dataclass(frozen=True)
class Measured:
    """One candidate on one kind of source: each round's costs, with and without deletion."""

    kind: SourceKind
    candidate: Candidate
    original: list[Cost]
    deleting: list[Cost]
    keeping: list[Cost]


def measure(work: Path, size: Size, kinds: Sequence[SourceKind] = KINDS) -> list[Measured]:
    """Run everything, one kind after the other, the candidates within a kind in turns."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return [measured for kind in kinds for measured in _measure_kind(pool, work, size, kind)]


def _measure_kind(pool: Pool, work: Path, size: Size, kind: SourceKind) -> list[Measured]:
    volumes = [Volume(kind, size.shape, seed=number % 2) for number in range(_SAMPLES)]
    sources = make(volumes, work / "volumes")
    wanted = usual_candidates(kind)
    ways: list[Callable[[], Cost]] = [functools.partial(_original, pool, work, sources)]
    for candidate in wanted:
        ways.append(functools.partial(_ours, pool, work, sources, candidate, deleting=True))
        ways.append(functools.partial(_ours, pool, work, sources, candidate, deleting=False))
    original, *costs = in_turns(ways, size.rounds)
    return [
        Measured(kind, candidate, original, *costs[2 * number : 2 * number + 2])
        for number, candidate in enumerate(wanted)
    ]


def _original(pool: Pool, work: Path, sources: Sequence[Path]) -> Cost:
    inputs, out = our_way.inputs_to_delete(work, sources), work / "original"
    out.mkdir()
    job = functools.partial(
        _convert_and_unlink, sorted((inputs / "npz").iterdir()), out / "shard-000000.tar"
    )
    cost = run_jobs(pool, [job], out)
    shutil.rmtree(inputs)
    return cost


def _convert_and_unlink(sources: Sequence[Path], tar_path: Path) -> None:
    original_way.convert(list(sources), tar_path)
    for source in sources:
        source.unlink()


def _ours(
    pool: Pool, work: Path, sources: Sequence[Path], candidate: Candidate, *, deleting: bool
) -> Cost:
    inputs, out = our_way.inputs_to_delete(work, sources), work / "ours"
    our_way.plan(inputs, out, _SAMPLES, **vars(candidate), delete_source_files=deleting)
    step = our_way.convert_and_delete if deleting else our_way.convert
    cost = run_jobs(pool, [functools.partial(step, out, 0)], out)
    left = len(list((inputs / "npz").iterdir()))
    if left != (0 if deleting else _SAMPLES):
        raise RuntimeError(f"{left} sources are left")
    shutil.rmtree(inputs)
    return cost


def table(results: Sequence[Measured]) -> Table:
    """Ratios to the original's way, and what deletion adds."""
    rows, verdicts = [], []
    for one in results:
        name = f"{one.kind.name} → {one.candidate.name}"
        cpu = ratios(one.original, one.deleting)
        added = ratios(one.deleting, one.keeping)
        rows.append([name, str(cpu), str(ratios(one.original, one.keeping)), str(added)])
        target = _TARGETS.get((one.kind, one.candidate.encoding))
        if target:
            verdicts.append(f"{name}: {target.note(cpu.median)}.")
    return Table(
        "Conversion with deletion: how many times faster than the original's way",
        ["source → encoding", "CPU, deleting", "CPU, keeping", "deleting over keeping"],
        rows,
        [
            f"One worker, one shard of {_SAMPLES} samples, and one process more that compares. "
            "Medians over the rounds, lowest and highest in brackets; above 1× ours is faster.",
            "Deleting, ours reads every source a second time and compares every voxel with what "
            "the shard gives back; the original's way unlinks its sources unproven.",
            *verdicts,
        ],
    )
