"""The benchmarks run: on tiny volumes, and whatever the figures are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import conversion, memory, prediction, reading, report
from benchmarks.measure import Cost, ratios
from benchmarks.volumes import REAL_CT_VARIABLE, SourceKind, Volume, make

TINY = (16, 12, 10)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quick mode with volumes that cost nothing, the same with and without real voxels."""
    monkeypatch.setenv(REAL_CT_VARIABLE, "/nowhere")
    monkeypatch.setattr(conversion, "QUICK", conversion.Size(TINY, rounds=1))
    monkeypatch.setattr(prediction, "QUICK", conversion.Size(TINY, rounds=1))
    monkeypatch.setattr(reading, "QUICK", conversion.Size(TINY, rounds=1))
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


def test_results_are_written_only_from_a_whole_run(tiny: None, tmp_path: Path) -> None:
    """A quick run or a single suite is refused the file."""
    for arguments in (["all", "--quick", "--write"], ["limits", "--write"]):
        with pytest.raises(SystemExit):
            command.main([*arguments, "--work", str(tmp_path)])


def test_results_hold_every_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """RESULTS.md has the machine, the versions, and each table with its notes."""
    monkeypatch.setattr(report, "RESULTS", tmp_path / "RESULTS.md")
    table = report.Table("Speed", ["what", "ratio"], [["all", "2.00×"]], ["by CPU"])
    report.write_results([table], ["a fact"], "the command")
    text = report.RESULTS.read_text(encoding="utf-8")
    for piece in ("numpy", "a fact", "the command", "## Speed", "| all | 2.00× |", "- by CPU"):
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
