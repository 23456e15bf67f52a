"""The synthetic CT-RATE has the real one's names, columns and oddities, and plans as it should."""

from __future__ import annotations

import csv
import hashlib
import zipfile
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from ctrate_convert.errors import SampleError
from ctrate_convert.formats.members import LABEL_NAMES, REPORT_FIELDS
from ctrate_convert.formats.names import parse_key
from ctrate_convert.planning.make import load_samples, make_plan
from ctrate_convert.sources.kinds import read_array_header
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.records.plan import PlanSettings
from ctrate_convert.synthetic import (
    METADATA_COLUMNS,
    Fault,
    Layout,
    SyntheticCtRate,
    chest_phantom,
    write_synthetic_ctrate,
)


def settings_for(ctrate: SyntheticCtRate) -> PlanSettings:
    return PlanSettings(
        data_folder=str(ctrate.data_folder),
        reports_file=str(ctrate.reports_file),
        meta_file=str(ctrate.meta_file),
        labels_file=str(ctrate.labels_file),
        exclude_file=(str(ctrate.exclude_file),),
        samples_per_shard=4,
        probe=0,
    )


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    """Two writes with one seed are equal byte for byte; another seed gives other patients."""
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_synthetic_ctrate(tmp_path / name, seed=seed, faults=get_args(Fault))
    first, second, third = (digests(tmp_path / name) for name in "abc")
    assert first == second
    assert first != third


def test_tables_have_ct_rates_columns(tmp_path: Path) -> None:
    """Columns, their order, line ends and file names are CT-RATE's, for both splits."""
    train = write_synthetic_ctrate(tmp_path / "train", samples=3, shape=(8, 8, 4))
    valid = write_synthetic_ctrate(tmp_path / "valid", samples=3, shape=(8, 8, 4), split="valid")
    assert [train.reports_file.name, train.labels_file.name, train.meta_file.name] == [
        "train_reports.csv",
        "train_predicted_labels.csv",
        "train_metadata.csv",
    ]
    assert [valid.reports_file.name, valid.labels_file.name, valid.meta_file.name] == [
        "validation_reports.csv",
        "valid_predicted_labels.csv",
        "validation_metadata.csv",
    ]
    assert tuple(rows_of(train.reports_file)[0]) == ("VolumeName", *REPORT_FIELDS)
    assert tuple(rows_of(train.labels_file)[0]) == ("VolumeName", *LABEL_NAMES)
    assert tuple(rows_of(train.meta_file)[0]) == METADATA_COLUMNS
    assert len(METADATA_COLUMNS) == 44
    assert b"\r\n" in train.meta_file.read_bytes()
    assert b"\r\n" not in train.reports_file.read_bytes()


def test_tables_have_ct_rates_oddities(tmp_path: Path) -> None:
    """Empty cells, commas in texts, both intercepts, spacing as a text, a row without a volume."""
    ctrate = write_synthetic_ctrate(tmp_path, samples=40, shape=(8, 8, 4))
    metadata = {row["VolumeName"]: row for row in rows_of(ctrate.meta_file)}
    reports = rows_of(ctrate.reports_file)
    assert {row["RescaleIntercept"] for row in metadata.values()} == {"-1024", "-8192"}
    assert {row["RescaleType"] for row in metadata.values()} == {"HU", ""}
    assert all(row["XYSpacing"].startswith("[") for row in metadata.values())
    assert all(row["PatientAge"].endswith("Y") for row in metadata.values())
    assert metadata[f"{ctrate.without_spacing}.nii.gz"]["ZSpacing"] == ""
    assert {row["ClinicalInformation_EN"] for row in reports} >= {"", "Not given."}
    assert any("," in row["Findings_EN"] and '"' in row["Findings_EN"] for row in reports)
    assert f"{ctrate.without_volume}.nii.gz" in metadata
    assert ctrate.without_volume not in ctrate.sources
    names = [parse_key(key) for key in ctrate.keys]
    assert all(names)
    assert any(name.reconstruction > 1 for name in names if name)
    assert any(name.scan == "b" for name in names if name)


def test_reconstructions_of_a_scan_share_their_report(tmp_path: Path) -> None:
    """All reconstructions of one scan have the same report and the same labels."""
    ctrate = write_synthetic_ctrate(tmp_path, samples=30, shape=(8, 8, 4))
    for path in (ctrate.reports_file, ctrate.labels_file):
        by_scan: dict[str, set[tuple[str, ...]]] = {}
        for row in rows_of(path):
            scan = row.pop("VolumeName").rpartition("_")[0]
            by_scan.setdefault(scan, set()).add(tuple(row.values()))
        assert len(by_scan) < 30
        assert all(len(texts) == 1 for texts in by_scan.values())


def test_each_kind_is_stored_as_ct_rates_sources_are(tmp_path: Path) -> None:
    """The four kinds differ in key, type, axis order, memory order and compression."""
    ctrate = write_synthetic_ctrate(tmp_path, samples=4, shape=(32, 24, 8))
    headers = {kind: read_array_header(ctrate.sources[key]) for key, kind in ctrate.kinds.items()}
    assert {kind: (h.array_key, h.dtype, h.shape) for kind, h in headers.items()} == {
        "volume": ("volume", "<i2", (32, 24, 8)),
        "arr_0": ("arr_0", "<f4", (8, 32, 24)),
        "data": ("data", "<i2", (32, 24, 8)),
        "arr": ("arr", "<i2", (32, 24, 8)),
    }
    assert {kind for kind, h in headers.items() if h.fortran_order} == {"arr"}
    assert {kind for kind, h in headers.items() if h.compression == "stored"} == {"data"}


def test_voxels_tell_what_unit_they_are_in(tmp_path: Path) -> None:
    """Air is near -1000 in HU, near -1 in scaled floats, and above 0 before slope and intercept."""
    ctrate = write_synthetic_ctrate(tmp_path, samples=8)
    intercepts = {
        row["VolumeName"].removesuffix(".nii.gz"): int(row["RescaleIntercept"])
        for row in rows_of(ctrate.meta_file)
    }
    for key, kind in ctrate.kinds.items():
        with np.load(ctrate.sources[key]) as archive:
            array = archive[kind]
            assert set(archive.files) - {kind} == ({"metadata"} if kind == "volume" else set())
        corner = float(np.median(array[:, 32, 0] if kind == "arr_0" else array[0, 32]))
        air = {"arr_0": -1.0, "data": -1000 - intercepts[key]}.get(kind, -1000)
        assert corner == pytest.approx(air, abs=0.03 if kind == "arr_0" else 30)


def test_the_phantom_compresses_like_a_chest() -> None:
    """Body, lungs and noise are in proportion: deflate wins about as much as on a real scan."""
    import zlib

    volume = chest_phantom((256, 256, 8), np.random.default_rng(0))
    ratio = volume.nbytes / len(zlib.compress(volume.tobytes(), 6))
    assert 2.0 < ratio < 3.0
    assert volume.min() == -1024
    lungs = np.count_nonzero((volume > -950) & (volume < -700)) / volume.size
    assert 0.1 < lungs < 0.4


def test_every_fault_is_found_by_its_name(tmp_path: Path) -> None:
    """Planning excludes three of the faults by their reasons; the corrupt one looks well."""
    ctrate = write_synthetic_ctrate(tmp_path / "ct", faults=get_args(Fault))
    report = make_plan(Dataset(tmp_path / "out"), settings_for(ctrate))
    key_of = {fault: key for key, fault in ctrate.faults.items()}
    assert {sample.key: sample.reason for sample in report.excluded} == {
        key_of["no_report"]: "no_report",
        key_of["excluded"]: "on_exclusion_list",
        key_of["duplicate"]: "duplicate_volume",
        ctrate.without_volume: "no_volume",
    }
    plan = report.plan
    assert plan is not None
    planned = [
        sample.key
        for shard in plan.shards
        for sample in load_samples(Dataset(tmp_path / "out"), plan, shard)
    ]
    sound = [key for key in ctrate.keys if ctrate.faults.get(key, "corrupt") == "corrupt"]
    assert planned == sound
    with (
        zipfile.ZipFile(ctrate.sources[key_of["corrupt"]]) as archive,
        pytest.raises(zipfile.BadZipFile, match="CRC-32"),
    ):
        archive.read("data.npy")


@pytest.mark.parametrize("layout", get_args(Layout))
def test_every_folder_layout_gives_the_same_plan(tmp_path: Path, layout: Layout) -> None:
    """The folders differ, the stems do not, so the planned samples are the same."""
    ctrate = write_synthetic_ctrate(tmp_path / "ct", layout=layout, shape=(8, 8, 4))
    report = make_plan(Dataset(tmp_path / "out"), settings_for(ctrate))
    assert report.plan is not None
    assert report.plan.samples == len(ctrate.keys) == 12
    parents = {path.parent.name for path in ctrate.sources.values()}
    example = {"nested": "train_1_a", "nested_joined": "train_1a", "flat": "npz"}[layout]
    assert example in parents


def test_more_faults_than_samples_are_refused(tmp_path: Path) -> None:
    """Each fault needs a sample of its own."""
    with pytest.raises(ValueError, match="as many samples"):
        write_synthetic_ctrate(tmp_path, samples=1, faults=get_args(Fault))


def test_sound_volumes_have_readable_headers(tmp_path: Path) -> None:
    """Every volume can be opened, the corrupt one too: its damage is in the data."""
    ctrate = write_synthetic_ctrate(tmp_path, shape=(8, 8, 4), faults=("corrupt",))
    for path in ctrate.sources.values():
        try:
            read_array_header(path)
        except SampleError as error:  # pragma: no cover
            pytest.fail(str(error))
