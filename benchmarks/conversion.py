"""Side by side: this project's way against the original's, same volumes, same workers.

Ours is the whole of `convert_shard`: CRC-32 of the source, error of every voxel, digests, fsync,
re-read from storage by an independent reader, publication, record.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.pool import Pool
from pathlib import Path

from benchmarks import original_way, our_way
from benchmarks.measure import Cost, Spread, cost_of, in_turns, ratios
from benchmarks.report import Table, Target
from benchmarks.volumes import Shape, SourceKind, Volume, make
from ctrate_convert.store.records.plan import DType, Encoding, Layout

KINDS = (
    SourceKind("float32", deflated=True),
    SourceKind("float32", deflated=False),
    SourceKind("int16", deflated=True),
    SourceKind("int16", deflated=False),
    SourceKind("int16", deflated=True, fortran=True),
)

_SAMPLES = 2
_ONE_HU = 0.001

Job = Callable[[], object]


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    shape: Shape
    rounds: int


FULL = Size((480, 480, 240), rounds=9)
QUICK = Size((480, 480, 60), rounds=2)


@dataclass(frozen=True)
class Candidate:
    """One way to store the arrays."""

    encoding: Encoding
    dtype: DType = "auto"
    step: float | None = None
    layout: Layout = "webdataset"

    @property
    def name(self) -> str:
        """As the tables show it."""
        if self.layout == "ctclip":
            return f"{self.layout} layout, {self.dtype}"
        steps = f" in steps of {self.step:g}" if self.step else ""
        return self.encoding + (f", {self.dtype}{steps}" if self.dtype != "auto" else "")


_CTCLIP = Candidate("npy", "float16", layout="ctclip")


def usual_candidates(kind: SourceKind) -> list[Candidate]:
    """The encodings that a run on ``kind`` is likely to ask for."""
    b2nd = Candidate("b2nd", "int16", _ONE_HU) if kind.dtype == "float32" else Candidate("b2nd")
    return [Candidate("npy"), b2nd]


def candidates(kind: SourceKind) -> list[Candidate]:
    """Every encoding, and of integers what only they go through: the cast to float16."""
    slow = [] if kind.fortran else [Candidate("npy.gz")]
    halves = [_CTCLIP] if kind.dtype == "int16" and not kind.fortran else []
    return usual_candidates(kind) + slow + halves


_TARGETS = {
    (SourceKind("float32", deflated=True), "npy"): Target("CPU", low=1.8),
    (SourceKind("float32", deflated=False), "npy"): Target("CPU", low=1.25),
    (SourceKind("int16", deflated=False), "npy"): Target("CPU", low=1.4),
    (SourceKind("float32", deflated=True), "b2nd"): Target("CPU", low=1.4),
    (SourceKind("float32", deflated=False), "b2nd"): Target("CPU", low=0.9),
    (SourceKind("int16", deflated=False), "b2nd"): Target("CPU", low=0.9),
}
"""How many times as fast as the original's way a source and an encoding have to be."""


@dataclass(frozen=True)
class Measured:
    """One candidate on one kind of source: each round's costs."""

    kind: SourceKind
    candidate: Candidate
    original: list[Cost]
    ours: list[Cost]

    @property
    def name(self) -> str:
        """Source and candidate."""
        return f"{self.kind.name} → {self.candidate.name}"

    def cpu_per_sample(self) -> float:
        """The median of our CPU seconds for one sample."""
        return Spread.of(cost.cpu_s for cost in self.ours).median / _SAMPLES

    def wall_ratio(self) -> Spread:
        """The original's wall clock over ours."""
        pairs = zip(self.original, self.ours, strict=True)
        return Spread.of(one.wall_s / other.wall_s for one, other in pairs)


def measure(work: Path, size: Size, kinds: Sequence[SourceKind] = KINDS) -> list[Measured]:
    """Run everything, one kind after the other, the candidates within a kind in turns."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return [measured for kind in kinds for measured in _measure_kind(pool, work, size, kind)]


def _measure_kind(pool: Pool, work: Path, size: Size, kind: SourceKind) -> list[Measured]:
    with inputs_of(work, kind, size, _SAMPLES) as inputs:
        wanted = candidates(kind)
        ways = [functools.partial(original, pool, inputs, work / "original", _SAMPLES, _SAMPLES)]
        ways += [
            functools.partial(ours, pool, inputs, work / "ours", _SAMPLES, _SAMPLES, candidate)
            for candidate in wanted
        ]
        theirs, *costs = in_turns(ways, size.rounds)
    return [
        Measured(kind, candidate, theirs, its) for candidate, its in zip(wanted, costs, strict=True)
    ]


@contextlib.contextmanager
def inputs_of(work: Path, kind: SourceKind, size: Size, samples: int) -> Iterator[Path]:
    """A data folder of so many samples of ``kind``, removed afterwards."""
    volumes = [Volume(kind, size.shape, seed=number % 2) for number in range(samples)]
    inputs = work / "inputs"
    shutil.rmtree(inputs, ignore_errors=True)
    our_way.write_inputs(inputs, make(volumes, work / "volumes"))
    yield inputs
    shutil.rmtree(inputs)


def original(pool: Pool, inputs: Path, out: Path, samples: int, samples_a_shard: int) -> Cost:
    """The first ``samples`` of ``inputs`` in the original's way, its shards over the pool."""
    sources = sorted((inputs / "npz").iterdir())[:samples]
    out.mkdir()
    jobs: list[Job] = [
        functools.partial(
            original_way.convert,
            sources[first : first + samples_a_shard],
            out / f"shard-{first:06d}.tar",
        )
        for first in range(0, samples, samples_a_shard)
    ]
    return run_jobs(pool, jobs, out)


def ours(
    pool: Pool,
    inputs: Path,
    out: Path,
    samples: int,
    samples_a_shard: int,
    candidate: Candidate,
) -> Cost:
    """The same in our way, the plan not counted."""
    our_way.plan(inputs, out, samples_a_shard, **vars(candidate))
    shards = range(samples // samples_a_shard)
    return run_jobs(pool, [functools.partial(our_way.convert, out, shard) for shard in shards], out)


def run_jobs(pool: Pool, jobs: Sequence[Job], out: Path) -> Cost:
    """Do ``jobs``, remove ``out``; CPU is the workers' sum, wall clock that of all together."""
    start = time.perf_counter()
    cpu_s = sum(cost.cpu_s for cost in pool.imap_unordered(cost_of, jobs))
    wall_s = time.perf_counter() - start
    shutil.rmtree(out)
    return Cost(cpu_s, wall_s)


def table(results: Sequence[Measured]) -> Table:
    """Ratios to the original's way."""
    rows = []
    slower = []
    verdicts = []
    for one in results:
        cpu = ratios(one.original, one.ours)
        wall = one.wall_ratio()
        rows.append([one.name, str(cpu), str(wall), f"{one.cpu_per_sample():.2f} s"])
        target = _TARGETS.get((one.kind, one.candidate.encoding))
        if target and one.candidate.layout == "webdataset":
            verdicts.append(f"{one.name}: {target.note(cpu.median)}.")
        slower += [
            f"{one.name}: {spread.median:.2f}× in {what}"
            for what, spread in (("CPU", cpu), ("wall clock", wall))
            if spread.median < 1
        ]
    return Table(
        "Conversion: how many times faster than the original's way",
        ["source → encoding", "CPU", "wall clock", "our CPU per sample"],
        rows,
        [
            "One worker. Medians over the rounds, lowest and highest in brackets; above 1× ours is "
            "faster.",
            "Ours checks CRC-32, measures every voxel's error, hashes, syncs, and reads the shard "
            "back from storage; the original's way does nothing of this, and its bytes are still "
            "on their way to storage when its clock stops.",
            "Writing that the kernel does on its own behalf is in neither CPU figure.",
            "Sources are in the page cache for both; from cold storage both wait for it.",
            "Slower than the original's way: " + ("; ".join(slower) or "nothing in this run") + ".",
            *verdicts,
        ],
    )
