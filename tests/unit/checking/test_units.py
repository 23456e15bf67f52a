"""A verification or audit in units vouches for nothing that was not read, or has changed since."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ctrate_convert.checking.audit.accounts import audit
from ctrate_convert.checking.check_files import CheckFiles, load_check, publish_check
from ctrate_convert.checking.units import (
    audited,
    do_unit,
    unit_to_do,
    units_of_audit,
    units_of_verify,
    verified,
)
from ctrate_convert.checking.verify import verify
from ctrate_convert.errors import DamageError, ExitCode, RefusedError
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import Ledger
from ctrate_convert.store.plans import require_plans
from ctrate_convert.store.records.check import CheckCommand, CheckOptions, Unit
from tests.support import Converted, run_here

FULL = CheckOptions(full=True)
EVERYTHING = CheckOptions(share=1.0, seed=1)
AND_COMPARE = CheckOptions(share=1.0, seed=1, against_sources=True)


def ledger_of(dataset: Dataset) -> Ledger:
    return Ledger(dataset, require_plans(dataset))


def asked_for(dataset: Dataset, command: CheckCommand, options: CheckOptions) -> CheckFiles:
    make = units_of_verify if command == "verify" else units_of_audit
    return publish_check(dataset, command, options, make(dataset, options))


def do(dataset: Dataset, files: CheckFiles, *, but: tuple[int, ...] = ()) -> CheckFiles:
    """What the elements do, and then the files as another process finds them."""
    for unit in files.units:
        if unit.shard not in but:
            do_unit(unit_to_do(ledger_of(dataset), files.check, unit))
    return load_check(dataset, files.check.number)


def flip(path: Path) -> None:
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def delete_all(converted: Converted) -> None:
    assert run_here("delete", converted.out, "--yes").code == ExitCode.DONE


def test_it_finds_what_verify_finds(converted: Converted) -> None:
    dataset = converted.dataset
    flip(dataset.shard(1))
    there = verified(dataset, do(dataset, asked_for(dataset, "verify", FULL)))
    here = verify(dataset, num_samples=0, check_precision=False, full=True, num_workers=1)
    assert there.exit_code == here.exit_code == ExitCode.DAMAGE
    assert there.damage == here.damage
    assert there.read_from <= there.read_until != ""
    assert (there.samples_checked, there.compared_with_source) == (
        here.samples_checked,
        here.compared_with_source,
    )


def test_what_has_no_result_is_not_checked(converted: Converted) -> None:
    dataset = converted.dataset
    files = do(dataset, asked_for(dataset, "verify", FULL), but=(0,))
    report = verified(dataset, files)
    assert report.unchecked == ["shard-000000.tar"]
    assert report.exit_code == ExitCode.ENVIRONMENT
    assert [unit.shard for unit in files.missing(ledger_of(dataset))] == [0]


def test_a_shard_that_came_later_is_not_checked(converted: Converted) -> None:
    """It was away when the check was made, and so has no unit."""
    dataset = converted.dataset
    away = dataset.shard(0).rename(dataset.out / "away")
    files = do(dataset, asked_for(dataset, "verify", FULL))
    away.rename(dataset.shard(0))
    assert verified(dataset, files).unchecked == ["shard-000000.tar"]


def test_a_shard_that_was_changed_since_is_not_checked(converted: Converted) -> None:
    dataset = converted.dataset
    files = do(dataset, asked_for(dataset, "verify", FULL))
    assert verified(dataset, files).exit_code == ExitCode.DONE
    flip(dataset.shard(1))
    assert verified(dataset, files).unchecked == ["shard-000001.tar"]


def test_damage_that_was_repaired_since_is_not_told(converted: Converted) -> None:
    """The result was of the shard before the repair: it is to be read again."""
    dataset = converted.dataset
    flip(dataset.shard(1))
    files = do(dataset, asked_for(dataset, "verify", FULL))
    assert run_here("verify", dataset.out, "--full", "--repair").code == ExitCode.DONE
    report = verified(dataset, files)
    assert not report.damage
    assert report.unchecked
    assert verified(dataset, do(dataset, asked_for(dataset, "verify", FULL))).unchecked == []


def test_damage_done(converted: Converted) -> None:
    """A cut list of units, of which less would have to be read, is no list at all."""
    dataset = converted.dataset
    files = do(dataset, asked_for(dataset, "verify", FULL))
    units = files.folder / "units.jsonl"
    units.chmod(0o644)
    units.write_bytes(units.read_bytes().splitlines(keepends=True)[0])
    with pytest.raises(DamageError, match="changed after it was written") as caught:
        load_check(dataset, files.check.number).units  # noqa: B018
    assert "--submit" in str(caught.value.next_command)
    units.unlink()
    with pytest.raises(DamageError, match="missing"):
        load_check(dataset, files.check.number).units  # noqa: B018


def tampered(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def tamper(path: Path) -> None:
        facts = json.loads(path.read_text())
        change(facts)
        path.chmod(0o644)
        path.write_text(json.dumps(facts))

    return tamper


@pytest.mark.parametrize(
    "tamper",
    [
        tampered(lambda facts: facts.update(check=facts["check"] + 1)),
        tampered(lambda facts: facts.update(created="2020-01-01T00:00:00+00:00")),
        tampered(lambda facts: facts.update(unit_sha256="0" * 64)),
        tampered(lambda facts: facts.update(record_sha256="0" * 64)),
        tampered(lambda facts: facts.update(superseded=["train_1_a_1"])),
        tampered(lambda facts: facts.update(began="2020-01-01T00:00:00+00:00")),
        tampered(lambda facts: facts.update(verified=None)),
        tampered(lambda facts: facts.update(schema_number=2)),
        tampered(lambda facts: facts.update(more=1)),
        lambda path: path.write_bytes(path.read_bytes()[:40]),
        lambda path: path.unlink(),
        lambda path: (path.unlink(), path.symlink_to("/etc/passwd")),
        lambda path: (path.unlink(), path.mkdir()),
    ],
)  # fmt: skip
def test_a_result_that_is_not_of_this_unit_as_it_is_now_counts_for_nothing(
    converted: Converted, tamper: Callable[[Path], None]
) -> None:
    dataset = converted.dataset
    files = do(dataset, asked_for(dataset, "verify", FULL))
    (path,) = files.folder.glob("verify-shard-000000.json")
    path.chmod(0o644)
    tamper(path)
    assert verified(dataset, files).unchecked == ["shard-000000.tar"]


def test_an_audit_by_units_is_that_of_one_machine(converted: Converted) -> None:
    dataset = converted.dataset
    delete_all(converted)
    there = audited(dataset, do(dataset, asked_for(dataset, "audit", EVERYTHING)))
    here = audit(dataset, share=1.0, seed=1, num_workers=1)
    assert there.sources == here.sources
    assert there.summary.findings == here.summary.findings == 0
    assert here.summary.verdict.replace("now", "X") == there.summary.verdict.replace(
        f"by jobs, {there.summary.read_from} to {there.summary.read_until}", "X"
    )
    page = (there.folder / "audit.txt").read_text()
    assert "read and checked by jobs" in page
    assert there.summary.read_from in page
    assert "now, and sound" not in page


def test_an_audit_sees_a_shard_that_went_since(converted: Converted) -> None:
    dataset = converted.dataset
    delete_all(converted)
    files = do(dataset, asked_for(dataset, "audit", EVERYTHING))
    dataset.shard(0).unlink()
    done = audited(dataset, files)
    assert done.exit_code == ExitCode.DAMAGE
    assert done.summary.findings == converted.planned(0).samples


@pytest.mark.parametrize("options", [EVERYTHING, AND_COMPARE])
def test_an_audit_of_sources_that_went_since_is_not_filed(
    converted: Converted, options: CheckOptions
) -> None:
    """They were there when the units were made, so no job has read their members."""
    dataset = converted.dataset
    files = do(dataset, asked_for(dataset, "audit", options))
    delete_all(converted)
    with pytest.raises(RefusedError, match="nothing is filed") as caught:
        audited(dataset, files)
    assert "--submit" in str(caught.value.next_command)
    assert not (dataset.run / "audits").exists()


def test_a_source_that_was_changed_since_it_was_compared_is_compared_anew(
    converted: Converted,
) -> None:
    dataset = converted.dataset
    files = do(dataset, asked_for(dataset, "audit", AND_COMPARE))
    assert audited(dataset, files).exit_code == ExitCode.DONE
    source = next(iter(converted.made.sources.values()))
    source.write_bytes(source.read_bytes()[:-1])
    with pytest.raises(RefusedError, match="nothing is filed"):
        audited(dataset, files)


def test_paths_that_are_no_text_are_told_escaped(converted: Converted) -> None:
    dataset = converted.dataset
    (unit, *_) = asked_for(dataset, "verify", FULL).units
    odd = Dataset(dataset.out.with_name("odd-\udcff"))
    dataset.out.rename(odd.out)
    odd.shard(0).chmod(0o644)
    odd.shard(0).unlink()
    ledger = ledger_of(odd)
    files = load_check(odd, 1)
    do_unit(unit_to_do(ledger, files.check, unit))
    result = files.result(unit, ledger)
    assert result is not None
    assert result.verified is not None
    assert result.verified.damage


def test_a_unit_covers_another() -> None:
    def unit(*keys: str, work: Any = "read", shard: int = 1) -> Unit:
        return Unit(work=work, shard=shard, keys=keys)

    assert unit().covers(unit("a", "b"))
    assert unit("a", "b").covers(unit("b"))
    assert not unit("a").covers(unit("a", "b"))
    assert not unit("a").covers(unit())
    assert not unit().covers(unit(work="compare"))
    assert not unit().covers(unit(shard=2))
