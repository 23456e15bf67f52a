"""Side by side: this project's way against the original's, same volumes, same workers.

Ours is the whole of `convert_shard`: CRC-32 of the source, error of every voxel, digests, fsync,
re-read from storage by an independent reader, publication, record.
"""

from __future__ import annotations

import functools
import multiprocessing
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.pool import Pool
from pathlib import Path

from benchmarks import original_way, our_way
from benchmarks.measure import Cost, Spread, cost_of, in_turns, ratios
from benchmarks.report import Table, load
from benchmarks.volumes import Shape, SourceKind, Volume, make
from ctrate_convert.schemas.plan import DType, Encoding

KINDS = (
    SourceKind("float32", deflated=True),
    SourceKind("float32", deflated=False),
    SourceKind("int16", deflated=True),
    SourceKind("int16", deflated=False),
)

_SAMPLES_A_SHARD = 2
_WORKERS = (1, 2)
_ONE_HU = 0.001
_QUIET = 0.5
"""The load average up to which nobody else is taken to use the machine."""

Job = Callable[[], object]


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    shape: Shape
    rounds: int


FULL = Size((480, 480, 240), rounds=5)
QUICK = Size((480, 480, 60), rounds=2)


@dataclass(frozen=True)
class Candidate:
    """One way to store the arrays."""

    encoding: Encoding
    dtype: DType = "auto"
    step: float | None = None

    @property
    def name(self) -> str:
        """As the tables show it."""
        steps = f" in steps of {self.step:g}" if self.step else ""
        return self.encoding + (f", {self.dtype}{steps}" if self.dtype != "auto" else "")


def candidates(kind: SourceKind, workers: int) -> list[Candidate]:
    """What is measured on ``kind``; the slowest with a single worker only."""
    b2nd = Candidate("b2nd", "int16", _ONE_HU) if kind.dtype == "float32" else Candidate("b2nd")
    return [Candidate("npy"), b2nd, *([Candidate("npy.gz")] if workers == 1 else [])]


@dataclass(frozen=True)
class Measured:
    """One candidate on one kind of source with so many workers: each round's costs.

    ``load`` is the machine's load average before anything was measured.
    """

    kind: SourceKind
    candidate: Candidate
    workers: int
    load: float
    original: list[Cost]
    ours: list[Cost]

    @property
    def name(self) -> str:
        """Source and candidate."""
        return f"{self.kind.name} → {self.candidate.name}"

    @property
    def samples(self) -> int:
        """Samples a round."""
        return _SAMPLES_A_SHARD * self.workers

    def cpu_per_sample(self) -> float:
        """The median of our CPU seconds for one sample."""
        return Spread.of(cost.cpu_s for cost in self.ours).median / self.samples

    def wall_ratio(self) -> Spread:
        """The original's wall clock over ours."""
        pairs = zip(self.original, self.ours, strict=True)
        return Spread.of(one.wall_s / other.wall_s for one, other in pairs)


def measure(work: Path, size: Size, kinds: Sequence[SourceKind] = KINDS) -> list[Measured]:
    """Run everything, one kind after the other, the candidates within a kind in turns."""
    before = load()
    with multiprocessing.get_context("spawn").Pool(max(_WORKERS)) as pool:
        return [
            measured
            for kind in kinds
            for workers in _WORKERS
            for measured in _measure_kind(pool, work, size, kind, workers, before)
        ]


def _measure_kind(
    pool: Pool, work: Path, size: Size, kind: SourceKind, workers: int, before: float
) -> list[Measured]:
    volumes = [Volume(kind, size.shape, seed) for seed in range(_SAMPLES_A_SHARD)] * workers
    inputs = work / "inputs"
    shutil.rmtree(inputs, ignore_errors=True)
    our_way.write_inputs(inputs, make(volumes, work / "volumes"))
    wanted = candidates(kind, workers)
    ways = [functools.partial(_original, pool, inputs, work / "original", workers)]
    ways += [
        functools.partial(_ours, pool, inputs, work / "ours", workers, candidate)
        for candidate in wanted
    ]
    original, *ours = in_turns(ways, size.rounds)
    shutil.rmtree(inputs)
    return [
        Measured(kind, candidate, workers, before, original, costs)
        for candidate, costs in zip(wanted, ours, strict=True)
    ]


def _original(pool: Pool, inputs: Path, out: Path, workers: int) -> Cost:
    sources = sorted((inputs / "npz").iterdir())
    out.mkdir()
    jobs: list[Job] = [
        functools.partial(
            original_way.convert,
            sources[shard * _SAMPLES_A_SHARD :][:_SAMPLES_A_SHARD],
            out / f"shard-{shard:06d}.tar",
        )
        for shard in range(workers)
    ]
    return _run(pool, jobs, out)


def _ours(pool: Pool, inputs: Path, out: Path, workers: int, candidate: Candidate) -> Cost:
    our_way.plan(inputs, out, _SAMPLES_A_SHARD, **vars(candidate))
    return _run(
        pool, [functools.partial(our_way.convert, out, shard) for shard in range(workers)], out
    )


def _run(pool: Pool, jobs: list[Job], out: Path) -> Cost:
    """CPU summed over the workers, wall clock of them all together."""
    start = time.perf_counter()
    cpu_s = sum(cost.cpu_s for cost in pool.imap_unordered(cost_of, jobs))
    wall_s = time.perf_counter() - start
    shutil.rmtree(out)
    return Cost(cpu_s, wall_s)


def tables(results: Sequence[Measured]) -> list[Table]:
    """Ratios first, then how two workers scale."""
    return [_ratio_table(results), _scaling_table(results)]


def _ratio_table(results: Sequence[Measured]) -> Table:
    rows = []
    slower = []
    for one in results:
        cpu = ratios(one.original, one.ours)
        wall = one.wall_ratio()
        rows.append(
            [one.name, str(one.workers), str(cpu), str(wall), f"{one.cpu_per_sample():.2f} s"]
        )
        slower += [
            f"{one.name}, {one.workers} worker(s): {spread.median:.2f}× in {what}"
            for what, spread in (("CPU", cpu), ("wall clock", wall))
            if spread.median < 1
        ]
    return Table(
        "Conversion: how many times faster than the original's way",
        ["source → encoding", "workers", "CPU", "wall clock", "our CPU per sample"],
        rows,
        [
            "Medians over the rounds, lowest and highest in brackets; above 1× ours is faster.",
            "Ours checks CRC-32, measures every voxel's error, hashes, syncs, and reads the shard "
            "back from storage; the original's way does nothing of this, and its bytes are still "
            "on their way to storage when its clock stops.",
            "Writing that the kernel does on its own behalf is in neither CPU figure.",
            "Sources are in the page cache for both; from cold storage both wait for it.",
            "Slower than the original's way: " + ("; ".join(slower) or "nothing in this run") + ".",
        ],
    )


def _scaling_table(results: Sequence[Measured]) -> Table:
    rows = []
    alone = {(one.kind, one.candidate): one for one in results if one.workers == 1}
    for two in results:
        if two.workers != 2:
            continue
        one = alone[two.kind, two.candidate]
        rows.append(
            [
                one.name,
                f"{_scaling(one.ours, two.ours):.2f}×",
                f"{_scaling(one.original, two.original):.2f}×",
                f"{two.cpu_per_sample() / one.cpu_per_sample():.2f}×",
            ]
        )
    before = results[0].load
    quiet = (
        "nobody else seemed to use the machine"
        if before <= _QUIET
        else "others used the machine, so the columns of samples/s show nothing but that"
    )
    return Table(
        "Two workers against one",
        ["source → encoding", "samples/s, ours", "samples/s, original's", "CPU per sample, ours"],
        rows,
        [
            f"Load average before the run {before:.1f}: {quiet}.",
            "Twice the samples with twice the workers: 2× is perfect, by wall clock.",
            "CPU per sample shows what the workers cost each other: 1× is nothing.",
        ],
    )


def _scaling(one: Sequence[Cost], two: Sequence[Cost]) -> float:
    alone, both = (Spread.of(cost.wall_s for cost in costs).median for costs in (one, two))
    return 2 * alone / both
