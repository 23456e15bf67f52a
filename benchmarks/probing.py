"""What each cleverness of the probe earns: with it and without, the promised bytes and the cost.

Two sets. That of `prediction`: five kinds of sources, three lengths of the body, one scanner. And
many short volumes, each with a noise of its own, as of many scanners. Without parts, a probed
volume is converted whole. Without kinds, the first volumes are probed, as they come. Without a look
into stored files, a stored volume's file size stands for what it compresses to.

A correction of parts, by how well small pieces of a part and of its volume deflate, was measured
here too. It changed the promised bytes by 1.6 % at most, as often away from the truth as towards
it, and was removed.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks import our_way
from benchmarks.conversion import Size
from benchmarks.measure import Spread, cost_of, settle
from benchmarks.prediction import volumes_of
from benchmarks.report import Table
from benchmarks.volumes import Shape, SourceKind, make
from benchmarks.volumes import Volume as TestVolume
from ctrate_convert.planning import make as planner
from ctrate_convert.planning.probe import choice, trials
from ctrate_convert.planning.probe.choice import Volume
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.plans import load_plans
from ctrate_convert.store.records.plan import Encoding

FULL = Size((480, 480, 240), rounds=2)
QUICK = Size((480, 480, 60), rounds=1)

_ENCODINGS: tuple[Encoding, ...] = ("npy.gz", "b2nd")
_MANY_BYTES = 2**40
_MANY = 96
_NOISES_HU = range(2, 60, 3)
_SCANNED_KINDS = (SourceKind("int16", deflated=False), SourceKind("float32", deflated=True))


def _first_ones(population: Sequence[Volume], wanted: int | None) -> list[Volume]:
    """As many volumes as `choose` takes, in their order, whatever their kinds are."""
    return list(population[: len(_CHOOSE(population, wanted))])


_CHOOSE = choice.choose

VARIANTS: dict[str, tuple[tuple[Any, str, Any], ...]] = {
    "as it is": (),
    "whole volumes, no parts": ((trials, "PART_BYTES", _MANY_BYTES),),
    "the first volumes, no kinds": ((trials, "choose", _first_ones),),
    "no look into stored files": (
        (planner, "with_stored_peeked", lambda population, paths: list(population)),
        (trials, "peek", lambda path, pieces: None),
    ),
}


@contextlib.contextmanager
def _without(variant: str) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for module, name, instead in VARIANTS[variant]:
            stack.enter_context(mock.patch.object(module, name, instead))
        yield


@dataclass(frozen=True)
class Promise:
    """One plan: the bytes that it promises, and what it cost."""

    output_bytes: int
    cpu_s: float
    wall_s: float


def tables(work: Path, size: Size) -> list[Table]:
    """Measure both sets."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return [
            _table(
                pool,
                work,
                size,
                volumes_of(size),
                "one scanner",
                f"Volumes as for the prediction, each of about {_words(size.shape)}, whose voxels "
                "are one scan's; every encoding is tried in each plan.",
            ),
            _table(
                pool,
                work,
                size,
                many_scanners(size.shape),
                "many scanners",
                f"Volumes of {_words(_short(size.shape))}, int16 stored and float32 deflated by "
                f"turns, each with noise of {_NOISES_HU[0]} to {_NOISES_HU[-1]} HU.",
            ),
        ]


def many_scanners(shape: Shape) -> list[TestVolume]:
    """Volumes whose noise is drawn, and alike for neighbours no more than for others."""
    draw = random.Random(0)
    return [
        TestVolume(
            _SCANNED_KINDS[number % 2],
            _short(shape),
            seed=number % 4,
            level=1,
            noise_hu=draw.choice(_NOISES_HU),
        )
        for number in range(_MANY)
    ]


def _short(shape: Shape) -> Shape:
    return (*shape[:2], max(1, shape[2] // 12))


def _words(shape: Shape) -> str:
    return "×".join(map(str, shape))


def _table(
    pool: Pool, work: Path, size: Size, volumes: list[TestVolume], title: str, note: str
) -> Table:
    """Convert once to know the truth; then plan in every variant, round by round."""
    inputs = work / "inputs"
    shutil.rmtree(inputs, ignore_errors=True)
    our_way.write_inputs(inputs, make(volumes, work / "volumes"))
    rows = []
    for encoding in _ENCODINGS:
        truth = pool.apply(_output_bytes, (inputs, work / "ours", encoding))
        seen: dict[str, list[Promise]] = {variant: [] for variant in VARIANTS}
        for number in range(size.rounds + 1):
            for variant in VARIANTS:
                promise = _plan(pool, inputs, work / "ours", encoding, variant)
                if number:  # the first round warms up
                    seen[variant].append(promise)
        usual = seen["as it is"]
        for variant, promises in seen.items():
            cost = Spread.of(
                one.cpu_s / other.cpu_s for one, other in zip(promises, usual, strict=True)
            )
            # The bytes are the same in every round.
            error = promises[0].output_bytes / truth
            plan = f"{promises[0].cpu_s:.1f} s"
            rows.append([encoding, variant, f"{error:.3f}", plan, str(cost)])
    shutil.rmtree(inputs)
    return Table(
        f"Probing {len(volumes)} volumes of {title}: what each part of it earns",
        ["encoding", "probe", "bytes promised over true", "plan, CPU", "CPU over as it is"],
        rows,
        [note],
    )


def _output_bytes(inputs: Path, out: Path, encoding: Encoding) -> int:
    our_way.plan(inputs, out, 100, encoding)
    our_way.convert(out, 0, decode=True)
    size_bytes = Dataset(out).shard(0).stat().st_size
    shutil.rmtree(out)
    return size_bytes


def _plan(pool: Pool, inputs: Path, out: Path, encoding: Encoding, variant: str) -> Promise:
    settle()
    return pool.apply(_plan_here, (inputs, out, encoding, variant))


def _plan_here(inputs: Path, out: Path, encoding: Encoding, variant: str) -> Promise:
    with _without(variant):
        cost = cost_of(functools.partial(our_way.plan, inputs, out, 100, encoding, probe=None))
    (plan,) = load_plans(Dataset(out))
    shutil.rmtree(out)
    return Promise(plan.estimate.output_bytes, cost.cpu_s, cost.wall_s)
