"""Every reader opens the shards: webdataset, tarfile with numpy, the original's own, and others."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctrate_convert.errors import ExitCode
from ctrate_convert.synthetic import METADATA_COLUMNS, SyntheticCtRate
from tests.support import (
    Array,
    Converted,
    convert_here,
    convert_words,
    load_original,
    read_dataset,
    run_here,
    same_voxels,
    strict_json,
)

Make = Callable[..., SyntheticCtRate]


def shard_paths(out: Path) -> list[str]:
    return [str(path) for path in sorted(out.glob("*.tar"))]


def decoded(out: Path) -> dict[str, dict[str, Any]]:
    """All samples as plain webdataset decodes them."""
    webdataset = pytest.importorskip("webdataset")
    samples = webdataset.WebDataset(shard_paths(out), shardshuffle=False).decode()
    return {sample["__key__"]: sample for sample in samples}


def undecoded(out: Path) -> dict[str, dict[str, bytes]]:
    webdataset = pytest.importorskip("webdataset")
    samples = webdataset.WebDataset(shard_paths(out), shardshuffle=False)
    return {sample["__key__"]: sample for sample in samples}


# --- Real volumes -----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class RealVolumes:
    """Real CT in place of the synthetic volumes, converted by the real command."""

    volumes: dict[str, Array]
    out: Path


def convert_real(
    real_ct: Path, made: SyntheticCtRate, out: Path, change: Callable[[Array], Array], *more: object
) -> RealVolumes:
    volumes = {}
    files = sorted(real_ct.glob("*.npz"))
    for key, path in zip(made.keys, files, strict=True):
        volumes[key] = change(load_original(path))
        np.savez(made.sources[key], data=volumes[key])
    done = run_here(*convert_words(made, out, *more))
    assert done.code == ExitCode.DONE, done.text
    return RealVolumes(volumes, out)


@pytest.fixture
def two(make_ctrate: Make, real_ct: Path) -> SyntheticCtRate:
    """A CT-RATE with as many volumes as there are real ones."""
    return make_ctrate(len(list(real_ct.glob("*.npz"))))


def test_real_volumes_bit_for_bit(real_ct: Path, two: SyntheticCtRate, tmp_path: Path) -> None:
    """Real int16 volumes come back bit for bit, by webdataset and by tarfile with numpy alone."""
    real = convert_real(real_ct, two, tmp_path / "out", lambda volume: volume)
    by_webdataset, by_tarfile = decoded(real.out), read_dataset(real.out)
    assert by_webdataset.keys() == by_tarfile.keys() == real.volumes.keys()
    for key, volume in real.volumes.items():
        assert volume.dtype == np.int16
        assert same_voxels(by_webdataset[key]["volume.npy"], volume)
        assert same_voxels(by_tarfile[key].volume, volume)
        assert by_tarfile[key].description["max_abs_error"] == 0.0
        assert by_tarfile[key].description["value_min"] == volume.min()
        assert by_tarfile[key].description["value_max"] == volume.max()


def test_real_volumes_as_floats(real_ct: Path, two: SyntheticCtRate, tmp_path: Path) -> None:
    """The same in HU/1000 as float32 come back within the error that is stated, voxel by voxel."""
    real = convert_real(
        real_ct, two, tmp_path / "out", lambda volume: volume.astype(np.float32) / 1000
    )
    by_webdataset, by_tarfile = decoded(real.out), read_dataset(real.out)
    for key, volume in real.volumes.items():
        half = by_tarfile[key].volume
        assert half.dtype == np.float16
        assert same_voxels(by_webdataset[key]["volume.npy"], half)
        assert same_voxels(half, volume.astype(np.float16))
        error = np.abs(half.astype(np.float64) - volume.astype(np.float64))
        assert error.max() == by_tarfile[key].description["max_abs_error"]
        assert (error <= np.abs(volume.astype(np.float64)) * 2**-11 + 2**-25).all()
        # Inside the window of ±1000 HU that training uses: a quarter of a HU.
        assert error[np.abs(volume) <= 1].max() <= 0.25 / 1000


def test_real_volumes_as_the_original_stored_them(
    real_ct: Path, two: SyntheticCtRate, tmp_path: Path
) -> None:
    """In the original's layout real volumes are float16 within the stated error, in HU."""
    real = convert_real(real_ct, two, tmp_path / "out", lambda volume: volume, "--layout", "ctclip")
    for key, sample in undecoded(real.out).items():
        fields = json.loads(sample["json"])
        volume = np.frombuffer(sample["bin"], np.float16).reshape(fields["volume_shape"])
        original = real.volumes[key]
        assert same_voxels(volume, original.astype(np.float16))
        error = np.abs(volume.astype(np.float64) - original)
        assert error.max() == fields["max_abs_error"]
        assert error[np.abs(original) <= 2048].max() == 0


# --- The original's loader --------------------------------------------------------------------


def test_the_original_training_code(make_ctrate: Make, tmp_path: Path) -> None:
    """Existing training code reads the four members just as it always did."""
    made = make_ctrate(8)
    converted = convert_here(
        made, tmp_path / "out", layout="ctclip", dtype="float16", samples_per_shard=3
    )
    plan_rows = table_rows(made)
    samples = undecoded(converted.out)
    assert samples.keys() == converted.originals.keys()
    for key, sample in samples.items():
        assert [name for name in sample if not name.startswith("__")] == [
            "bin", "json", "txt", "labels",
        ]  # fmt: skip
        study_id = json.loads(sample["json"])["study_id"]
        shape = json.loads(sample["json"])["volume_shape"]
        volume = np.frombuffer(sample["bin"], np.float16).reshape(*shape)
        text = sample["txt"].decode()
        labels = np.frombuffer(sample["labels"], np.float32)
        assert study_id == key
        assert same_voxels(volume, converted.originals[key].astype(np.float16))
        assert text == "\n".join(plan_rows[key]["report"])
        assert labels.shape == (18,)
        assert labels.tolist() == plan_rows[key]["labels"]


def test_the_fields_of_the_original(make_ctrate: Make, tmp_path: Path) -> None:
    """The JSON has the original's eight fields, under its names and with its types."""
    made = make_ctrate(4)
    converted = convert_here(made, tmp_path / "out", layout="ctclip", dtype="float16")
    rows = table_rows(made)
    for key, found in read_dataset(converted.out).items():
        fields = strict_json(found.members["json"])
        metadata = rows[key]["metadata"]
        assert fields["RescaleSlope"] == float(metadata["RescaleSlope"])
        assert fields["RescaleIntercept"] == float(metadata["RescaleIntercept"])
        assert fields["XYSpacing"] == metadata["XYSpacing"]
        assert fields["ZSpacing"] == float(metadata["ZSpacing"] or 0)
        assert fields["original_shape"] == list(converted.originals[key].shape)
        assert fields["volume_shape"] == list(converted.originals[key].shape)
        assert fields["volume_dtype"] == "float16"
        assert fields["study_id"] == key


def table_rows(made: SyntheticCtRate) -> dict[str, Any]:
    """The tables as the csv module alone reads them."""
    import csv

    def rows(path: Path) -> dict[str, list[str]]:
        with path.open(newline="", encoding="utf-8") as stream:
            return {row[0].removesuffix(".nii.gz"): row for row in csv.reader(stream)}

    reports, labels, metadata = map(rows, (made.reports_file, made.labels_file, made.meta_file))
    return {
        key: {
            "report": reports[key][3:5],
            "all_reports": reports[key][1:],
            "labels": [float(cell) for cell in labels[key][1:]],
            "metadata": dict(zip(METADATA_COLUMNS, metadata[key], strict=True)),
        }
        for key in made.keys
    }


# --- What a sample says of itself -------------------------------------------------------------


def test_everything_the_tables_know(converted: Converted) -> None:
    """Reports, labels by name and all 44 metadata columns are in the sample, verbatim."""
    rows = table_rows(converted.made)
    for key, found in read_dataset(converted.out).items():
        fields, row = found.description, rows[key]
        assert fields["key"] == key
        assert fields["volume_name"] == f"{key}.nii.gz"
        assert fields["metadata"] == row["metadata"]
        assert len(fields["metadata"]) == 44
        assert list(fields["report"].values()) == row["all_reports"]
        assert [float(value) for value in fields["labels"].values()] == row["labels"]
        assert found.members["report.txt"].decode() == "\n".join(row["report"])
        labels = np.load(io.BytesIO(found.members["labels.npy"]))
        assert labels.dtype == np.float32
        assert labels.tolist() == row["labels"]
        assert fields["source_name"] == f"{key}.npz"
        assert fields["source_array_key"] == converted.made.kinds[key]


def skeleton(value: object) -> object:
    """Keys and types, without the values."""
    if isinstance(value, dict):
        return {key: skeleton(item) for key, item in value.items()}
    if isinstance(value, list):
        kinds = {type(item).__name__ for item in value}
        assert len(kinds) <= 1
        return "list"
    assert value is not None
    return type(value).__name__


@pytest.mark.parametrize("layout", ["webdataset", "ctclip"])
def test_same_keys_and_types_in_all_samples(make_ctrate: Make, tmp_path: Path, layout: str) -> None:
    """All samples have one set of members and one set of JSON keys and types; nothing is null."""
    made = make_ctrate(12)
    dtype = "float16" if layout == "ctclip" else "auto"
    converted = convert_here(made, tmp_path / "out", layout=layout, dtype=dtype)
    found = read_dataset(converted.out)
    assert len(found) == 12
    assert len({tuple(sample.members) for sample in found.values()}) == 1
    shapes = [json.dumps(skeleton(sample.description)) for sample in found.values()]
    assert len(set(shapes)) == 1
    spacing = found[made.without_spacing].description["spacing_mm"]
    assert spacing == []
    others = [s.description["spacing_mm"] for k, s in found.items() if k != made.without_spacing]
    assert all(len(three) == 3 and all(type(n) is float for n in three) for three in others)


# --- The tar itself ---------------------------------------------------------------------------


def tar_headers(path: Path) -> list[bytes]:
    """The headers as they stand in the file, whatever a library makes of them."""
    data, headers, place = path.read_bytes(), [], 0
    while any(data[place : place + 512]):
        header = data[place : place + 512]
        headers.append(header)
        place += 512 + -(-int(header[124:135], 8) // 512) * 512
    assert not any(data[place:])
    assert len(data) - place >= 1024
    assert len(data) % tarfile.RECORDSIZE == 0
    return headers


@pytest.mark.parametrize("layout", ["webdataset", "ctclip"])
def test_pure_ustar(make_ctrate: Make, tmp_path: Path, layout: str) -> None:
    """Every header is plain ustar: no PAX, no time, no owner; names that every reader takes."""
    made = make_ctrate(8)
    dtype = "float16" if layout == "ctclip" else "auto"
    out = convert_here(made, tmp_path / "out", layout=layout, dtype=dtype).out
    for path in out.glob("*.tar"):
        for header in tar_headers(path):
            name = header[:100].rstrip(b"\0").decode("ascii")
            assert header[156:157] == b"0"
            assert header[257:265] == b"ustar\x0000"
            assert int(header[108:115], 8) == int(header[116:123], 8) == 0
            assert int(header[136:147], 8) == 0
            assert not any(header[345:])
            assert re.fullmatch(r"[A-Za-z0-9_-]+(\.[a-z]+){1,2}", name)


def test_members_of_a_sample_are_adjacent(converted: Converted) -> None:
    """The members of one sample stand together, in one order, and a key opens one group only."""
    for path in converted.out.glob("*.tar"):
        with tarfile.open(path) as archive:
            names = [name.partition(".") for name in archive.getnames()]
        keys = [key for key, _, _ in names]
        assert keys == [key for key in dict.fromkeys(keys) for _ in range(4)]
        order = ["volume.npy", "json", "report.txt", "labels.npy"]
        assert [extension for _, _, extension in names] == order * (len(names) // 4)


def test_plain_npy_headers(converted: Converted) -> None:
    """Arrays are npy 1.0, C order, little-endian, whatever their source was."""
    for found in read_dataset(converted.out).values():
        for extension in ("volume.npy", "labels.npy"):
            stream = io.BytesIO(found.members[extension])
            assert np.lib.format.read_magic(stream) == (1, 0)
            _, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
            assert not fortran_order
            assert dtype.byteorder in "<="
            assert stream.tell() % 64 == 0


def test_slices_at_their_recorded_offset(converted: Converted) -> None:
    """The record tells where an array's voxels lie, so that a slice is read without the rest."""
    for shard in (0, 1):
        for sample in converted.record(shard).converted:
            with converted.dataset.shard(shard).open("rb") as stream:
                stream.seek(sample.array.offset)
                version = np.lib.format.read_magic(stream)
                shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
                assert (version, shape) == ((1, 0), sample.array.shape)
                row_bytes = dtype.itemsize * shape[1] * shape[2]
                stream.seek(row_bytes, io.SEEK_CUR)
                second = np.frombuffer(stream.read(row_bytes), dtype).reshape(shape[1:])
            assert np.array_equal(second, converted.originals[sample.key][1].astype(dtype))


def test_nothing_else_that_a_reader_could_take(converted: Converted) -> None:
    """Beside the shards there are manifest and dataset card, and nothing else unhidden."""
    names = {path.name for path in converted.out.iterdir()}
    shards = {"shard-000000.tar", "shard-000001.tar"}
    assert names == {".run", "README.md", "manifest.json", *shards}


def test_same_bytes_each_time(make_ctrate: Make, tmp_path: Path) -> None:
    """Two runs give the same shards to the byte, wherever the data lie and whoever converts."""
    made = make_ctrate(8)
    moved = tmp_path / "moved"
    shutil.copytree(made.data_folder, moved)
    first, second = tmp_path / "first", tmp_path / "second"
    more = ("--samples_per_shard", 3, "--dtype", "float16")
    assert run_here(*convert_words(made, first, *more)).code == ExitCode.DONE
    there = dataclasses.replace(made, data_folder=moved)
    assert run_here(*convert_words(there, second, *more, "--num_workers", 1)).code == ExitCode.DONE
    shards = [path.name for path in sorted(first.glob("*.tar"))]
    assert len(shards) == 3
    for name in shards:
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_manifest_totals(converted: Converted) -> None:
    """The manifest has the original's six totals, in MiB and GiB, and they are the shards' own."""
    manifest = strict_json((converted.out / "manifest.json").read_bytes())
    size = sum(Path(path).stat().st_size for path in shard_paths(converted.out))
    assert manifest["num_shards"] == 2
    assert manifest["samples_per_shard"] == 4
    assert manifest["total_samples"] == 8
    assert manifest["total_size_mb"] == pytest.approx(size / 2**20, abs=1e-3)
    assert manifest["total_size_gb"] == pytest.approx(size / 2**30, abs=1e-6)
    assert manifest["average_sample_size_mb"] == pytest.approx(size / 2**20 / 8, abs=1e-3)


def test_own_dataset_card(converted: Converted) -> None:
    """A dataset card that a user wrote is left as it is."""
    card = converted.out / "README.md"
    assert "shard-*.tar" in card.read_text()
    card.write_text("mine")
    assert run_here("merge", converted.out).code == ExitCode.DONE
    assert card.read_text() == "mine"
