"""Verify: check the shards against their records, and against the sources that still exist."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ctrate_convert.checking.damage import mend_command
from ctrate_convert.checking.shard_check import file_damage
from ctrate_convert.checking.verify_files import (
    FileFindings,
    check_journals,
    check_lists,
    check_plans,
)
from ctrate_convert.checking.verify_manifest import (
    check_entry,
    check_manifest,
    readable_manifest,
)
from ctrate_convert.checking.verify_shard import (
    ShardFindings,
    ShardToCheck,
    verify_shard,
)
from ctrate_convert.errors import DamageError, ExitCode
from ctrate_convert.planning.intensity import Scale, intensity_notes
from ctrate_convert.running.each_process import each_in_a_process
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import Ledger, Recorded, manifest_shards
from ctrate_convert.store.records.damage import Damage
from ctrate_convert.store.records.manifest import ManifestShard
from ctrate_convert.store.records.record import ConvertedSample
from ctrate_convert.store.set_aside import aside_notes

UNKNOWN_SHARD = "a shard that no record knows"


@dataclass
class VerifyReport(ShardFindings):
    """The extent of a verification, and what it found.

    A report without damage vouches only for what was looked at. ``unchecked`` names the shards that
    a job on the cluster was to check and has not checked yet. If jobs read the shards,
    ``read_from`` and ``read_until`` tell when the first and the last of them was begun.
    """

    shards: int = 0
    samples: int = 0
    unchecked: list[str] = field(default_factory=list)
    read_from: str = ""
    read_until: str = ""

    @property
    def damaged_shards(self) -> frozenset[str]:
        """The names of the shards that are missing or not what their records say."""
        return frozenset(one.shard for one in self.damage if one.shard.endswith(".tar"))

    @property
    def exit_code(self) -> ExitCode:
        """`ExitCode.DAMAGE` (3) if damage was found; else 5 if something is not checked yet."""
        if self.damage:
            return ExitCode.DAMAGE
        return ExitCode.ENVIRONMENT if self.unchecked else ExitCode.DONE

    def add(self, part: ShardFindings) -> None:
        """Add what was found in one shard."""
        self.shards_read_whole += part.shards_read_whole
        self.samples_checked += part.samples_checked
        self.compared_with_source += part.compared_with_source
        self.compared_with_digest_only += part.compared_with_digest_only
        self.damage += part.damage
        self.notes += part.notes
        self.precision += part.precision


def verify(
    dataset: Dataset,
    *,
    num_samples: int,
    check_precision: bool,
    full: bool,
    num_workers: int,
    on_shard: Callable[[int, int], None] = lambda done, total: None,
) -> VerifyReport:
    """Check every shard's presence and size, and ``num_samples`` samples' members byte by byte.

    With ``full``, every shard is read whole instead: SHA-256, structure, every member. Each sample
    that is checked is also compared with its source, if that still exists. A source that differs is
    damage only if it was not touched after the conversion. With ``check_precision``, the errors of
    the voxels are reported too. The plans' lists, the journals and the manifest are read whole in
    any case. Each shard is checked in one of ``num_workers`` processes, since decoding holds the
    interpreter's lock.

    Raises:
        SettingsError: there is no plan.
        DamageError: both copies of a plan are damaged.
        WorkerDied: a process was killed.
    """
    report, chosen = look_at_files(
        dataset, num_samples=num_samples, check_precision=check_precision, full=full
    )
    for part in each_in_a_process(verify_shard, chosen, num_workers, on_shard):
        report.add(part)
    return report


def look_at_files(
    dataset: Dataset, *, num_samples: int, check_precision: bool, full: bool
) -> tuple[VerifyReport, list[ShardToCheck]]:
    """Check all but the insides of shards; return the report so far, and the shards to read.

    Raises what `verify` raises, but `WorkerDied`.
    """
    report = VerifyReport()
    files, records = _load_all(dataset, report)
    report.damage += files.damage
    report.shards = len(records)
    report.samples = sum(len(shard.live) for shard in records)
    report.notes += [*_intensity_notes(files, records), *files.notes]
    present = [shard for shard in records if _is_present(dataset, shard, report)]
    chosen = [
        ShardToCheck(
            dataset,
            shard.plan.settings,
            shard.record,
            tuple(samples),
            # A shard with repaired samples is known to be damaged: check only those that count.
            whole=full and shard.is_whole,
            check_precision=check_precision,
        )
        for shard, samples in _choose(present, None if full else num_samples)
    ]
    return report, chosen


def _load_all(dataset: Dataset, report: VerifyReport) -> tuple[FileFindings, list[Recorded]]:
    """Load everything but the shards.

    What a run writes last is read first. So nothing that a run writes meanwhile looks foreign.
    """
    files = FileFindings()
    tars = sorted(dataset.out.glob("shard-*.tar"))
    manifest = readable_manifest(dataset, files)
    ledger = Ledger.load(dataset)
    records = _load_records(ledger, report)
    check_plans(dataset, ledger.plans, files)
    check_lists(dataset, ledger.plans, files)
    check_journals(dataset, ledger.plans, files)
    files.notes += aside_notes(dataset)
    if manifest is not None:
        check_manifest(ledger, manifest, files)
        entries = manifest_shards(manifest)
        for one in records:
            if entry := entries.get(one.shard.name):
                _check_merged(dataset, one, entry, report, files)
    for path in tars:
        number = path.stem.removeprefix("shard-")
        if not number.isdigit() or int(number) not in ledger.recorded:
            report.damage.append(Damage(path.name, None, UNKNOWN_SHARD))
    return files, records


def _check_merged(
    dataset: Dataset,
    shard: Recorded,
    entry: ManifestShard,
    report: VerifyReport,
    files: FileFindings,
) -> None:
    """Check that the record is the merged one, and that the manifest agrees with it."""
    record = shard.record
    if entry.record_sha256 != record.stored_sha256():
        what = "this record was changed after it was merged into the manifest; " + _rebuild(dataset)
        report.damage.append(Damage(dataset.record(record.shard).name, None, what))
        return
    check_entry(entry, record, shard.superseded, files)


def _load_records(ledger: Ledger, report: VerifyReport) -> list[Recorded]:
    dataset, found = ledger.dataset, []
    for index in sorted(ledger.recorded - ledger.planned.keys()):
        name = dataset.record(index).name
        report.damage.append(Damage(name, None, "a record that no plan knows"))
    for one in ledger.shards():
        if isinstance(one, Recorded):
            found.append(one)
            continue
        if isinstance(one.error, DamageError):
            what = one.error.one_line()
        else:
            what = f"cannot be read: {one.error.strerror}"
        name = dataset.record(one.shard.index).name
        report.damage.append(Damage(name, None, f"{what}; {_rebuild(dataset)}"))
    return found


def _rebuild(dataset: Dataset) -> str:
    return f"rebuild it from its shard with: {mend_command(dataset)}"


def _intensity_notes(files: FileFindings, records: Sequence[Recorded]) -> list[str]:
    """Note whether readers may apply the tables' intercepts, judged by every volume's voxels."""
    scales = []
    for shard in records:
        planned = files.planned.get(shard.record.shard, {})
        scales += [
            Scale(one.key, one.array.intensity, planned[one.key].intercept)
            for one in shard.live
            if one.key in planned
        ]
    return list(intensity_notes(scales))


def _is_present(dataset: Dataset, shard: Recorded, report: VerifyReport) -> bool:
    path = dataset.shard(shard.record.shard)
    if not shard.live:
        if shard.superseded and os.path.lexists(path):
            report.notes.append(
                f"{path.name}: all its samples were repaired into other shards; no reader of the "
                "manifest opens it any more, and you may move it away"
            )
        return False
    readable, damage = file_damage(dataset, shard)
    report.damage += damage
    return readable


def _choose(
    present: list[Recorded], num_samples: int | None
) -> list[tuple[Recorded, list[ConvertedSample]]]:
    if num_samples is None:
        return [(shard, list(shard.live)) for shard in present]
    every = [(at, sample) for at, shard in enumerate(present) for sample in shard.live]
    picked: dict[int, list[ConvertedSample]] = {}
    for at, sample in random.sample(every, min(num_samples, len(every))):
        picked.setdefault(at, []).append(sample)
    return [(present[at], samples) for at, samples in sorted(picked.items())]
