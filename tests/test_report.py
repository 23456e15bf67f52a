"""After a run, promise and fact stand side by side, and the facts are those on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ctrate_convert.operations.report import report
from ctrate_convert.paths import Dataset
from ctrate_convert.synthetic import SyntheticCtRate
from tests.support import DELETE, Finished, convert_here, convert_words, plan_words, run_here

Make = Callable[..., SyntheticCtRate]


def test_sums_are_those_of_the_shards_on_disk(make_ctrate: Make, tmp_path: Path) -> None:
    """Bytes in and out, errors and scales come from records, predictions from the plan."""
    done = convert_here(
        make_ctrate(8, shape=(32, 32, 16)),
        tmp_path / "out",
        samples_per_shard=3,
        encoding="b2nd",
        probe=None,
    )
    found = report(done.dataset)
    tars = sorted(done.out.glob("*.tar"))
    assert [shard.output_bytes for shard in found.shards] == [p.stat().st_size for p in tars]
    assert [shard.samples for shard in found.shards] == [3, 3, 2]
    assert found.total("predicted_bytes") == done.plan.estimate.output_bytes
    assert found.total("source_bytes") == done.plan.estimate.source_bytes
    assert found.total("array_bytes") == sum(array.nbytes for array in done.originals.values())
    assert done.plan.probe is not None
    assert found.total("predicted_cpu_s") == pytest.approx(done.plan.probe.chosen.cpu_s)
    assert found.max_error_hu == found.predicted_max_error_hu  # every volume was probed
    assert found.intensities == found.predicted_intensities
    assert sum(found.intensities.values()) == 8


def test_without_a_probe_what_was_not_promised_is_not_compared(
    ctrate: SyntheticCtRate, tmp_path: Path
) -> None:
    """Bytes of the encoding npy follow from headers; speed and error do not."""
    done = convert_here(ctrate, tmp_path / "out", samples_per_shard=4)
    found = report(done.dataset)
    assert found.total("predicted_bytes") == found.total("output_bytes")
    assert found.total("predicted_cpu_s") is None
    assert found.predicted_max_error_hu is None
    assert "not probed" in run_here("report", done.out).stdout


def test_failed_and_deleted_sources_are_named_and_summed(
    cli: Callable[..., Finished], make_ctrate: Make, tmp_path: Path
) -> None:
    """The real command after a run that deleted what it had proven."""
    made = make_ctrate(8, faults=("corrupt",))
    (broken,) = (key for key, fault in made.faults.items() if fault == "corrupt")
    sizes = {key: path.stat().st_size for key, path in made.sources.items()}
    out = tmp_path / "out"
    assert cli(*convert_words(made, out, "--samples_per_shard", 4, *DELETE)).code == 2
    done = cli("report", out)
    assert done.code == 0
    assert "2 of 2 shards done, with 7 samples." in done.stdout
    assert f"failed, source kept: {broken}: CRC-32 wrong" in done.stdout
    assert "Deleted 7 source files" in done.stdout
    facts = run_here("report", out, "--json").json()
    assert facts["freed_bytes"] == sum(sizes.values()) - sizes[broken]
    assert [failure["key"] for failure in facts["failed"]] == [broken]
    assert facts["attempts"]["ended"] == {"done": 1}
    assert facts["total"]["output_bytes"] == sum(p.stat().st_size for p in out.glob("*.tar"))
    assert facts["total"]["cpu_s"] > 0


def test_before_the_first_shard_there_is_nothing_to_compare(
    ctrate: SyntheticCtRate, tmp_path: Path
) -> None:
    """Nor is that an error; without a plan it is one."""
    out = tmp_path / "out"
    assert run_here("report", out).code == 1
    run_here(*plan_words(ctrate, out))
    done = run_here("report", out)
    assert (done.code, done.stdout) == (
        0,
        "0 of 1 shard done, with 0 samples.\nNothing to compare yet.\n",
    )
    assert not report(Dataset(out)).shards
