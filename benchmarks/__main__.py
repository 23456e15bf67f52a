"""``python -m benchmarks [SUITE] [--quick] [--write]``: one of `SUITES`, or all of them."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks import (
    alternatives,
    conversion,
    deletion,
    limits,
    memory,
    nifti,
    prediction,
    probing,
    reading,
    report,
    scale,
    scaling,
    size,
    torch_workers,
    view_memory,
    view_sizes,
    views,
    views_stored,
)
from benchmarks.report import Table
from benchmarks.volumes import origin_text

WORK = Path(__file__).resolve().parents[1] / "bench-work"


def _alternatives(work: Path, quick: bool) -> list[Table]:
    return alternatives.tables(alternatives.QUICK_ROUNDS if quick else alternatives.FULL_ROUNDS)


def _conversion(work: Path, quick: bool) -> list[Table]:
    amount = conversion.QUICK if quick else conversion.FULL
    return [conversion.table(conversion.measure(work, amount))]


def _deletion(work: Path, quick: bool) -> list[Table]:
    amount = deletion.QUICK if quick else deletion.FULL
    return [deletion.table(deletion.measure(work, amount))]


def _limits(work: Path, quick: bool) -> list[Table]:
    return [limits.table(work, conversion.QUICK if quick else conversion.FULL)]


def _memory(work: Path, quick: bool) -> list[Table]:
    return [memory.table(work, memory.QUICK if quick else memory.FULL)]


def _nifti(work: Path, quick: bool) -> list[Table]:
    return nifti.tables(work, nifti.QUICK if quick else nifti.FULL)


def _prediction(work: Path, quick: bool) -> list[Table]:
    return [prediction.table(work, prediction.QUICK if quick else prediction.FULL)]


def _probing(work: Path, quick: bool) -> list[Table]:
    return probing.tables(work, probing.QUICK if quick else probing.FULL)


def _reading(work: Path, quick: bool) -> list[Table]:
    return reading.tables(work, reading.QUICK if quick else reading.FULL)


def _scale(work: Path, quick: bool) -> Iterable[Table]:
    return scale.tables(work, scale.QUICK if quick else scale.FULL)


def _scaling(work: Path, quick: bool) -> list[Table]:
    return [scaling.table(work, scaling.QUICK if quick else scaling.FULL)]


def _size(work: Path, quick: bool) -> list[Table]:
    return size.tables(work, size.QUICK_ROUNDS if quick else size.FULL_ROUNDS)


def _torch_workers(work: Path, quick: bool) -> list[Table]:
    return torch_workers.tables(work, torch_workers.QUICK if quick else torch_workers.FULL)


def _views(work: Path, quick: bool) -> Iterable[Table]:
    amount = views.QUICK if quick else views.FULL
    yield from views.tables(work, amount)
    yield from views_stored.tables(work, amount)
    yield view_memory.table(work, amount.shape)
    yield view_sizes.table(work, amount.shape)


SUITES: dict[str, Callable[[Path, bool], Iterable[Table]]] = {
    "conversion": _conversion,
    "size": _size,
    "reading": _reading,
    "views": _views,
    "torch_workers": _torch_workers,
    "scaling": _scaling,
    "memory": _memory,
    "prediction": _prediction,
    "deletion": _deletion,
    "nifti": _nifti,
    "scale": _scale,
    "probing": _probing,
    "limits": _limits,
    "alternatives": _alternatives,
}
"""What a user asks comes first: how fast, how small; what was tried and left out comes last."""


def main(arguments: list[str] | None = None) -> None:
    """Run the suites that were asked for and print their tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("suite", nargs="?", default="all", choices=[*SUITES, "all"])
    parser.add_argument("--quick", action="store_true", help="small volumes: a look, not a result")
    parser.add_argument(
        "--write", action="store_true", help="write RESULTS.md, or RESULTS-SUITE.md"
    )
    parser.add_argument("--work", type=Path, default=WORK, help="for volumes, kept for next time")
    options = parser.parse_args(arguments)
    if options.write and options.quick:
        parser.error("--write needs a run at full size, without --quick")
    options.work.mkdir(parents=True, exist_ok=True)

    facts = [
        f"Voxels: {origin_text()}; float32 is HU / 1000.",
        f"Load of the machine before the run: {report.load_average()}",
    ]
    print("\n".join([*report.machine(), *facts]), flush=True)
    tables: list[Table] = []
    started = time.monotonic()
    for name in SUITES if options.suite == "all" else [options.suite]:
        for table in SUITES[name](options.work, options.quick):
            print(table.as_text(), flush=True)
            tables.append(table)
    if options.write:
        facts.append(f"The run took {(time.monotonic() - started) / 60:.0f} minutes.")
        facts[-2] += f", after it: {report.load_average()} (the benchmark's own workers included)."
        report.write_results(tables, facts, options.suite)


if __name__ == "__main__":
    main()
