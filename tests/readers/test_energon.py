"""Megatron-Energon, with what ``export --index energon`` writes in place of ``energon prepare``."""

from __future__ import annotations

import itertools
import json
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ctrate_convert.errors import ExitCode
from tests.readers.conftest import ENCODINGS, Convert
from tests.readers.documented import run_lines
from tests.readers.originals import Given, assert_all_there
from tests.support import repair_without_a_source, run_here
from tests.unit.reading.test_readers import table_rows

energon = pytest.importorskip(
    "megatron.energon", reason="megatron-energon is not installed", exc_type=ImportError
)


def all_given(names: dict[str, Any]) -> list[Given]:
    """One pass over a dataset of the documented encoder, which training would repeat for ever."""
    dataset = energon.get_val_dataset(
        "for-energon",
        split_part="train",
        batch_size=None,
        task_encoder=names["Encoder"](),
        worker_config=energon.WorkerConfig(rank=0, world_size=1, num_workers=0),
    )
    return [
        Given(one.__key__, one.array, one.labels, one.report, one.json)
        for one in energon.get_loader(dataset)
    ]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_sample(convert: Convert, encoding: str) -> None:
    converted = convert(encoding, index="energon")
    assert_all_there(converted, all_given(run_lines("Megatron-Energon", importable=True)))


def test_the_training_dataset(convert: Convert) -> None:
    """The documented loader with its two workers: every sample once an epoch, and no end."""
    converted = convert(index="energon")
    loader = run_lines("Megatron-Energon", importable=True)["loader"]
    keys = [sample.__key__ for sample in itertools.islice(loader, 24)]
    assert Counter(keys) == dict.fromkeys(converted.originals, 3)


def test_what_energon_prepare_would_write(convert: Convert, tmp_path: Path) -> None:
    """The same offsets byte for byte, the same rows in the database, the same settings."""
    converted = convert(index="energon")
    theirs, ours = tmp_path / "theirs", tmp_path / "for-energon"
    theirs.mkdir()
    for shard in converted.out.glob("*.tar"):
        shutil.copy(shard, theirs)
    subprocess.run(
        [
            Path(sys.executable).with_name("energon"), "prepare", theirs, "--non-interactive",
            "--split-ratio", "1,0,0", "--sample-type", "CrudeWebdataset", "--num-workers", "1",
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    for path in theirs.glob("*.idx"):
        assert (ours / path.name).read_bytes() == path.read_bytes()
    assert len(list(theirs.glob("*.idx"))) == 3
    name = ".nv-meta/dataset.yaml"
    assert (ours / name).read_bytes() == (theirs / name).read_bytes()
    name = ".nv-meta/.info.json"
    counts = [json.loads((one / name).read_text())["shard_counts"] for one in (ours, theirs)]
    assert counts[0] == counts[1]
    rows = []
    for one in (ours, theirs):
        with sqlite3.connect(one / ".nv-meta" / "index.sqlite") as database:
            rows.append(
                [
                    set(database.execute(f"SELECT * FROM {table}"))
                    for table in ("samples", "sample_parts")
                ]
            )
        database.close()
    assert rows[0] == rows[1]


def test_a_sample_by_its_key(convert: Convert) -> None:
    """The database serves energon's random access."""
    from megatron.energon.cache.file_store import WebdatasetFileStore
    from megatron.energon.epathlib import EPath

    converted = convert(index="energon")
    store = WebdatasetFileStore(EPath(str(Path("for-energon").resolve())))
    for key, row in table_rows(converted.made).items():
        data, _ = store[f"{key}.report.txt"]
        assert data == "\n".join(row["report"]).encode()


def test_superseded_copies_are_left_out(convert: Convert) -> None:
    """After a repair every sample still comes once, and sound."""
    converted = convert(index="energon")
    repair_without_a_source(converted)
    assert converted.dataset.shard(3).exists()
    done = run_here("export", converted.out, "for-energon", "--index", "energon")
    assert done.code == ExitCode.DONE, done.text
    found = all_given(run_lines("Megatron-Energon", importable=True))
    assert sorted(one.key for one in found) == sorted(converted.originals)
