"""Repair: convert damaged shards' samples again, from existing sources, into new shards."""

from __future__ import annotations

from dataclasses import dataclass, field

from ctrate_convert.checking.mending.again import Again
from ctrate_convert.checking.mending.plan_repairs import plan_repairs
from ctrate_convert.checking.shard_check import check_samples
from ctrate_convert.checking.verify import VerifyReport
from ctrate_convert.deleting.finish import finish_deletions
from ctrate_convert.errors import ExitCode
from ctrate_convert.running.run import Crew, Tasks, run_pending
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import Ledger
from ctrate_convert.store.merger import merge


@dataclass
class RepairReport:
    """The result of a repair.

    ``lost`` has the damaged samples (key, shard) without another copy. ``waiting`` has those that
    could be converted and were not, since the conversion was stopped. ``superseded`` names the
    shards that no sample is read from any more. ``failed`` has the sources (key, reason) that could
    not be converted again. ``other_damage`` counts what a repair does not mend: records, unknown
    files.
    """

    repaired: int = 0
    new_shards: list[str] = field(default_factory=list)
    superseded: list[str] = field(default_factory=list)
    lost: list[tuple[str, str]] = field(default_factory=list)
    waiting: list[tuple[str, str]] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    other_damage: int = 0
    conversion: ExitCode = ExitCode.DONE

    @property
    def exit_code(self) -> ExitCode:
        """The conversion's own exit code if it is worse than failed samples.

        Otherwise `ExitCode.DAMAGE` (3) if a damaged sample has no sound copy or other damage is
        left.
        """
        if self.conversion not in (ExitCode.DONE, ExitCode.SAMPLES_FAILED):
            return self.conversion
        sound = not (self.lost or self.waiting or self.other_damage)
        return ExitCode.DONE if sound else ExitCode.DAMAGE


def repair(
    dataset: Dataset,
    found: VerifyReport,
    crew: Crew,
) -> RepairReport:
    """Convert the samples of the shards that ``found``, of a full verify, names as damaged.

    They go into new shards. Published shards stay as they are; the manifest tells readers which
    copies count. No source is deleted. After an interruption the next call goes on.

    Raises:
        DamageError: a plan or a record was changed: a repair rests on them.
    """
    ledger = Ledger.load(dataset)
    finish_deletions(dataset, ledger.plans)  # a killed command may have left sources hidden
    damaged = {
        index
        for index, (_, shard) in ledger.planned.items()
        if shard.name in found.damaged_shards and dataset.record(index).exists()
    }
    names = {ledger.planned[index].shard.name for index in damaged}
    report = RepairReport(other_damage=sum(1 for one in found.damage if one.shard not in names))
    unfinished = plan_repairs(dataset, damaged)
    if unfinished:
        tasks = Tasks(only=frozenset(task for plan in unfinished for task in plan.tasks))
        result, _ = run_pending(dataset, crew, tasks=tasks)
        report.conversion, report.failed = result.exit_code, result.failed_samples
    ledger = Ledger.load(dataset)
    merge(dataset, ledger.plans)  # a killed repair may have had no time to
    for index in sorted(damaged):
        one = ledger.shard(index)
        plan, shard, live = one.plan, one.shard, one.live
        report.repaired += len(one.superseded)
        if not live:
            report.superseded.append(shard.name)
        broken = {key for key, _ in report.failed}
        layout = plan.settings.layout
        again = {line.key for line in Again(dataset, plan).lines(shard)} - broken
        wrong = check_samples(dataset.shard(index), one.record, layout, live, whole=False).wrong
        for sample in live:
            # Under None are findings on the whole shard, which hold for each of its samples.
            if not {None, sample.key} & wrong.keys():
                continue
            missing = report.waiting if sample.key in again else report.lost
            missing.append((sample.key, shard.name))
    report.new_shards = [
        shard.name
        for plan in ledger.plans
        if any(one.plan_id == plan.plan_id for one in unfinished)
        for shard in plan.shards
        if dataset.shard(shard.index).exists()
    ]
    return report
