"""This project's way: a real plan over test volumes, and `convert_shard` on it."""

from __future__ import annotations

import csv
import os
import pickle
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ctrate_convert.deleting.gate import Release, release_sources
from ctrate_convert.deleting.proposal import Candidate, propose
from ctrate_convert.formats.members import LABEL_NAMES, REPORT_FIELDS
from ctrate_convert.formats.names import VolumeName
from ctrate_convert.planning.make import make_plan
from ctrate_convert.running.heap import keep_freed_memory
from ctrate_convert.shards.shard import convert_shard
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import load_record, planned_shards
from ctrate_convert.store.merger import merge
from ctrate_convert.store.plans import load_plans
from ctrate_convert.store.records.plan import Encoding, PlanSettings
from ctrate_convert.synthetic.clinical_tables import (
    METADATA_COLUMNS,
    label_rows,
    metadata_rows,
    report_rows,
)


def write_inputs(
    folder: Path,
    volumes: Sequence[Path],
    *,
    copies: bool = False,
    shape: tuple[int, int, int] = (480, 480, 240),
) -> None:
    """Write a data folder in which ``volumes`` have CT-RATE's names, and their tables.

    Hard links, or ``copies``: a source with several names is never deleted. The tables say that the
    volumes have ``shape``.
    """
    names = [VolumeName("train", number + 1, "a", 1) for number in range(len(volumes))]
    (folder / "npz").mkdir(parents=True)
    for name, volume in zip(names, volumes, strict=True):
        give = shutil.copyfile if copies else os.link
        suffix = ".nii.gz" if volume.name.endswith(".nii.gz") else ".npz"
        give(volume, folder / "npz" / f"{name.key}{suffix}")
    metadata = metadata_rows(names, shape, 0)
    _write_csv(
        folder / "metadata.csv", METADATA_COLUMNS, [[*r.values()] for r in metadata.values()]
    )
    _write_csv(folder / "reports.csv", ["VolumeName", *REPORT_FIELDS], report_rows(names, 0))
    _write_csv(folder / "labels.csv", ["VolumeName", *LABEL_NAMES], label_rows(names, 0))


def inputs_to_delete(work: Path, volumes: Sequence[Path]) -> Path:
    """Write a data folder of copies: what is deleted is gone for the next round."""
    inputs = work / "inputs"
    shutil.rmtree(inputs, ignore_errors=True)
    write_inputs(inputs, volumes, copies=True)
    return inputs


def _write_csv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(rows)


def plan(
    inputs: Path, out: Path, samples_per_shard: int, encoding: Encoding = "npy", **more: Any
) -> None:
    """Plan the conversion of ``inputs`` into ``out``; ``more`` is what else to set."""
    settings = PlanSettings(
        data_folder=str(inputs / "npz"),
        reports_file=str(inputs / "reports.csv"),
        meta_file=str(inputs / "metadata.csv"),
        labels_file=str(inputs / "labels.csv"),
        samples_per_shard=samples_per_shard,
        encoding=encoding,
        **{"probe": 0, **more},
    )
    make_plan(Dataset(out), settings)


def convert(out: Path, shard: int, *, decode: bool = True) -> None:
    """Convert one planned shard as a worker does, up to its published record.

    Raises:
        RuntimeError: not every sample of it was converted.
    """
    keep_freed_memory()  # as each worker does
    dataset = Dataset(out)
    its_plan, planned = planned_shards(load_plans(dataset))[shard]
    published = convert_shard(
        dataset, its_plan, planned, "benchmark", lambda *_: None, decode=decode
    )
    if published.record.failed:
        raise RuntimeError(f"not converted: {published.record.failed[0].reason}")
    if not decode:
        (out / "verified").write_bytes(pickle.dumps(published.verified))


def convert_and_delete(out: Path, shard: int) -> None:
    """Convert one shard, then let its sources go in another process, as a run does.

    Raises:
        RuntimeError: a source was kept.
    """
    convert(out, shard, decode=False)
    child = os.fork()  # as a run's workers are forked: nothing is imported a second time
    if child == 0:
        kept = _release(out, shard)
        print(*kept, sep="\n", end="", file=sys.stderr, flush=True)
        os._exit(1 if kept else 0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        raise RuntimeError(f"a source was kept, or the process failed: it ended with {status}")


def _release(out: Path, shard: int) -> list[str]:
    dataset = Dataset(out)
    plans = load_plans(dataset)
    its_plan, planned = planned_shards(plans)[shard]
    merge(dataset, plans)
    proposal = propose([Candidate(its_plan, shard, planned.task, 0, "<f4")])
    if proposal is None:
        return ["nothing was proposed"]
    release = Release(
        dataset=dataset,
        plan=its_plan,
        shard=planned,
        record=load_record(dataset, its_plan, shard),
        consent_name=proposal.accept(dataset, "benchmark").name,
        verified=pickle.loads((out / "verified").read_bytes()),  # noqa: S301 - written right here
    )
    return [one.reason for one in release_sources(release).kept]
