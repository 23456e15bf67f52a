"""What `plan` promises after its probe against what the conversion then takes: bytes and time.

A mixed set: float32 and int16, deflated and stored, one kind in Fortran order, three lengths of
the body. Each encoding is planned with the default probe and converted by two workers.
"""

from __future__ import annotations

import multiprocessing
import shutil
import time
from dataclasses import dataclass
from multiprocessing.pool import Pool
from pathlib import Path
from typing import get_args

from benchmarks import our_way
from benchmarks.conversion import Size
from benchmarks.measure import Cost, cost_of, settle
from benchmarks.report import Table, Target
from benchmarks.volumes import SourceKind, Volume, make
from ctrate_convert.planning.run_estimate import RunEstimate, run_estimates
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.plans import load_plans
from ctrate_convert.store.records.plan import Encoding, Plan

FULL = Size((480, 480, 240), rounds=3)
QUICK = Size((480, 480, 60), rounds=1)

_KINDS = (
    SourceKind("float32", deflated=True),
    SourceKind("float32", deflated=False),
    SourceKind("int16", deflated=True),
    SourceKind("int16", deflated=False),
    SourceKind("int16", deflated=True, fortran=True),
)
_LENGTHS = (0.6, 1.0, 1.4)
_SAMPLES_A_SHARD = 2
_WORKERS = 2
_BYTES = Target("bytes", 0.95, 1.05)
_CPU = Target("CPU", 0.7, 1.3)
_HOURS = Target("hours (wall clock)", 0.7, 1.3)
_ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)


@dataclass(frozen=True)
class Compared:
    """One encoding once: what its plan promised, what became true, and what the plan cost."""

    promised: RunEstimate
    promised_cpu_s: float
    probed: int
    output_bytes: int
    conversion: Cost
    planning: Cost

    @property
    def bytes_ratio(self) -> float:
        """Promised over true, as the next two."""
        return self.promised.output_bytes / self.output_bytes

    @property
    def cpu_ratio(self) -> float:
        return self.promised_cpu_s / self.conversion.cpu_s

    @property
    def hours_ratio(self) -> float:
        return self.promised.hours * 3600 / self.conversion.wall_s

    def row(self) -> list[str]:
        """The ratios as a table shows them."""
        return [
            self.promised.encoding,
            str(self.probed),
            f"{self.bytes_ratio:.3f}",
            f"{self.cpu_ratio:.2f}",
            f"{self.hours_ratio:.2f}",
            f"{self.promised.hours:.4f} h",
            f"{self.conversion.wall_s / 3600:.4f} h",
            f"{self.planning.cpu_s:.1f} s",
        ]

    def verdicts(self) -> str:
        """Each target's note."""
        notes = (
            _BYTES.note(self.bytes_ratio),
            _CPU.note(self.cpu_ratio),
            _HOURS.note(self.hours_ratio),
        )
        return f"{self.promised.encoding}: {'; '.join(notes)}."


def table(work: Path, size: Size) -> Table:
    """Plan, convert, compare: each encoding, round by round; the median round is shown."""
    volumes = volumes_of(size)
    inputs = work / "inputs"
    shutil.rmtree(inputs, ignore_errors=True)
    our_way.write_inputs(inputs, make(volumes, work / "volumes"))
    with multiprocessing.get_context("spawn").Pool(_WORKERS) as pool:
        # The workers' imports, and memory that the machine has not handed out before.
        _compare(pool, inputs, work / "ours", _ENCODINGS[-1])
        rounds = [
            [_compare(pool, inputs, work / "ours", encoding) for encoding in _ENCODINGS]
            for _ in range(size.rounds)
        ]
    shutil.rmtree(inputs)
    medians = [_median(compared) for compared in zip(*rounds, strict=True)]
    return Table(
        "Prediction: what the plan's probe promised over what it became",
        [
            "encoding",
            "probed",
            "bytes",
            "CPU",
            "hours",
            "hours promised",
            "hours taken",
            "plan, CPU",
        ],
        [compared.row() for compared in medians],
        [
            f"1 is as promised. {len(volumes)} volumes of three lengths, kinds "
            f"{'; '.join(kind.name for kind in _KINDS)}; {_WORKERS} workers; the median round by "
            f"CPU of {size.rounds}.",
            "The plan's hours are CPU over workers: they hold by wall clock where storage keeps up "
            "and others leave the cores alone.",
            "The last column is the whole plan, every encoding probed.",
            *(compared.verdicts() for compared in medians),
        ],
    )


def volumes_of(size: Size) -> list[Volume]:
    """The volumes of the set: of every kind one of each length."""
    rows, columns, planes = size.shape
    return [
        Volume(kind, (rows, columns, max(1, int(planes * length))), seed, level=1)
        for seed, length in enumerate(_LENGTHS)
        for kind in _KINDS
    ]


def _median(rounds: tuple[Compared, ...]) -> Compared:
    by_cpu = sorted(rounds, key=lambda one: one.promised_cpu_s / one.conversion.cpu_s)
    return by_cpu[(len(by_cpu) - 1) // 2]


def _compare(pool: Pool, inputs: Path, out: Path, encoding: Encoding) -> Compared:
    settle()
    planning = cost_of(lambda: our_way.plan(inputs, out, _SAMPLES_A_SHARD, encoding, probe=None))
    plan: Plan = load_plans(Dataset(out))[0]
    promised = next(
        row for row in run_estimates(plan, num_workers=_WORKERS, deleting=False) if row.chosen
    )
    settle()
    started = time.perf_counter()
    shards = [(out, shard.index) for shard in plan.shards]
    cpu_s = sum(pool.starmap(_convert, shards, chunksize=1))
    conversion = Cost(cpu_s, time.perf_counter() - started)
    output_bytes = sum(path.stat().st_size for path in out.glob("*.tar"))
    shutil.rmtree(out)
    return Compared(
        promised=promised,
        promised_cpu_s=plan.probe.chosen.cpu_s if plan.probe else 0.0,
        probed=plan.probe.volumes if plan.probe else 0,
        output_bytes=output_bytes,
        conversion=conversion,
        planning=planning,
    )


def _convert(out: Path, shard: int) -> float:
    return cost_of(lambda: our_way.convert(out, shard)).cpu_s
