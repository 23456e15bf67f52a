"""Several outputs of one data folder: each deletes only what it holds, and says what is gone."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from ctrate_convert.errors import ExitCode
from ctrate_convert.synthetic import SyntheticCtRate
from tests.support import command, plan_words, read_dataset, run_cli, sources_left

Make = Callable[..., SyntheticCtRate]


def planned(made: SyntheticCtRate, out: Path, keys: list[str]) -> Path:
    """A plan of these volumes alone, of which each proposes to delete its source."""
    names = out.with_suffix(".txt")
    names.write_text("\n".join(keys) + "\n")
    words = plan_words(made, out, "--probe", 0, "--keep_file", names, "--samples_per_shard", 2)
    done = run_cli(*words, "--delete_source_files")
    assert done.code == ExitCode.DONE, done.text
    return out


def test_two_outputs_of_one_folder_run_at_once(make_ctrate: Make, tmp_path: Path) -> None:
    """Disjoint lists on two disks: both delete their own sources, neither touches the other's."""
    made = make_ctrate(8, faults=())
    keys = sorted(made.keys)
    outs = [planned(made, tmp_path / "one", keys[:4]), planned(made, tmp_path / "two", keys[4:])]
    runs = [
        subprocess.Popen(command("run", out, "--yes"), stdin=subprocess.DEVNULL) for out in outs
    ]
    assert [one.wait(120) for one in runs] == [ExitCode.DONE, ExitCode.DONE]
    assert not sources_left(made)
    assert [sorted(read_dataset(out)) for out in outs] == [keys[:4], keys[4:]]
    for out in outs:
        audited = run_cli("audit", out, "--json").json()["summary"]
        assert (audited["deleted_sources"], audited["findings"]) == (4, 0)


def test_a_volume_of_two_outputs_is_deleted_by_one(make_ctrate: Make, tmp_path: Path) -> None:
    """Both hold it whole; the second one says that its source is gone, and not by itself."""
    made = make_ctrate(4, faults=())
    keys = sorted(made.keys)
    one = planned(made, tmp_path / "one", keys)
    two = planned(made, tmp_path / "two", keys[:2])
    assert run_cli("run", two, "--keep_source_files").code == ExitCode.DONE
    assert run_cli("run", one, "--yes").code == ExitCode.DONE
    assert not sources_left(made)
    left = run_cli("delete", two, "--dry_run", "--json").json()
    mine = [source for source in left["sources"] if source["key"] in keys[:2]]
    assert [source["state"] for source in mine] == ["gone", "gone"]
    assert read_dataset(two).keys() == set(keys[:2])
    assert run_cli("verify", two, "--full").code == ExitCode.DONE


def test_a_source_that_another_output_deletes_first(make_ctrate: Make, tmp_path: Path) -> None:
    """The one that comes too late loses that sample alone, and says so."""
    made = make_ctrate(4, faults=())
    keys = sorted(made.keys)
    one = planned(made, tmp_path / "one", keys[:2])
    two = planned(made, tmp_path / "two", keys)
    assert run_cli("run", one, "--yes").code == ExitCode.DONE
    late = run_cli("run", two, "--yes")
    assert late.code == ExitCode.SAMPLES_FAILED
    assert read_dataset(two).keys() == set(keys[2:])
    assert not sources_left(made)
    assert read_dataset(one).keys() == set(keys[:2])
