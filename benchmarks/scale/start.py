"""The start of a task of a plan that is larger than any disk here.

The plan is made of a real one: its one shard is entered again and again under further numbers, so
that only the first task has sources. What is measured is all that comes before its first volume.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import Table, Target
from benchmarks.scale.commands import inputs_of, made_at, ran
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.plan_copies import PLAN_COPY_FILE, PLAN_FILE
from ctrate_convert.store.plans import load_plans

_SAMPLES = 100

# As an element begins: its module is imported, the plan read and checked, its shards found.
_BEGIN = """
import sys, time
began = time.process_time()
from pathlib import Path
from ctrate_convert.cluster import element
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import Ledger
from ctrate_convert.store.plans import require_plans
dataset = Dataset(Path(sys.argv[1]))
pending = Ledger(dataset, require_plans(dataset)).pending(None)
mine = [one for one in pending if one.shard.task == 0]
print(time.process_time() - began)
"""


def start_table(work: Path, points: Sequence[int]) -> Table:
    rows, element_s = [], 0.0
    for shards in points:
        made = made_at(work, _SAMPLES)
        ran("plan", *inputs_of(made, work), "--samples_per_shard", _SAMPLES, "--probe", 0)
        _enlarge(Dataset(work / "out"), shards)
        begun = subprocess.run(
            [sys.executable, "-c", _BEGIN, work / "out"], capture_output=True, text=True, check=True
        )
        element_s = float(begun.stdout)
        ran("run", work / "out", "--task", 0, "--num_workers", 1)
        again = ran("run", work / "out", "--task", 0, "--num_workers", 1)
        rows.append([f"{shards * _SAMPLES:,}", f"{shards:,}", f"{element_s:.2f} s", *again.cells()])
        shutil.rmtree(work)
    target = Target("s", high=1.0, unit=" s")
    return Table(
        "The start of one task of a large plan",
        ["samples", "shards", "an element, CPU", "run --task 0, done before", "memory"],
        rows,
        [
            "The plan is on paper: its first task alone has sources.",
            target.note(element_s) + ", of an element of the last plan.",
        ],
    )


def _enlarge(dataset: Dataset, shards: int) -> None:
    """Enter the plan's one shard under further numbers, and publish that as its plan."""
    (plan,) = load_plans(dataset)
    (first,) = plan.shards
    entries = tuple(
        first.model_copy(update={"index": n, "task": n, "lines_offset": n * first.lines_size_bytes})
        for n in range(shards)
    )
    changes = {"shards": entries, "samples": shards * first.samples}
    large = plan.model_copy(update=changes).as_stored()
    large = large.model_copy(update={"plan_id": large.content_id()})
    for name in (PLAN_FILE, PLAN_COPY_FILE):
        path = dataset.plan(0) / name
        path.chmod(0o644)
        path.write_bytes(large.to_pretty_json())
