"""Report how the doctor finds a dataset's sources and trash; it only reads there."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from ctrate_convert.checking.doctor.about_deletion import findings_about_deletion
from ctrate_convert.checking.doctor.finding import Finding
from ctrate_convert.errors import CtrateError
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.plans import load_plans, load_samples
from ctrate_convert.store.records.plan import Plan
from ctrate_convert.store.storage_reader import StorageReader

_LOOKED_AT = 200
"""The number of planned sources of a data folder that are looked for on disk."""

_READ_BYTES = 2**26  # 64 MiB


def findings_about_sources(folder: Path) -> tuple[Finding, ...]:
    """Return findings on the data folders and trashes of the plans in ``folder``, if any."""
    dataset = Dataset(folder)
    there: list[Path] = []
    try:
        plans = {plan.settings.data_folder: plan for plan in load_plans(dataset)}
        there = [path for plan in plans.values() for path in _that_are_there(dataset, plan)]
        found = [finding for plan in plans.values() for finding in _about(dataset, plan, there)]
    except (CtrateError, OSError) as error:
        found = [Finding("the plan's sources", "not tested", str(error), "see: verify OUT")]
    return (*found, *findings_about_deletion(folder, there))


def _about(dataset: Dataset, plan: Plan, there: Sequence[Path]) -> Iterator[Finding]:
    data_folder = Path(plan.settings.data_folder)
    if not data_folder.is_dir():
        yield Finding(
            "the data folder", "weaker", f"{data_folder} is not there",
            "what is pending fails until it is; no source is taken for deleted",
        )  # fmt: skip
        return
    if plan.settings.view is not None:
        return
    yield _gives_space_back(data_folder, dataset.out)
    if plan.settings.trash:
        yield _trash(Path(plan.settings.trash), data_folder)
    for source in [path for path in there if path.is_relative_to(data_folder)][:1]:
        yield _may_be_removed(source)
        yield _is_read(source)


def _gives_space_back(data_folder: Path, out: Path) -> Finding:
    what = "deletion frees the output's disk"
    if os.stat(data_folder).st_dev == os.stat(out).st_dev:
        return Finding(what, "good", "sources and output are on one file system")
    return Finding(
        what, "weaker", "sources and output are on two file systems",
        "the output needs room for all shards; deleted sources give none back there",
    )  # fmt: skip


def _trash(trash: Path, data_folder: Path) -> Finding:
    # The trash may not exist yet; its nearest existing parent tells the file system.
    there = next(folder for folder in (trash, *trash.parents) if folder.exists())
    if os.stat(there).st_dev == os.stat(data_folder).st_dev:
        return Finding("move to the trash", "good", "the trash is on the sources' file system")
    return Finding(
        "move to the trash", "bad", "the trash is on another file system than the sources",
        "nothing is moved there, every source stays",
    )  # fmt: skip


def _that_are_there(dataset: Dataset, plan: Plan) -> list[Path]:
    sources = (
        Path(plan.settings.data_folder) / sample.source
        for shard in plan.shards
        for sample in load_samples(dataset, plan, shard)
    )
    return [path for path in islice(sources, _LOOKED_AT) if path.is_file()]


def _may_be_removed(source: Path) -> Finding:
    what = "remove sources"
    if os.access(source.parent, os.W_OK | os.X_OK):
        return Finding(what, "good", f"this user may, in {source.parent}")
    return Finding(
        what, "weaker", f"this user may not, in {source.parent}",
        "sources are converted and stay; the gate says so of each",
    )  # fmt: skip


def _is_read(source: Path) -> Finding:
    descriptor = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        size_bytes = 0
        started = time.monotonic()
        with StorageReader(descriptor) as reader:
            while size_bytes < _READ_BYTES and (piece := reader.take()):
                size_bytes += len(piece)
        took_s = time.monotonic() - started
    finally:
        os.close(descriptor)
    speed = size_bytes / took_s / 1e6
    return Finding("read a source", "good", f"{size_bytes} bytes from storage, {speed:,.0f} MB/s")
