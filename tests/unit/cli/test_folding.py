"""Equal reasons share a line, and the commands tell them so."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ctrate_convert.cli import folding
from ctrate_convert.cli.folding import by_reason, folded, folded_notes, same_error
from ctrate_convert.errors import EnvironmentProblem, ExitCode
from ctrate_convert.synthetic import SyntheticCtRate
from tests.support import Converted, convert_words, run_here

Make = Callable[..., SyntheticCtRate]


def test_reasons_are_equal_apart_from_names_and_the_time_of_day() -> None:
    told = [
        ("train_1_a_1", "cannot read /data/train_1/train_1_a/train_1_a_1.npz, 2026-11-27T08:00:01"),
        ("train_2_b_1", "cannot read /data/train_2/train_2_b/train_2_b_1.npz, 2026-11-27T09:30:00"),
        ("train_3_a_1", "cannot read /data/train_3/train_3_a/train_3_a_1.npz, 2026-11-28T08:00:01"),
        ("train_4_a_1", "13 bytes are missing"),
        ("train_5_a_1", "14 bytes are missing"),
    ]
    assert [len(group) for group in by_reason(told)] == [2, 1, 1, 1]


def test_twelve_share_a_line_and_eleven_do_not() -> None:
    few = [(f"train_{at}_a_1", "no array") for at in range(11)]
    assert list(folded("kept", few, "file")) == [f"  kept: {key}: no array" for key, _ in few]
    many = [*few, ("train_11_a_1", "no array")]
    assert list(folded("kept", many, "file")) == ["  kept: 12 files, such as train_0_a_1: no array"]
    notes = [*(f"{key}: {why}" for key, why in many), "a folder is gone: why"]
    assert list(folded_notes(notes)) == ["train_0_a_1 and 11 more: no array", notes[-1]]


def test_errors_of_shards_are_equal_apart_from_the_shard() -> None:
    one, other = (EnvironmentProblem(f"no space left, writing shard {at}") for at in (3, 14))
    assert same_error(one) == same_error(other)
    assert same_error(one) != same_error(EnvironmentProblem("no space left, reading shard 3"))


def test_twenty_volumes_that_fail_alike_are_one_line(make_ctrate: Make, tmp_path: Path) -> None:
    made = make_ctrate(20, kinds=("data",))
    for path in made.sources.values():
        path.write_bytes(b"no zip at all")
    done = run_here(*convert_words(made, tmp_path / "out", "--probe", 0))
    assert done.code == ExitCode.SAMPLES_FAILED
    lines = [line for line in done.stdout.splitlines() if "failed, source kept" in line]
    assert len(lines) == 1, done.stdout
    assert lines[0].startswith("  failed, source kept: 20 samples, such as train_")


def test_a_damaged_shard_is_one_line_unless_details_are_asked_for(converted: Converted) -> None:
    path = converted.dataset.shard(0)
    data = bytearray(path.read_bytes())
    samples = converted.record().converted
    for sample in samples:
        data[sample.array.offset + sample.array.size_bytes - 1] ^= 1
    path.write_bytes(data)
    short = run_here("verify", converted.out, "--full")
    assert short.code == ExitCode.DAMAGE
    named = [line for line in short.stdout.splitlines() if line.startswith(f"  {path.name}")]
    assert len(named) == 1
    assert re.match(rf"  {path.name}: {2 * len(samples)} findings: train_", named[0])
    details = run_here("verify", converted.out, "--full", "--details").stdout
    for sample in samples:
        assert f"  {path.name}, {sample.key}: " in details


def test_restored_sources_share_a_line(
    converted: Converted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `restore` brought back is kept, and `delete` says when, in one line."""
    monkeypatch.setattr(folding, "_FROM", 4)
    trash = converted.made.data_folder.parent / "trash"
    assert run_here("delete", converted.out, "--yes", "--trash", trash).code == ExitCode.DONE
    assert run_here("restore", converted.out).code == ExitCode.DONE
    number = len(converted.made.sources)
    for words, code in ((["--dry_run"], ExitCode.DONE), (["--yes"], ExitCode.REFUSED)):
        done = run_here("delete", converted.out, *words)
        assert done.code == code
        kept = [line for line in done.stdout.splitlines() if line.startswith("  kept: ")]
        assert len(kept) == 1
        assert re.fullmatch(
            rf"  kept: {number} files, such as \S+ — restored from the trash, 20\d\d-\d\d-\d\d",
            kept[0],
        )
