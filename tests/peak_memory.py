"""``python -m tests.peak_memory OUT SETTINGS``: plan, convert and read; print each step's peak.

In MiB, above what a process takes that has imported everything and does nothing.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import blosc2  # noqa: F401 - an idle worker has it too

from ctrate_convert import Volumes
from ctrate_convert.planning.make import load_plans, make_plan
from ctrate_convert.shards.shard import convert_shard
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.merger import merge
from ctrate_convert.store.records.plan import PlanSettings

NARROW = slice(7, 19)
LONG = slice(0, 10**6)


def status_mib(name: str) -> int:
    """A figure of this process; not ru_maxrss, which is inherited from the one that started it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) // 1024
    raise RuntimeError(f"/proc/self/status has no {name}")


def plan(dataset: Dataset, settings: PlanSettings) -> list[str]:
    """Plan; nothing fails."""
    make_plan(dataset, settings)
    return []


def convert(dataset: Dataset) -> list[str]:
    """Convert all shards of the plan; return why samples failed."""
    plans = load_plans(dataset)
    records = [
        convert_shard(dataset, plan, shard, "test", lambda size, samples: None).record
        for plan in plans
        for shard in plan.shards
    ]
    merge(dataset, plans, anew=records)
    return [failed.reason for record in records for failed in record.failed]


def read_narrow_boxes(out: Path) -> list[str]:
    """Read a box of every volume that is narrow along one axis and long along the others."""
    for sample in Volumes(out).values():
        for axis, size in enumerate(sample.array.shape):
            if size > NARROW.stop:
                z, y, x = (NARROW if a == axis else LONG for a in range(3))
                sample.array[z, y, x]
    return []


def peak_mib(step: Callable[[], list[str]]) -> tuple[int, list[str]]:
    """Run ``step`` in a fork of this process; return its peak above its start, and its result."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_measured, args=(step, there))
    process.start()
    there.close()
    peak, found = here.recv()
    process.join()
    return peak, found


def _measured(step: Callable[[], list[str]], there: Connection) -> None:
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    idle = status_mib("VmRSS")
    found = step()
    there.send((status_mib("VmHWM") - idle, found))


def main(out: Path, settings: PlanSettings) -> None:
    """Do one step after the other, each in a process of its own."""
    dataset = Dataset(out)
    steps: dict[str, Callable[[], list[str]]] = {
        "plan": lambda: plan(dataset, settings),
        "convert": lambda: convert(dataset),
        "read": lambda: read_narrow_boxes(out),
    }
    mib, failures = {}, []
    for name, step in steps.items():
        mib[name], failed = peak_mib(step)
        failures += failed
    json.dump({"mib": mib, "failures": failures}, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]), PlanSettings.model_validate_json(sys.argv[2]))
