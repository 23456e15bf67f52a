"""The benchmarks run: on tiny volumes, and whatever the figures are."""

from __future__ import annotations

from pathlib import Path

import blosc2
import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import (
    alternatives,
    conversion,
    deletion,
    memory,
    nifti,
    prediction,
    probing,
    reading,
    report,
    scale,
    scaling,
    size,
    torch_workers,
    views,
)
from benchmarks.measure import Cost, ratios
from benchmarks.report import Target
from benchmarks.volumes import REAL_CT_VARIABLE, SourceKind, Volume, make
from ctrate_convert.synthetic import chest_phantom

TINY = (16, 12, 10)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quick mode with volumes that cost nothing, the same with and without real voxels."""
    monkeypatch.setenv(REAL_CT_VARIABLE, "/nowhere")
    monkeypatch.setattr(conversion, "QUICK", conversion.Size(TINY, rounds=1))
    monkeypatch.setattr(deletion, "QUICK", conversion.Size(TINY, rounds=1))
    monkeypatch.setattr(nifti, "QUICK", nifti.Size(TINY, TINY, rounds=1))
    monkeypatch.setattr(prediction, "QUICK", conversion.Size(TINY, rounds=1))
    monkeypatch.setattr(probing, "QUICK", conversion.Size(TINY, rounds=1))
    monkeypatch.setattr(reading, "QUICK", conversion.Size(TINY, rounds=1))
    monkeypatch.setattr(torch_workers, "QUICK", conversion.Size(TINY, rounds=1))
    monkeypatch.setattr(views, "QUICK", conversion.Size(TINY, rounds=1))
    monkeypatch.setattr(scaling, "QUICK", conversion.Size(TINY, rounds=1))
    monkeypatch.setattr(scaling, "_TOUCHED_BYTES", 2**20)
    monkeypatch.setattr(scale, "QUICK", scale.Sizes((3,), (100,), (6,), (2,)))
    monkeypatch.setattr(alternatives, "QUICK_ROUNDS", 1)
    monkeypatch.setattr(size, "QUICK_ROUNDS", 1)
    monkeypatch.setattr(memory, "QUICK", memory.Sizes(TINY, TINY))


@pytest.mark.parametrize("suite", sorted(command.SUITES))
def test_each_suite_prints_its_tables(
    suite: str, tiny: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Quick mode of every suite runs to its end and leaves nothing but the volumes."""
    work = tmp_path / "work"
    command.main([suite, "--quick", "--work", str(work)])
    printed = capsys.readouterr().out
    assert "float32" in printed
    assert "a synthetic chest" in printed
    assert {path.name for path in work.iterdir()} <= {"volumes"}


@pytest.mark.parametrize("suite", ["all", "limits"])
def test_results_are_written_only_from_a_run_at_full_size(
    suite: str, tiny: None, tmp_path: Path
) -> None:
    """A quick run is refused the file."""
    with pytest.raises(SystemExit):
        command.main([suite, "--quick", "--write", "--work", str(tmp_path)])


def test_results_of_one_suite_have_a_file_of_their_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What a whole run wrote stays."""
    monkeypatch.setattr(report, "RESULTS", tmp_path / "RESULTS.md")
    report.write_results([report.Table("Speed", ["what"], [["all"]], [])], ["a fact"], "limits")
    assert [path.name for path in tmp_path.iterdir()] == ["RESULTS-limits.md"]
    text = (tmp_path / "RESULTS-limits.md").read_text(encoding="utf-8")
    assert "Written by `python -m benchmarks limits --write`" in text


def test_results_hold_every_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """RESULTS.md has the machine, the versions, and each table with its notes."""
    monkeypatch.setattr(report, "RESULTS", tmp_path / "RESULTS.md")
    table = report.Table("Speed", ["what", "ratio"], [["all", "2.00×"]], ["by CPU"])
    report.write_results([table], ["a fact"], "all")
    text = report.RESULTS.read_text(encoding="utf-8")
    command_line = "python -m benchmarks all --write"
    for piece in ("numpy", "a fact", command_line, "## Speed", "| all | 2.00× |", "- by CPU"):
        assert piece in text


@pytest.mark.parametrize("fortran", [False, True])
def test_volumes_hold_the_same_voxels_in_every_way(fortran: bool, tmp_path: Path) -> None:
    """Order and compression change the file, not the voxels; numpy reads them all."""
    ways = [
        Volume(SourceKind("int16", deflated, fortran), TINY, seed=3) for deflated in (True, False)
    ]
    arrays = [np.load(path)["data"] for path in make(ways, tmp_path)]
    assert all(array.shape == TINY and array.flags.f_contiguous == fortran for array in arrays)
    assert np.array_equal(*arrays)


def test_a_ratio_is_the_median_over_rounds() -> None:
    """Rounds are compared one by one, so that a slow round of both changes nothing."""
    slow_machine = [Cost(2.0, 0), Cost(20.0, 0), Cost(3.0, 0)]
    assert ratios(slow_machine, [Cost(1.0, 0), Cost(10.0, 0), Cost(1.0, 0)]).median == 2.0


@pytest.mark.parametrize(
    ("target", "seen", "note"),
    [
        (Target("a crop", low=15), 31.55, "a crop: ≥ 15.00× is asked, 31.55×: reached"),
        (Target("a crop", low=15), 14.9, "a crop: ≥ 15.00× is asked, 14.90×: NOT reached"),
        (
            Target("peak", high=150, unit=" MiB"),
            1050,
            "peak: ≤ 150 MiB is asked, 1,050 MiB: NOT reached",
        ),
        (Target("bytes", 0.95, 1.05), 1.05, "bytes: 0.95× to 1.05× is asked, 1.05×: reached"),
    ],
)
def test_a_target_tells_what_is_asked_and_what_was_seen(
    target: Target, seen: float, note: str
) -> None:
    """The verdict stands next to both figures."""
    assert target.note(seen) == note


def test_targets_belong_to_what_is_measured() -> None:
    """Each target names a row that its suite has."""
    for kind, encoding in conversion._TARGETS:
        assert kind in conversion.KINDS
        assert encoding in [one.encoding for one in conversion.candidates(kind)]


@pytest.mark.parametrize("shape", [(33, 70, 41), (80, 512, 130)])
def test_the_first_alternative_is_what_b2nd_writes(
    shape: tuple[int, int, int], tmp_path: Path
) -> None:
    """Chunks, blocks, codec, filters, and the size to the byte."""
    hu = chest_phantom(shape, np.random.default_rng(0))
    way = size.Way("b2nd")
    member = size.write_member(tmp_path, way, hu)
    written = blosc2.open(str(size._path(tmp_path, way)), mode="r", offset=member.offset)
    ours = alternatives.OURS.encode(hu)
    assert (written.chunks, written.blocks) == (ours.chunks, ours.blocks)
    assert written.schunk.cbytes == ours.schunk.cbytes
    for name in ("codec", "clevel", "filters", "splitmode"):
        assert getattr(written.cparams, name) == getattr(ours.cparams, name)


def test_scaling_leaves_nothing_in_memory(
    tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder is removed where a turn fails, too."""

    def fail(*_: object) -> None:
        raise RuntimeError("a failing turn")

    shared = tmp_path / "shared"
    shared.mkdir()
    monkeypatch.setattr(scaling, "_MEMORY", shared)
    monkeypatch.setattr(scaling, "_turn", fail)
    with pytest.raises(RuntimeError, match="a failing turn"):
        scaling.table(tmp_path / "work", scaling.QUICK)
    assert not list(shared.iterdir())
