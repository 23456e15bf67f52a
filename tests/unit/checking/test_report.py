"""After a run, promise and fact stand side by side, and the facts are those on disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ctrate_convert.checking.report import report
from ctrate_convert.checking.timeline import Freed, Span, most_workers, peak_extra_bytes, wall_s
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import Ledger
from ctrate_convert.synthetic import SyntheticCtRate
from tests.support import (
    DELETE,
    Converted,
    Finished,
    convert_here,
    convert_words,
    plan_words,
    run_here,
)

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
    found = report(Ledger.load(done.dataset))
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
    found = report(Ledger.load(done.dataset))
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
    assert not report(Ledger.load(Dataset(out))).shards


# --- the run's course ------------------------------------------------------------------------


def set_course(done: Converted, course: list[tuple[str, str, float]]) -> None:
    """Rewrite by which attempt and when each shard was begun, and how long it took."""
    for shard, (attempt, started, elapsed_s) in enumerate(course):
        path = done.dataset.record(shard)
        path.chmod(0o644)
        fields = json.loads(path.read_bytes())
        fields |= {"started": f"2024-05-01T{started}+00:00", "elapsed_s": elapsed_s}
        fields["worker"]["attempt"] = attempt
        path.write_text(json.dumps(fields, separators=(",", ":")))


def test_time_is_promised_for_the_workers_that_ran(make_ctrate: Make, tmp_path: Path) -> None:
    """Two workers, a night's pause, one more shard: the pause does not count."""
    done = convert_here(
        make_ctrate(8), tmp_path / "out", samples_per_shard=2, encoding="b2nd", probe=None
    )
    set_course(
        done,
        [
            ("evening", "12:00:00", 60.5),
            ("evening", "12:00:01", 40.9),
            ("evening", "12:00:35", 36.2),  # begun while another is read back
            ("night", "23:00:00", 20.0),
        ],
    )
    facts = run_here("report", done.out, "--json").json()
    assert facts["workers"] == 2
    assert facts["wall_s"] == pytest.approx(71.2 + 20)
    assert done.plan.probe is not None
    assert facts["predicted_wall_s"] == pytest.approx(done.plan.probe.chosen.cpu_s / 2)
    assert facts["total"]["elapsed_s"] == pytest.approx(157.6)
    planned = done.plan.shards
    scratch = 2 * max(shard.estimated_scratch_bytes for shard in planned)
    output_bytes = sum(path.stat().st_size for path in done.out.glob("*.tar"))
    assert facts["predicted_peak_extra_bytes"] == done.plan.estimate.output_bytes + scratch
    assert facts["recorded_peak_extra_bytes"] == output_bytes
    text = run_here("report", done.out).stdout
    assert "time, 2 workers" in text
    assert "0:01:31" in text
    assert "too short" not in text
    assert "Peak disk was not observed" in text


def test_deletion_along_the_way_is_promised_and_reckoned_with(
    cli: Callable[..., Finished], make_ctrate: Make, tmp_path: Path
) -> None:
    """By plan or by convert; a run of a moment is compared with no promised time."""
    out = tmp_path / "out"
    words = ("--samples_per_shard", 2, "--num_workers", 1, *DELETE)
    assert cli(*convert_words(make_ctrate(8), out, *words)).code == 0
    done = run_here("report", out)
    facts = run_here("report", out, "--json").json()
    promised = run_here(
        *plan_words(make_ctrate(8), tmp_path / "other", *words[:-1], "--json")
    ).json()
    assert facts["workers"] == 1
    assert facts["predicted_peak_extra_bytes"] == promised["peak_extra_bytes"]
    assert 0 < facts["recorded_peak_extra_bytes"] <= facts["total"]["output_bytes"]
    assert "too short to tell" in done.stdout


def span(started_s: float, elapsed_s: float, output_bytes: int = 0, attempt: str = "") -> Span:
    return Span(attempt, started_s, elapsed_s, output_bytes)


@pytest.mark.parametrize(
    ("spans", "seconds", "workers"),
    [
        ([span(0, 5)], 5, 1),
        ([span(0, 20), span(15, 20), span(30, 20)], 50, 1),  # the next, while one is read back
        ([span(0, 20), span(1, 24), span(17, 20), span(22, 20)], 42, 2),
        ([span(0, 5), span(100, 5, attempt="later")], 10, 1),
        ([span(0, 5.9), span(5, 5, attempt="next")], 10, 1),  # in turn, told to the second
        ([span(0, 60), span(20, 60, attempt="beside")], 80, 2),
        ([span(0, 0.2), span(0, 0.2), span(0, 0.3)], 0.3, 1),  # in turn or at once?
    ],
)
def test_spans_tell_workers_and_seconds(spans: list[Span], seconds: float, workers: int) -> None:
    """Whether in one attempt or several, in turn or beside each other, in any order."""
    for order in (spans, spans[::-1]):
        assert wall_s(order) == pytest.approx(seconds)
        assert most_workers(order) == workers


def test_the_number_of_workers_that_an_attempt_noted_counts() -> None:
    """But never more than it had shards; what noted none is inferred."""
    spans = [span(0, 0.2, attempt="a"), span(0, 0.2, attempt="a"), span(50, 9, attempt="b")]
    assert most_workers(spans, {"a": 2}) == 2
    assert most_workers(spans, {"a": 8, "b": 8}) == 2
    assert most_workers(spans, {}) == 1


def test_disk_is_highest_before_what_was_freed_then() -> None:
    """A shard weighs from its beginning, a deletion once it was done."""
    spans = [span(0, 10, 100), span(10, 10, 100), span(20, 10, 100)]
    assert peak_extra_bytes(spans, []) == 300
    assert peak_extra_bytes(spans, [Freed(10, 300), Freed(20, 300)]) == 200
    assert peak_extra_bytes(spans, [Freed(9, 300), Freed(19, 300)]) == 100
