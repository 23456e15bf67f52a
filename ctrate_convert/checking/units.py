"""Cut a verification or an audit into units, do a unit on any machine, and put results together."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ctrate_convert.checking.audit.accounts import (
    Audit,
    AuditWork,
    begin_audit,
    finish_audit,
    read_shards,
)
from ctrate_convert.checking.audit.against_sources import ShardToCompare, compare_shard
from ctrate_convert.checking.audit.gathered import as_text
from ctrate_convert.checking.check_files import CheckFiles, UnitResult
from ctrate_convert.checking.shard_check import ShardCheck, check_shard
from ctrate_convert.checking.verify import VerifyReport, look_at_files
from ctrate_convert.checking.verify_shard import ShardToCheck, verify_shard
from ctrate_convert.errors import RefusedError
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import Ledger, Recorded
from ctrate_convert.store.plans import require_plans
from ctrate_convert.store.records.base import Key
from ctrate_convert.store.records.check import Check, CheckOptions, Unit, Work
from ctrate_convert.store.records.damage import Damage
from ctrate_convert.store.records.plan import shard_name
from ctrate_convert.store.records.record import ConvertedSample


def units_of_verify(dataset: Dataset, options: CheckOptions) -> tuple[Unit, ...]:
    """Return a unit for each shard that `verify` would read."""
    _, chosen = _looked_at(dataset, options)
    return _verifications(chosen, options)


def _looked_at(dataset: Dataset, options: CheckOptions) -> tuple[VerifyReport, list[ShardToCheck]]:
    return look_at_files(
        dataset,
        num_samples=options.num_samples,
        check_precision=options.check_precision,
        full=options.full,
    )


def _verifications(chosen: Sequence[ShardToCheck], options: CheckOptions) -> tuple[Unit, ...]:
    return tuple(
        _unit("verify", one.record.shard, () if options.full else one.samples) for one in chosen
    )


def units_of_audit(dataset: Dataset, options: CheckOptions) -> tuple[Unit, ...]:
    """Return a unit for each shard that `audit` would read, and for each it would compare."""
    return _audits(begin_audit(dataset, share=options.share, seed=options.seed), options)


def _audits(work: AuditWork, options: CheckOptions) -> tuple[Unit, ...]:
    reads = [
        # A shard that is read whole anyway needs no list of samples.
        Unit(work="read", shard=shard, keys=() if options.share >= 1 else tuple(sorted(keys)))
        for shard, keys in work.to_read().items()
        if keys
    ]
    compares = [
        _unit("compare", one.record.shard, one.samples)
        for one in (work.to_compare() if options.against_sources else ())
    ]
    return (*reads, *compares)


@dataclass(frozen=True)
class UnitToDo:
    """A unit with what a process needs to do it."""

    dataset: Dataset
    check: Check
    unit: Unit
    recorded: Recorded


def unit_to_do(ledger: Ledger, check: Check, unit: Unit) -> UnitToDo:
    """Return the unit with its shard's record; no other record is read.

    Raises:
        FileNotFoundError, DamageError: there is no sound record.
    """
    recorded = ledger.shard(unit.shard)
    # A worker process needs nothing of the other shards of a large plan.
    plan = recorded.plan.model_copy(update={"shards": (recorded.shard,)})
    recorded = dataclasses.replace(recorded, plan=plan)
    return UnitToDo(ledger.dataset, check, unit, recorded)


def do_unit(one: UnitToDo) -> None:
    """Do the unit and write its result; what is wrong becomes part of the result."""
    unit, recorded, options = one.unit, one.recorded, one.check.options
    record, settings = recorded.record, recorded.plan.settings
    files = CheckFiles(one.dataset, one.check)
    # Before the first byte is read: what is changed meanwhile makes the result invalid.
    result = files.new_result(unit, recorded, datetime.now(UTC).isoformat())
    live = {sample.key for sample in recorded.live}
    wanted = frozenset(live & {*unit.keys} if unit.keys else live)
    samples = tuple(sample for sample in record.converted if sample.key in wanted)
    found: dict[str, object] = {}
    if unit.work == "verify":
        whole = options.full and recorded.is_whole
        precision = options.check_precision
        shard = ShardToCheck(one.dataset, settings, record, samples, whole, precision)
        verified = verify_shard(shard)
        verified.damage = _as_text(verified.damage)
        verified.notes = [as_text(note) for note in verified.notes]
        found["verified"] = verified
    elif unit.work == "read":
        read = check_shard(one.dataset, recorded, wanted, everything=options.share >= 1)
        found["read"] = dataclasses.replace(read, damage=tuple(_as_text(read.damage)))
    else:
        compared = compare_shard(ShardToCompare(one.dataset, settings, record, samples))
        found["compared"] = tuple(
            source.model_copy(
                update={
                    "data_folder": as_text(source.data_folder),
                    "difference": as_text(source.difference),
                    "unreadable": as_text(source.unreadable),
                }
            )
            for source in compared
        )
    files.write(unit, result.model_copy(update=found))


def _as_text(damage: Sequence[Damage]) -> list[Damage]:
    """Return the findings as JSON can hold them: they may name paths that are not UTF-8."""
    return [dataclasses.replace(one, what=as_text(one.what)) for one in damage]


def verified(dataset: Dataset, files: CheckFiles) -> VerifyReport:
    """Put the results together with what this process finds in the files beside the shards.

    Of a full verification every shard that is there now counts, and not only those of then. Raises
    what `verify` raises.
    """
    options = files.check.options
    # The samples were chosen when the check was made; no others are chosen here.
    report, chosen = _looked_at(dataset, options.model_copy(update={"num_samples": 0}))
    wanted = _verifications(chosen, options) if options.full else files.units
    results = _results(dataset, files, wanted)
    for unit, result in results:
        if result is None or result.verified is None:
            report.unchecked.append(shard_name(unit.shard))
        else:
            report.add(result.verified)
    report.read_from, report.read_until = _span(results)
    return report


def audited(dataset: Dataset, files: CheckFiles) -> Audit:
    """Put the results together with the evidence as it is now, and file the audit.

    Raises:
        RefusedError: something that an audit would read now was not read; an audit is filed whole
            or not at all.
        Others: as `audit`.
    """
    options = files.check.options
    work = begin_audit(dataset, share=options.share, seed=options.seed)
    wanted = _audits(work, options)
    results = _results(dataset, files, wanted)
    missing = sorted({unit.shard for unit, result in results if result is None})
    if missing:
        again = f"ctrate-convert {files.check.command} {dataset.out}"
        options_words = files.check.words.partition(" ")[2]
        raise RefusedError(
            "the jobs have not read all that this audit is about; nothing is filed",
            where=files.folder,
            seen=f"no valid result of {len(missing)} shards, the first {shard_name(missing[0])}",
            next_command=" ".join(filter(None, (again, options_words, "--submit"))),
        )
    # The presence and the size of every shard are looked at here: that reads nothing.
    unread = dict.fromkeys(work.to_read(), frozenset[Key]())
    checks = read_shards(dataset, work.evidence.recorded, unread, options.share, num_workers=1)
    for unit, result in results:
        if result is not None and result.read is not None:
            checks[unit.shard] = _joined(checks[unit.shard], result.read)
    chosen = {(unit.shard, key) for unit in wanted if unit.work == "compare" for key in unit.keys}
    found = [
        source
        for unit, result in results
        if result is not None
        for source in result.compared or ()
        if (unit.shard, source.key) in chosen
    ]
    span = _span(results)
    return finish_audit(work, checks, found if options.against_sources else None, span)


def _joined(now: ShardCheck, then: ShardCheck) -> ShardCheck:
    """Return what was found then with what is seen now; what cannot be seen now was not read."""
    new = [one for one in then.damage if one not in now.damage]
    read = frozenset[str]() if now.damage else then.read
    return dataclasses.replace(then, damage=(*now.damage, *new), read=read)


Results = list[tuple[Unit, UnitResult | None]]


def _results(dataset: Dataset, files: CheckFiles, wanted: Sequence[Unit]) -> Results:
    """Return each wanted unit with a valid result of a unit that covers it, or None."""
    ledger = Ledger(dataset, require_plans(dataset))
    done = {(unit.work, unit.shard): unit for unit in files.units}
    found: Results = []
    for unit in wanted:
        mine = done.get((unit.work, unit.shard))
        covered = mine is not None and mine.covers(unit)
        found.append((unit, files.result(mine, ledger) if mine and covered else None))
    return found


def _span(results: Results) -> tuple[str, str]:
    """Return when the first and the last unit was begun; empty without any."""
    times = sorted(result.began[:19] + "+00:00" for _, result in results if result is not None)
    return (times[0], times[-1]) if times else ("", "")


def _unit(work: Work, shard: int, samples: Sequence[ConvertedSample]) -> Unit:
    return Unit(work=work, shard=shard, keys=tuple(sample.key for sample in samples))
