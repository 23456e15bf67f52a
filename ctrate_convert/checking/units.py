"""Cut a verification or an audit into units, do a unit on any machine, and put results together."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from ctrate_convert.checking.audit.accounts import Audit, begin_audit, finish_audit, read_shards
from ctrate_convert.checking.audit.against_sources import ShardToCompare, compare_shard
from ctrate_convert.checking.check_files import (
    Check,
    CheckFiles,
    CheckOptions,
    Unit,
    UnitResult,
    Work,
)
from ctrate_convert.checking.shard_check import ShardCheck, check_shard
from ctrate_convert.checking.verify import VerifyReport, look_at_files
from ctrate_convert.checking.verify_shard import ShardFindings, ShardToCheck, verify_shard
from ctrate_convert.errors import DamageError, RefusedError
from ctrate_convert.store.attempts import now_text
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import Ledger, Recorded
from ctrate_convert.store.plans import require_plans
from ctrate_convert.store.records.audit import ComparedSource
from ctrate_convert.store.records.base import Key
from ctrate_convert.store.records.plan import shard_name
from ctrate_convert.store.records.record import ConvertedSample


def units_of_verify(dataset: Dataset, options: CheckOptions) -> tuple[Unit, ...]:
    """Return a unit for each shard that `verify` would read."""
    _, chosen = look_at_files(
        dataset,
        num_samples=options.num_samples,
        check_precision=options.check_precision,
        full=options.full,
    )
    return tuple(
        _unit("verify", one.record.shard, () if options.full else one.samples) for one in chosen
    )


def units_of_audit(dataset: Dataset, options: CheckOptions) -> tuple[Unit, ...]:
    """Return a unit for each shard that `audit` would read, and for each it would compare."""
    work = begin_audit(dataset, share=options.share, seed=options.seed)
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
    wanted = frozenset(unit.keys or (sample.key for sample in recorded.live))
    samples = tuple(sample for sample in record.converted if sample.key in wanted)
    found: ShardFindings | ShardCheck | tuple[ComparedSource, ...]
    if unit.work == "verify":
        whole = options.full and recorded.is_whole
        precision = options.check_precision
        found = verify_shard(ShardToCheck(one.dataset, settings, record, samples, whole, precision))
    elif unit.work == "read":
        found = check_shard(one.dataset, recorded, wanted, everything=options.share >= 1)
    else:
        found = tuple(compare_shard(ShardToCompare(one.dataset, settings, record, samples)))
    result = UnitResult(
        work=unit.work,
        shard=unit.shard,
        record_sha256=record.stored_sha256(),
        time=now_text(),
        verified=found if isinstance(found, ShardFindings) else None,
        read=found if isinstance(found, ShardCheck) else None,
        compared=found if isinstance(found, tuple) else None,
    )
    CheckFiles(one.dataset, one.check).write(result)


def verified(dataset: Dataset, files: CheckFiles) -> VerifyReport:
    """Put the results together with what this process finds in the files beside the shards.

    Raises what `verify` raises.
    """
    options = files.check.options
    report, _ = look_at_files(
        dataset, num_samples=0, check_precision=options.check_precision, full=False
    )
    for unit, result in _results(dataset, files):
        if result is None or result.verified is None:
            report.unchecked.append(shard_name(unit.shard))
        else:
            report.add(result.verified)
    return report


def audited(dataset: Dataset, files: CheckFiles) -> Audit:
    """Put the results together with the evidence as it is now, and file the audit.

    Raises:
        RefusedError: something is not read yet; an audit is filed whole or not at all.
        Others: as `audit`.
    """
    options = files.check.options
    work = begin_audit(dataset, share=options.share, seed=options.seed)
    results = _results(dataset, files)
    missing = sorted({unit.shard for unit, result in results if result is None})
    if missing:
        raise RefusedError(
            "the audit on the cluster has not read everything yet; nothing is filed",
            where=files.folder,
            seen=f"no result of {len(missing)} shards, the first {shard_name(missing[0])}",
            next_command=f"ctrate-convert status {dataset.out}",
        )
    # The file of a shard without a chosen sample is looked at here: that reads nothing.
    recorded = work.evidence.recorded
    unread = dict.fromkeys(work.to_read(), frozenset[Key]())
    checks = read_shards(dataset, recorded, unread, options.share, num_workers=1)
    checks |= {result.shard: result.read for _, result in results if result and result.read}
    found = [one for _, result in results if result for one in result.compared or ()]
    return finish_audit(work, checks, found if options.against_sources else None)


def _results(dataset: Dataset, files: CheckFiles) -> list[tuple[Unit, UnitResult | None]]:
    """Return every unit with its result; None where there is none of the record as it is now."""
    ledger = Ledger(dataset, require_plans(dataset))
    found = []
    for unit in files.units:
        result = files.result(unit)
        if result is not None and not _is_of_today(ledger, result):
            result = None
        found.append((unit, result))
    return found


def _is_of_today(ledger: Ledger, result: UnitResult) -> bool:
    try:
        return ledger.record(result.shard).stored_sha256() == result.record_sha256
    except (FileNotFoundError, DamageError, KeyError):
        return False


def _unit(work: Work, shard: int, samples: Sequence[ConvertedSample]) -> Unit:
    return Unit(work=work, shard=shard, keys=tuple(sample.key for sample in samples))
