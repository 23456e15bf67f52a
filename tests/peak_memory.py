"""``python -m tests.peak_memory OUT SETTINGS``: plan, convert and read; print each step's peak.

In MiB, above what the process takes when all is imported. Everything happens in this process.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import blosc2  # noqa: F401 - an idle worker has it too

from ctrate_convert import Volumes
from ctrate_convert.conversion.manifest import merge
from ctrate_convert.conversion.planning import load_plans, make_plan
from ctrate_convert.conversion.shard import convert_shard
from ctrate_convert.paths import Dataset
from ctrate_convert.schemas.plan import PlanSettings
from ctrate_convert.schemas.record import FailedSample

NARROW = slice(7, 19)
LONG = slice(0, 10**6)


def status_mib(name: str) -> int:
    """A figure of this process; not ru_maxrss, which is inherited from the one that started it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) // 1024
    raise RuntimeError(f"/proc/self/status has no {name}")


def convert(dataset: Dataset) -> list[FailedSample]:
    """Convert all shards of the plan; return the samples that failed."""
    plans = load_plans(dataset)
    records = [
        convert_shard(dataset, plan, shard, "test", lambda size, samples: None).record
        for plan in plans
        for shard in plan.shards
    ]
    merge(dataset, plans, anew=records)
    return [failed for record in records for failed in record.failed]


def read_narrow_boxes(out: Path) -> None:
    """Read a box of every volume that is narrow along one axis and long along the others."""
    for sample in Volumes(out).values():
        for axis, size in enumerate(sample.array.shape):
            if size > NARROW.stop:
                z, y, x = (NARROW if a == axis else LONG for a in range(3))
                sample.array[z, y, x]


def main(out: Path, settings: PlanSettings) -> None:
    """Do all of it, one step after the other."""
    idle = status_mib("VmRSS")
    mib: dict[str, int] = {}
    failed: list[FailedSample] = []
    steps: dict[str, Callable[[], object]] = {
        "plan": lambda: make_plan(Dataset(out), settings),
        "convert": lambda: failed.extend(convert(Dataset(out))),
        "read": lambda: read_narrow_boxes(out),
    }
    for name, step in steps.items():
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        step()
        mib[name] = status_mib("VmHWM") - idle
    json.dump({"mib": mib, "failures": [sample.reason for sample in failed]}, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]), PlanSettings.model_validate_json(sys.argv[2]))
