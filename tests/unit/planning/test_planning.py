"""A plan puts every volume in exactly one place, is never changed, and grows by what is new."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrate_convert.errors import DamageError, EnvironmentProblem, RefusedError, SettingsError
from ctrate_convert.formats.members import LABEL_NAMES, REPORT_FIELDS
from ctrate_convert.planning import make as planning
from ctrate_convert.planning.estimate import peak_extra_bytes
from ctrate_convert.planning.make import (
    PlanReport,
    load_excluded,
    load_plans,
    load_samples,
    make_plan,
)
from ctrate_convert.planning.split import natural_order, shard_ranges
from ctrate_convert.store.durable import publish_directory
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.plans import check_size_of_samples
from ctrate_convert.store.records.manifest import GIB
from ctrate_convert.store.records.plan import Plan, PlannedShard, PlanSettings
from ctrate_convert.store.records.record import FailedSample, ShardRecord, Worker

REPORT = dict.fromkeys(REPORT_FIELDS, "text")
LABELS = dict.fromkeys(LABEL_NAMES, "0")
METADATA = {"RescaleSlope": "1", "RescaleIntercept": "0", "XYSpacing": "[1, 1]", "ZSpacing": "1"}


class Source:
    """A small source: real NPZ files and tables, and a dataset directory to plan into."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "npz"
        self.data.mkdir(parents=True)
        self.dataset = Dataset(folder / "out")
        example = folder / "example.npz"
        np.savez(example, data=np.arange(24, dtype=np.int16).reshape(2, 3, 4))
        self._npz = example.read_bytes()
        self.reports: list[tuple[str, dict[str, str]]] = []
        self.labels: list[tuple[str, dict[str, str]]] = []
        self.metadata: list[tuple[str, dict[str, str]]] = []

    def volume(self, key: str, folder: str = "", content: bytes | None = None) -> Path:
        """An NPZ file alone."""
        path = self.data / folder / f"{key}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self._npz if content is None else content)
        return path

    def array(self, key: str, array: np.ndarray[Any, Any]) -> None:
        """A sample with an array of its own."""
        self.rows(key)
        np.savez(self.data / f"{key}.npz", data=array)

    def rows(self, *keys: str, but: str = "") -> None:
        """Rows in all tables ``but`` one."""
        for key in keys:
            for name, row in (("reports", REPORT), ("labels", LABELS), ("metadata", METADATA)):
                if name != but:
                    getattr(self, name).append((key, dict(row)))

    def samples(self, *keys: str) -> None:
        """Complete samples."""
        self.rows(*keys)
        for key in keys:
            self.volume(key)

    def settings(self, **choices: Any) -> PlanSettings:
        """The settings of a plan of what is there now."""
        for name, columns in (("reports", REPORT), ("labels", LABELS), ("metadata", METADATA)):
            with (self.folder / f"{name}.csv").open("w", newline="") as stream:
                writer = csv.DictWriter(stream, ["VolumeName", *columns])
                writer.writeheader()
                for key, row in getattr(self, name):
                    writer.writerow({"VolumeName": f"{key}.nii.gz", **row})
        return PlanSettings(
            data_folder=str(self.data),
            reports_file=str(self.folder / "reports.csv"),
            labels_file=str(self.folder / "labels.csv"),
            meta_file=str(self.folder / "metadata.csv"),
            **{"probe": 0, **choices},
        )

    def plan(self, **choices: Any) -> PlanReport:
        """Plan what is there now."""
        return make_plan(self.dataset, self.settings(**choices))

    def planned(self, *plans: Plan) -> list[str]:
        """The keys of these plans, or of all, in shard order."""
        return [
            sample.key
            for plan in plans or load_plans(self.dataset)
            for shard in plan.shards
            for sample in load_samples(self.dataset, plan, shard)
        ]

    def fail(self, plan: Plan, key: str) -> None:
        """Record ``key``'s shard as one in which every sample failed."""
        for shard in plan.shards:
            samples = load_samples(self.dataset, plan, shard)
            if key not in {sample.key for sample in samples}:
                continue
            outcomes = []
            for sample in samples:
                status = (self.data / sample.source).stat()
                outcomes.append(
                    FailedSample(
                        key=sample.key,
                        reason="CRC-32 wrong",
                        source=sample.source,
                        source_mtime_ns=status.st_mtime_ns,
                        source_ctime_ns=status.st_ctime_ns,
                    )
                )
            record = ShardRecord(
                plan_id=plan.plan_id,
                shard=shard.index,
                tar=None,
                samples=tuple(outcomes),
                worker=Worker(attempt="a", host="h", pid=1),
                started="",
                elapsed_s=0.0,
                source_bytes=0,
            )
            self.dataset.record(shard.index).write_bytes(record.to_json())


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path)


def made(report: PlanReport) -> Plan:
    assert report.plan is not None
    return report.plan


def reasons(report: PlanReport) -> dict[str, str]:
    return {sample.key: sample.reason for sample in report.excluded}


def keys(count: int, start: int = 1) -> list[str]:
    return [f"train_{number}_a_1" for number in range(start, start + count)]


def files_below(folder: Path) -> dict[str, bytes]:
    return {
        os.fspath(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "locks" not in path.parts
    }


# --- which samples ---------------------------------------------------------------------------


def test_every_exclusion_is_named_with_its_reason(source: Source, tmp_path: Path) -> None:
    """Each reason for not converting is told by name; all other samples are planned."""
    source.samples(*keys(3))
    source.samples("train_11_a_1")
    source.rows("train_12_a_1")
    source.volume("train_12_a_1", "one")
    source.volume("train_12_a_1", "two")
    source.volume("notes", "")
    source.volume("train 13")
    source.samples("train_14_a_1")
    source.reports.append(("train_14_a_1", {**REPORT, "Findings_EN": "other"}))
    source.volume("train_15_a_1")
    source.rows("train_16_a_1", but="labels")
    source.volume("train_16_a_1")
    source.samples("train_17_a_1")
    source.labels[-1][1]["Emphysema"] = "maybe"
    source.rows("train_18_a_1", but="metadata")
    source.volume("train_18_a_1")
    source.rows("train_251_a_2")
    listed = tmp_path / "no_chest.txt"
    listed.write_text("/old/place/train_11_a_1.nii.gz\n")

    report = source.plan(exclude_file=(str(listed),))

    assert reasons(report) == {
        "train_11_a_1": "on_exclusion_list",
        "train_12_a_1": "duplicate_volume",
        "notes": "bad_name",
        "train 13": "bad_name",
        "train_14_a_1": "conflicting_rows",
        "train_15_a_1": "no_report",
        "train_16_a_1": "no_labels",
        "train_17_a_1": "no_labels",
        "train_18_a_1": "no_metadata",
        "train_251_a_2": "no_volume",
    }
    details = {sample.key: sample.detail for sample in report.excluded}
    assert details["train_12_a_1"] == "one/train_12_a_1.npz and two/train_12_a_1.npz"
    assert "'Emphysema' is 'maybe'" in details["train_17_a_1"]
    assert source.planned() == keys(3)
    assert made(report).excluded == Counter(reasons(report).values())
    assert load_excluded(source.dataset, made(report)) == report.excluded


def test_the_first_reason_counts(source: Source, tmp_path: Path) -> None:
    """A sample with several faults is excluded once, for the first of them."""
    source.samples("train_1_a_1")
    source.volume("train_2_a_1", "one")
    source.volume("train_2_a_1", "two")
    source.volume("train_3_a_1")
    listed = tmp_path / "list.txt"
    listed.write_text("train_3_a_1.nii.gz\n")
    report = source.plan(exclude_file=(str(listed),))
    assert reasons(report) == {
        "train_2_a_1": "duplicate_volume",
        "train_3_a_1": "on_exclusion_list",
    }


def test_tables_decide_what_is_a_sample(source: Source) -> None:
    """A name that the tables know is converted even if CT-RATE would not name a volume so."""
    source.samples("phantom-7", "train_1_a_1")
    source.plan()
    assert source.planned() == ["train_1_a_1", "phantom-7"]


def test_a_sample_carries_all_that_the_tables_say(source: Source) -> None:
    """A planned sample holds its report, labels and metadata verbatim, and its file's facts."""
    source.samples("train_1_a_1")
    source.reports[0][1]["Findings_EN"] = 'A "nodule",\n4 × 3 mm.'
    source.metadata[0][1]["ZSpacing"] = ""
    plan = made(source.plan())
    (sample,) = load_samples(source.dataset, plan, plan.shards[0])
    status = (source.data / "train_1_a_1.npz").stat()
    assert sample.volume_name == "train_1_a_1.nii.gz"
    assert sample.report["Findings_EN"] == 'A "nodule",\n4 × 3 mm.'
    assert sample.metadata == {"VolumeName": "train_1_a_1.nii.gz", **METADATA, "ZSpacing": ""}
    assert sample.labels == dict.fromkeys(LABEL_NAMES, 0)
    assert (sample.source_size_bytes, sample.source_mtime_ns) == (
        status.st_size,
        status.st_mtime_ns,
    )
    assert sample.header is not None
    assert (sample.header.array_key, sample.header.shape) == ("data", (2, 3, 4))


def test_stems_decide_at_any_depth(source: Source) -> None:
    """Volumes are found in every folder layout at once, also with the suffix in capitals."""
    source.rows(*keys(4))
    source.volume("train_1_a_1")
    source.volume("train_2_a_1", "train_2/train_2_a")
    source.volume("train_3_a_1", "train_3/train_3a/deeper/still")
    source.volume("train_4_a_1").rename(source.data / "train_4_a_1.NPZ")
    source.plan()
    assert source.planned() == keys(4)


def test_hidden_files_and_links_to_folders_are_left_alone(source: Source) -> None:
    """Hidden files and folders are not looked at; a linked folder is named, not entered."""
    source.samples("train_1_a_1")
    source.rows("train_2_a_1", "train_3_a_1")
    source.volume("train_2_a_1", ".hidden")
    source.volume("._train_1_a_1")
    elsewhere = source.folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "train_3_a_1.npz").write_bytes(b"")
    (source.data / "link").symlink_to(elsewhere)
    (source.data / "loop").symlink_to(source.data)
    report = source.plan()
    assert source.planned() == ["train_1_a_1"]
    assert reasons(report) == {"train_2_a_1": "no_volume", "train_3_a_1": "no_volume"}
    assert any("linked folders" in line and "link, loop" in line for line in report.warnings)


def test_a_linked_volume_is_taken_and_flagged(source: Source) -> None:
    """A volume that is a symbolic link is planned, and the plan says it will not be deleted."""
    source.samples("train_1_a_1")
    source.rows("train_2_a_1", "train_3_a_1")
    target = source.volume("target").rename(source.folder / "target.npz")
    (source.data / "train_2_a_1.npz").symlink_to(target)
    (source.data / "train_3_a_1.npz").symlink_to(source.folder / "nowhere")
    report = source.plan()
    assert source.planned() == ["train_1_a_1", "train_2_a_1"]
    assert any("never" in line and "train_2_a_1" in line for line in report.warnings)
    assert reasons(report) == {"train_3_a_1": "no_volume"}
    assert any("train_3_a_1.npz: No such file" in line for line in report.warnings)


def test_names_that_are_not_text_do_no_harm(source: Source) -> None:
    """A file or folder name in another encoding is reported escaped; the others are planned."""
    source.samples("train_1_a_1")
    source.rows("train_2_a_1")
    root = os.fsencode(source.data)
    Path(os.fsdecode(root + b"/caf\xe9.npz")).write_bytes(b"")
    folder = Path(os.fsdecode(root + b"/\xff"))
    folder.mkdir()
    (folder / "train_2_a_1.npz").write_bytes(b"")
    (source.data / "train_3_a_1\n.npz").write_bytes(b"")
    report = source.plan()
    assert reasons(report) == {
        "caf\\xe9": "bad_name",
        "train_2_a_1": "bad_name",
        "train_3_a_1\\n": "bad_name",
    }
    assert source.planned() == ["train_1_a_1"]


def test_the_output_inside_the_data_folder_is_not_searched(source: Source) -> None:
    """An output directory below the data folder is skipped; the data folder itself is refused."""
    source.samples("train_1_a_1")
    source.rows("train_2_a_1")
    source.volume("train_2_a_1", "shards")
    source.dataset = Dataset(source.data / "shards")
    assert reasons(source.plan()) == {"train_2_a_1": "no_volume"}
    source.dataset = Dataset(source.data)
    with pytest.raises(SettingsError, match="is the data folder"):
        source.plan()


def test_a_volume_with_an_unreadable_header_stays_planned(source: Source) -> None:
    """A broken file is planned without header and named; conversion tells why it fails."""
    source.samples(*keys(2))
    source.rows("train_3_a_1")
    source.volume("train_3_a_1", content=b"PK not a zip file")
    report = source.plan()
    plan = made(report)
    headers = {s.key: s.header for s in load_samples(source.dataset, plan, plan.shards[0])}
    assert headers["train_3_a_1"] is None
    assert headers["train_1_a_1"] is not None
    assert any("train_3_a_1: not a readable NPZ" in line for line in report.warnings)


def test_mixed_types_are_told(source: Source) -> None:
    """The plan warns where --dtype auto gives more than one type, and of wide integers."""
    source.array("train_1_a_1", np.zeros((2, 2, 2), np.float32))
    source.array("train_2_a_1", np.zeros((2, 2, 2), np.int32))
    warnings = source.plan().warnings
    assert any("1 float16, 1 int16" in line for line in warnings)
    assert any("wider type than int16" in line and "train_2_a_1" in line for line in warnings)


# --- order, shards, tasks --------------------------------------------------------------------


def test_no_volume_is_left_out_at_3039_by_50(source: Source) -> None:
    """3,039 volumes at 50 a shard are 61 shards that hold all of them, the last one 39."""
    wanted = [f"valid_{patient}_a_1" for patient in range(1, 3040)]
    source.samples(*wanted)
    told: list[tuple[int, int]] = []
    settings = source.settings(samples_per_shard=50, shards_per_task=4)
    plan = made(make_plan(source.dataset, settings, lambda done, of: told.append((done, of))))
    assert [shard.samples for shard in plan.shards] == [50] * 60 + [39]
    assert [shard.index for shard in plan.shards] == list(range(61))
    assert Counter(shard.task for shard in plan.shards) == dict.fromkeys(range(15), 4) | {15: 1}
    assert plan.tasks == tuple(range(16))
    assert source.planned(plan) == wanted
    assert told[-1] == (3039, 3039)


def test_order_is_by_number(source: Source) -> None:
    """Patient 2 comes before patient 10, train before valid, whatever order the tables have."""
    source.samples("valid_1_a_1", "train_10_a_1", "train_2_b_1", "train_2_a_10", "train_2_a_9")
    source.plan()
    assert source.planned() == [
        "train_2_a_9",
        "train_2_a_10",
        "train_2_b_1",
        "train_10_a_1",
        "valid_1_a_1",
    ]


def test_shuffling_is_repeatable(source: Source, tmp_path: Path) -> None:
    """One seed gives one order, another seed another one, of the same samples."""
    source.samples(*keys(30))
    orders = []
    for number, seed in enumerate((7, 7, 8)):
        source.dataset = Dataset(tmp_path / f"out{number}")
        source.plan(shuffle_seed=seed)
        orders.append(source.planned())
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0], key=natural_order) == sorted(orders[2], key=natural_order) == keys(30)


@given(
    sizes=st.lists(st.integers(1, 3 * GIB), max_size=60),
    per_shard=st.integers(1, 9),
    gb=st.none() | st.floats(0.001, 5),
)
def test_shards_hold_every_sample_once(sizes: list[int], per_shard: int, gb: float | None) -> None:
    """However it is cut, every sample is in one shard; only a lone one exceeds the wanted size."""
    settings = PlanSettings(
        data_folder="",
        reports_file="",
        meta_file="",
        labels_file="",
        samples_per_shard=per_shard,
        shard_size_gb=gb,
    )
    ranges = shard_ranges(sizes, settings)
    assert [index for part in ranges for index in part] == list(range(len(sizes)))
    assert all(len(part) >= 1 for part in ranges)
    if gb is None:
        assert all(len(part) == per_shard for part in ranges[:-1])
        return
    for part in ranges:
        size = sum(sizes[index] for index in part)
        assert len(part) == 1 or size <= gb * GIB
        assert part.stop == len(sizes) or size + sizes[part.stop] > gb * GIB


def test_shards_by_size(source: Source) -> None:
    """With a wanted shard size the samples' estimated sizes decide."""
    for key in keys(4):
        source.array(key, np.zeros((64, 64, 64), np.int16))
    plan = made(source.plan(shard_size_gb=2.2 * 2**19 / GIB))
    assert [shard.samples for shard in plan.shards] == [2, 2]
    assert all(2**20 < shard.estimated_output_bytes < 1.1 * 2**20 for shard in plan.shards)


# --- estimates -------------------------------------------------------------------------------


def test_estimates_follow_from_headers(source: Source) -> None:
    """Output is counted in the output's type, scratch only for Fortran order."""
    voxels = 40 * 50 * 60
    source.array("train_1_a_1", np.zeros((40, 50, 60), np.float32))
    source.array("train_2_a_1", np.asfortranarray(np.zeros((40, 50, 60), np.int16)))
    plan = made(source.plan(samples_per_shard=1))
    plain, turned = plan.shards
    assert (plain.estimated_scratch_bytes, turned.estimated_scratch_bytes) == (0, 2 * voxels)
    for shard in plan.shards:
        assert 2 * voxels < shard.estimated_output_bytes < 2 * voxels + 20_000
        assert shard.estimated_output_bytes % 10240 == 0
    assert plan.estimate.largest_volume_bytes == 4 * voxels
    assert plan.estimate.source_bytes == sum(f.stat().st_size for f in source.data.iterdir())
    assert plan.estimate.output_bytes == sum(s.estimated_output_bytes for s in plan.shards)
    assert plan.estimate.peak_extra_bytes == plan.estimate.output_bytes + 2 * voxels


@given(
    sizes=st.lists(st.tuples(st.integers(1, 99), st.integers(1, 99)), min_size=1, max_size=12),
    workers=st.integers(1, 4),
)
def test_peak_with_deletion_is_what_a_simulation_shows(
    sizes: list[tuple[int, int]], workers: int
) -> None:
    """With deletion the peak is the shards under way on top of what is kept and not yet freed.

    Under way is one more than there are workers: one that is written and read back.
    """
    shards = [
        PlannedShard(
            index=index,
            task=index,
            samples=1,
            lines_offset=0,
            lines_size_bytes=1,
            lines_sha256="0" * 64,
            source_bytes=source_bytes,
            estimated_output_bytes=output_bytes,
            estimated_scratch_bytes=5,
        )
        for index, (source_bytes, output_bytes) in enumerate(sizes)
    ]
    grown, peak = 0, 0
    sizes = sorted(sizes, key=lambda size: size[0], reverse=True)  # as a run takes them
    for index, (source_bytes, output_bytes) in enumerate(sizes):
        peak = max(peak, grown + sum(out for _, out in sizes[index : index + workers + 1]))
        grown += output_bytes - source_bytes
    assert peak_extra_bytes(shards, deleting=True, workers=workers) == peak + 5 * workers
    whole = sum(out for _, out in sizes)
    assert peak_extra_bytes(shards, deleting=False, workers=workers) == whole + 5 * workers


# --- later plans -----------------------------------------------------------------------------


def test_a_plan_after_test_mode_adds_the_rest(source: Source) -> None:
    """Test mode plans the first hundred; the full plan adds the others and touches nothing."""
    source.samples(*keys(250))
    first = source.plan(test_mode=True, samples_per_shard=30)
    before = files_below(source.dataset.out)
    assert source.planned() == keys(100)
    assert first.left_for_later == 150
    assert first.excluded == ()

    second = source.plan(samples_per_shard=40)
    assert (second.already_planned, made(second).samples) == (100, 150)
    assert source.planned() == keys(250)
    plans = load_plans(source.dataset)
    assert [shard.index for plan in plans for shard in plan.shards] == list(range(4 + 4))
    assert [shard.task for plan in plans for shard in plan.shards] == list(range(4 + 4))
    after = files_below(source.dataset.out)
    assert {name: after[name] for name in before} == before


def test_batches_of_a_limit(source: Source) -> None:
    """Each plan takes the next ones, until none is left."""
    source.samples(*keys(25))
    taken = [source.plan(limit=10) for _ in range(3)]
    assert [made(batch).samples for batch in taken] == [10, 10, 5]
    assert [batch.left_for_later for batch in taken] == [15, 5, 0]
    assert source.planned() == keys(25)
    assert source.plan(limit=10).plan is None


def test_nothing_new_writes_nothing(source: Source) -> None:
    """Planning again what is planned leaves the directory as it is, also with sources deleted."""
    source.samples(*keys(5))
    source.plan()
    before = files_below(source.dataset.out)
    (source.data / "train_2_a_1.npz").unlink()
    report = source.plan()
    assert report.plan is None
    assert report.already_planned == 5
    assert report.excluded == ()
    assert files_below(source.dataset.out) == before


def test_a_sample_that_was_excluded_joins_later(source: Source) -> None:
    """What was excluded is planned once its reason is gone; the newest list no longer has it."""
    source.samples("train_1_a_1")
    source.volume("train_2_a_1")
    assert reasons(source.plan()) == {"train_2_a_1": "no_report"}
    source.rows("train_2_a_1")
    report = source.plan()
    assert source.planned(made(report)) == ["train_2_a_1"]
    assert report.excluded == ()


def test_a_failed_sample_is_planned_again_once_mended(source: Source) -> None:
    """A failed sample gets another try when its source has changed, and only then."""
    source.samples(*keys(3))
    plan = made(source.plan(samples_per_shard=1))
    source.fail(plan, "train_2_a_1")
    source.fail(plan, "train_3_a_1")
    assert source.plan().plan is None

    os.utime(source.data / "train_2_a_1.npz", ns=(1, 1))
    again = made(source.plan())
    assert source.planned(again) == ["train_2_a_1"]
    assert again.retries == ("train_2_a_1",)
    assert again.shards[0].index == 3
    assert source.plan().plan is None, "it is pending now, not failed"

    source.fail(again, "train_2_a_1")
    assert source.plan().plan is None, "its newest failure is of the source as it is"
    source.volume("train_2_a_1")
    assert made(source.plan()).retries == ("train_2_a_1",)


def test_a_mended_sample_that_cannot_be_planned_stays_failed(source: Source) -> None:
    """A sample has one state: a failed one that would now be excluded is not listed twice."""
    source.samples(*keys(2))
    source.fail(made(source.plan(samples_per_shard=1)), "train_2_a_1")
    source.volume("train_2_a_1", "second")
    report = source.plan()
    assert (report.plan, reasons(report), report.already_planned) == (None, {}, 2)


def test_late_exclusions_are_told(source: Source, tmp_path: Path) -> None:
    """A sample that is planned cannot be excluded any more; the plan says so."""
    source.samples(*keys(2))
    source.plan()
    source.samples("train_3_a_1")
    listed = tmp_path / "list.txt"
    listed.write_text("train_2_a_1.nii.gz\n")
    report = source.plan(exclude_file=(str(listed),))
    assert reasons(report) == {}
    assert any("stay planned: train_2_a_1" in line for line in report.warnings)


def test_a_list_of_another_split_is_told(source: Source, tmp_path: Path) -> None:
    """An exclusion list of which no name is known was probably given by mistake."""
    source.samples("train_1_a_1")
    listed = tmp_path / "list.txt"
    listed.write_text("valid_1_a_1.nii.gz\n")
    assert any(
        "another split" in line for line in source.plan(exclude_file=(str(listed),)).warnings
    )


def test_two_data_folders_share_a_dataset(source: Source, tmp_path: Path) -> None:
    """A second data folder is added; what the first one excluded stays in the newest list."""
    source.samples("train_1_a_1")
    source.volume("train_2_a_1")
    source.plan()
    other = Source(tmp_path / "valid")
    other.dataset = source.dataset
    other.samples("valid_1_a_1")
    other.rows("valid_2_a_1")
    report = other.plan()
    assert other.planned() == ["train_1_a_1", "valid_1_a_1"]
    assert reasons(report) == {"valid_2_a_1": "no_volume", "train_2_a_1": "no_report"}
    places = {sample.key: sample.source for sample in report.excluded}
    assert places["train_2_a_1"] == os.fspath(source.data.resolve() / "train_2_a_1.npz")


# --- several planners ------------------------------------------------------------------------

_PLAN_IN_A_PROCESS = """
import sys, time
from pathlib import Path
from ctrate_convert.planning.make import make_plan
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.records.plan import PlanSettings
settings = PlanSettings.model_validate_json(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
report = make_plan(Dataset(Path(sys.argv[1])), settings)
print("none" if report.plan is None else report.plan.plan_id)
"""


def test_two_planners_at_once_make_one_plan(source: Source) -> None:
    """Of two processes that plan at the same moment one makes the plan, the other adds nothing."""
    source.samples(*keys(300))
    settings = source.settings(samples_per_shard=10).to_json().decode()
    command = [sys.executable, "-c", _PLAN_IN_A_PROCESS, str(source.dataset.out), settings]
    planners = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for planner in planners:
        assert planner.stdout is not None
        assert planner.stdout.readline() == "ready\n"
    answers = []
    for planner in planners:
        assert planner.stdin is not None
        planner.stdin.write("\n")
        planner.stdin.flush()
    for planner in planners:
        out, _ = planner.communicate(timeout=120)
        assert planner.returncode == 0
        answers.append(out.strip())
    (plan,) = load_plans(source.dataset)
    assert sorted(answers) == sorted(["none", plan.plan_id])
    assert source.planned() == keys(300)


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def excludes_nobody(path: Path, *, timeout_s: float = -1) -> Iterator[bool]:
        yield True

    monkeypatch.setattr(planning, "locked", excludes_nobody)


def _before_publishing(
    monkeypatch: pytest.MonkeyPatch, events: Iterable[Callable[[], object]]
) -> None:
    """Let other planners act just before this one publishes."""
    pending = iter(events)

    def publish_after_others(files: dict[str, bytes], final: Path) -> bool:
        event = next(pending, None)
        if event is not None:
            event()
        return publish_directory(files, final)

    monkeypatch.setattr(planning, "publish_directory", publish_after_others)


@pytest.mark.usefixtures("no_locks")
def test_without_locks_the_loser_plans_what_is_left(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where locks exclude nobody, the planner that comes second adds only what is still new."""
    source.samples(*keys(150))
    full, part = source.settings(), source.settings(test_mode=True)
    _before_publishing(monkeypatch, [lambda: make_plan(source.dataset, part)])
    report = make_plan(source.dataset, full)
    assert (made(report).generation, made(report).samples) == (1, 50)
    assert source.planned() == keys(150)


@pytest.mark.usefixtures("no_locks")
def test_planners_that_never_rest_are_named(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A planner that loses twice says so instead of trying for ever."""
    source.samples(*keys(250))
    full, part = source.settings(), source.settings(test_mode=True)

    def other() -> PlanReport:
        return make_plan(source.dataset, part)

    # The other's own publication takes the place of every second event.
    _before_publishing(monkeypatch, [other, lambda: None, other])
    with pytest.raises(EnvironmentProblem, match="other planners"):
        make_plan(source.dataset, full)
    assert source.planned() == keys(200)


# --- damage ----------------------------------------------------------------------------------


def _change(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"generation": 0', b'"generation": 1'),
        (b'"samples": 2', b'"samples": 1'),
        (b'"delete_source_files": false', b'"delete_source_files": true'),
        (b'"max_error": null', b'"max_error": 99'),
        (b"}", b""),
        (b'"retries"', b'"retrys"'),
    ],
)
def test_a_changed_plan_is_refused(source: Source, old: bytes, new: bytes) -> None:
    """A plan.json that was edited after it was written is not believed; its second copy counts."""
    source.samples(*keys(4))
    plan = made(source.plan(samples_per_shard=2))
    _change(source.dataset.plan(0) / "plan.json", old, new)
    assert load_plans(source.dataset) == (plan,)
    _change(source.dataset.plan(0) / "plan.copy.json", old, new)
    with pytest.raises(DamageError, match=r"plan\.json"):
        load_plans(source.dataset)
    with pytest.raises(DamageError):
        source.plan()


def test_changed_lines_are_refused(source: Source) -> None:
    """A shard whose lines were changed is refused; another shard's lines are not even read."""
    source.samples(*keys(4))
    plan = made(source.plan(samples_per_shard=2))
    path = source.dataset.plan(0) / "samples.jsonl"
    _change(path, b"train_4_a_1.npz", b"train_3_a_1.npz")
    assert [s.key for s in load_samples(source.dataset, plan, plan.shards[0])] == keys(2)
    with pytest.raises(DamageError, match="shard 1"):
        load_samples(source.dataset, plan, plan.shards[1])
    with path.open("ab") as stream:
        stream.write(b"\n")
    with pytest.raises(DamageError, match="another size"):
        check_size_of_samples(source.dataset, plan)
    path.unlink()
    assert load_plans(source.dataset) == (plan,)
    with pytest.raises(DamageError, match="missing"):
        load_samples(source.dataset, plan, plan.shards[0])


def test_a_changed_exclusion_is_refused(source: Source) -> None:
    """The list of what is excluded is checked like the samples."""
    source.samples("train_1_a_1")
    source.volume("train_2_a_1")
    plan = made(source.plan())
    path = source.dataset.plan(0) / "excluded.jsonl"
    _change(path, b"no_report", b"no_labels")
    with pytest.raises(DamageError, match="changed"):
        load_excluded(source.dataset, plan)
    path.unlink()
    with pytest.raises(DamageError, match="missing"):
        load_excluded(source.dataset, plan)


def test_generations_stand_in_a_row(source: Source) -> None:
    """A generation that is missing, or put in another's place, is found."""
    source.samples(*keys(120))
    source.plan(test_mode=True)
    source.plan()
    plans = source.dataset.plans
    (plans / ".0002.1234.partial").mkdir()  # what a killed planner leaves is no generation
    assert len(load_plans(source.dataset)) == 2
    (plans / "0000").rename(source.folder / "away")
    with pytest.raises(DamageError, match="missing"):
        load_plans(source.dataset)
    (plans / "0001").rename(plans / "0000")
    with pytest.raises(DamageError, match="generation"):
        load_plans(source.dataset)


def test_a_record_of_another_plan_tells_nothing(source: Source) -> None:
    """A record that does not belong to the plan is not taken for the fate of its samples."""
    source.samples("train_1_a_1")
    plan = made(source.plan())
    source.fail(plan.model_copy(update={"plan_id": "1" * 64}), "train_1_a_1")
    again = source.plan()
    assert again.plan is None
    assert again.already_planned == 1


def test_an_empty_directory_has_no_plans(tmp_path: Path) -> None:
    """A directory in which nothing was planned has no plans, and asking creates nothing."""
    assert load_plans(Dataset(tmp_path / "none")) == ()
    assert not (tmp_path / "none").exists()


# --- refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize(("choice", "value"), [("layout", "ctclip"), ("dtype", "float16")])
def test_a_dataset_has_one_format(source: Source, choice: str, value: str) -> None:
    """A later plan with another layout or type is refused; another directory is advised."""
    source.samples("train_1_a_1")
    source.plan()
    source.samples("train_2_a_1")
    with pytest.raises(RefusedError) as caught:
        source.plan(**{choice: value})
    assert caught.value.seen == value
    assert "another --output_dir" in str(caught.value.next_command)
    assert len(load_plans(source.dataset)) == 1


def test_a_trash_that_an_earlier_plan_would_not_use(source: Source) -> None:
    """It is refused, except in a retry, or where an approval answers for the earlier plans."""
    source.samples("train_1_a_1")
    source.plan(delete_source_files=True)
    source.samples("train_2_a_1")
    trash = source.folder / "trash"
    with pytest.raises(RefusedError, match="an earlier plan proposes to let sources go") as caught:
        source.plan(delete_source_files=True, trash=str(trash))
    assert (caught.value.seen, caught.value.expected) == ("no --trash", f"--trash {trash}")
    assert len(load_plans(source.dataset)) == 1
    settings = source.settings(delete_source_files=True, trash=str(trash))
    assert make_plan(source.dataset, settings, retry_failed=frozenset()).plan is None
    assert make_plan(source.dataset, settings, approve=lambda report, headers: None).plan


def test_foreign_shards_are_never_in_danger(source: Source) -> None:
    """A directory with shards of another making is refused, and nothing is written to it."""
    source.samples("train_1_a_1")
    source.dataset.out.mkdir()
    (source.dataset.out / "shard-000000.tar").write_bytes(b"precious")
    with pytest.raises(RefusedError, match="no plan here has made"):
        source.plan()
    assert files_below(source.dataset.out) == {"shard-000000.tar": b"precious"}


def test_shards_beyond_the_plan_are_refused(source: Source) -> None:
    """A tar or a record with a number that the next generation would use is refused."""
    source.samples("train_1_a_1")
    source.plan()
    source.samples("train_2_a_1")
    (source.dataset.out / "shard-000000.tar").write_bytes(b"our own")
    foreign = source.dataset.record(1)
    foreign.write_bytes(b"{}")
    with pytest.raises(RefusedError, match=r"shard-000001\.json"):
        source.plan()
    foreign.unlink()
    assert made(source.plan()).shards[0].index == 1


def test_a_plan_without_samples_explains_itself(source: Source) -> None:
    """Where names do not match, the error shows stems and VolumeNames side by side."""
    source.rows(*keys(2))
    source.volume("scan_0001")
    with pytest.raises(SettingsError) as caught:
        source.plan()
    error = caught.value
    for fact in ("1 NPZ", "scan_0001", "2 rows in reports.csv", "1 bad_name", "2 no_volume"):
        assert fact in str(error.seen)
    assert "train_1_a_1.npz" in str(error.expected)
    assert not source.dataset.out.exists(), "nothing was changed"


def test_the_data_folder_must_be_a_folder(source: Source) -> None:
    """A data folder that is missing, or a file, is named."""
    source.samples("train_1_a_1")
    settings = source.settings()
    for name, words in (("none", "missing"), ("reports.csv", "no folder")):
        wrong = settings.model_copy(update={"data_folder": str(source.folder / name)})
        with pytest.raises(SettingsError, match=words):
            make_plan(source.dataset, wrong)


def test_an_output_that_is_a_file_is_refused(source: Source) -> None:
    """An output directory that is a file is named, and left as it is."""
    source.samples("train_1_a_1")
    source.dataset.out.write_text("mine")
    with pytest.raises(SettingsError, match="is a file"):
        source.plan()
    assert source.dataset.out.read_text() == "mine"


def test_paths_in_the_plan_are_absolute(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan made with relative paths and through links is good in every working directory."""
    source.samples("train_1_a_1")
    settings = source.settings()
    (source.folder / "link").symlink_to(source.data)
    monkeypatch.chdir(source.folder)
    relative: Mapping[str, object] = {"data_folder": "link", "reports_file": "./reports.csv"}
    plan = made(make_plan(source.dataset, settings.model_copy(update=relative)))
    assert plan.settings.data_folder == str(source.data.resolve())
    assert plan.settings.reports_file == str((source.folder / "reports.csv").resolve())


def test_planning_loads_pandas_only_to_read_tables() -> None:
    """Workers read plans without loading pandas."""
    code = (
        "import sys, ctrate_convert.planning.make, ctrate_convert.synthetic;"
        "sys.exit('pandas' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_plan_is_readable_json(source: Source) -> None:
    """plan.json and the lists are JSON in UTF-8, one object a line in the lists."""
    source.samples(*keys(3))
    source.plan()
    folder = source.dataset.plan(0)
    assert json.loads((folder / "plan.json").read_bytes())["samples"] == 3
    lines = (folder / "samples.jsonl").read_bytes().splitlines()
    assert [json.loads(line)["key"] for line in lines] == keys(3)
