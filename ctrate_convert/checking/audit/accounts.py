"""Audit: account for every source that is gone, and check the digests of its sample again.

The audit looks for the sources on disk, reads in the journals what was deleted, finds the samples
in the records and their bytes in the shards, and quotes from the consents who allowed it. It can
also compare the sources that are still there with their shards. It keeps its page, summary and list
in a folder of their own under ``.run/audits``.
"""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ctrate_convert import __version__
from ctrate_convert.checking.audit.against_sources import (
    ShardToCompare,
    choose,
    compare_shards,
    shards_to_compare,
    sources_there,
    sum_up,
)
from ctrate_convert.checking.audit.allowed import quote_consents
from ctrate_convert.checking.audit.gathered import Evidence, as_text, gather
from ctrate_convert.checking.audit.gone import Gone, GoneSource, find_gone
from ctrate_convert.checking.audit.page import page, verdict, verdict_on_gone, when_read
from ctrate_convert.checking.shard_check import ShardCheck, check_shard
from ctrate_convert.errors import ExitCode, SettingsError, environment_problem
from ctrate_convert.store.attempts import now_text
from ctrate_convert.store.durable import make_directories, publish_directory
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.ledger import Recorded
from ctrate_convert.store.plans import require_plans
from ctrate_convert.store.records.audit import (
    DAMAGE_KINDS,
    AuditedSource,
    AuditSummary,
    ComparedSource,
    QuotedConsent,
    SourcesCompared,
)
from ctrate_convert.store.records.base import sha256_hex
from ctrate_convert.store.records.plan import Plan, shard_name

PAGE_FILE = "audit.txt"
SUMMARY_FILE = "summary.json"
LIST_FILE = "sources.jsonl"


@dataclass(frozen=True)
class Audit:
    """The result of an audit, and the folder that now holds it."""

    summary: AuditSummary
    sources: tuple[AuditedSource, ...]
    folder: Path

    @property
    def exit_code(self) -> ExitCode:
        """`ExitCode.DAMAGE` (3) if a sample is unsound or unlike its source, or proof is bad."""
        summary = self.summary
        damaged = any(remark.kind in DAMAGE_KINDS for remark in summary.remarks)
        different = summary.against_sources is not None and summary.against_sources.different
        return ExitCode.DAMAGE if summary.findings or damaged or different else ExitCode.DONE


def audit(
    dataset: Dataset,
    *,
    share: float,
    seed: int,
    num_workers: int,
    against_sources: bool = False,
    on_shard: Callable[[int, int], None] = lambda done, total: None,
) -> Audit:
    """Account for every source that is gone; read the members of a ``share`` of them (over 0 to 1).

    The members of at least one source are read if any is gone; the same ``seed`` chooses the same
    sources. The presence and size of every shard that holds a gone source are checked. With
    ``against_sources``, such a share of the sources that are still there is compared with their
    shards, too; ``on_shard`` is told how many shards of all are done, read or compared. Nothing is
    changed, except that the audit's files are added.

    Raises:
        SettingsError: there is no plan; or views are to be compared with sources.
        DamageError: a plan was changed.
        EnvironmentProblem: the files cannot be written.
        WorkerDied: a process was killed.
    """
    work = begin_audit(dataset, share=share, seed=seed)
    read = work.to_read()
    compare = work.to_compare() if against_sources else None
    total = len(read) + len(compare or ())
    checks = read_shards(
        dataset,
        work.evidence.recorded,
        read,
        share,
        num_workers,
        on_shard=lambda done: on_shard(done, total),
    )
    found = (
        None
        if compare is None
        else compare_shards(compare, num_workers, lambda done, _: on_shard(len(read) + done, total))
    )
    return finish_audit(work, checks, found)


@dataclass(frozen=True)
class AuditWork:
    """What an audit gathered, and what of the shards it is going to read."""

    dataset: Dataset
    plans: Sequence[Plan]
    evidence: Evidence
    gone: Gone
    share: float
    seed: int

    def to_read(self) -> dict[int, frozenset[str]]:
        """Return every shard that holds a gone source's sample, with the keys to read there."""
        held = [(one.shard, one.key) for one in self.gone.sources if one.sample]
        keys: dict[int, set[str]] = {shard: set() for shard, _ in sorted(held)}
        for shard, key in choose(held, self.share, self.seed):
            keys[shard].add(key)
        return {shard: frozenset(chosen) for shard, chosen in keys.items()}

    def to_compare(self) -> list[ShardToCompare]:
        """Return the shards with sources that are there and that were chosen.

        Raises:
            SettingsError: they are views, which have no sources.
        """
        if any(plan.settings.view for plan in self.plans):
            raise SettingsError(
                "a view was made from a shard and has no source file of its own",
                where=self.dataset.out,
                seen="--against_sources",
                next_command=f"ctrate-convert verify {self.dataset.out} --full",
            )
        return shards_to_compare(self.dataset, self.evidence, self.share, self.seed)


def begin_audit(dataset: Dataset, *, share: float, seed: int) -> AuditWork:
    """Look for all sources, and read plans, journals and records. Raises what `audit` raises."""
    plans = require_plans(dataset)
    evidence = gather(dataset, plans)
    return AuditWork(dataset, plans, evidence, find_gone(plans, evidence), share, seed)


def read_shards(
    dataset: Dataset,
    recorded: Mapping[int, Recorded],
    keys: Mapping[int, frozenset[str]],
    share: float,
    num_workers: int,
    on_shard: Callable[[int], None] = lambda done: None,
) -> dict[int, ShardCheck]:
    """Check every shard of ``keys``, and read the samples that it names; return what was found.

    ``on_shard`` is told how many shards are done.
    """

    def check(shard: int) -> ShardCheck:
        return check_shard(dataset, recorded[shard], keys[shard], everything=share >= 1)

    with ThreadPoolExecutor(num_workers) as pool:
        checks = {}
        for shard, found in zip(keys, pool.map(check, keys), strict=True):
            checks[shard] = found
            on_shard(len(checks))
        return checks


def finish_audit(
    work: AuditWork,
    checks: Mapping[int, ShardCheck],
    found: Sequence[ComparedSource] | None,
    read_by_jobs: tuple[str, str] = ("", ""),
) -> Audit:
    """File the audit; ``checks`` are of the shards `to_read`, ``found`` of the sources compared.

    ``read_by_jobs`` tells from when until when jobs read them, if it was not this process.

    Raises:
        EnvironmentProblem: the files cannot be written.
    """
    dataset, evidence, gone = work.dataset, work.evidence, work.gone
    missing = {(one.shard, one.key) for one in gone.sources}
    for shard, check in checks.items():
        for key, wrong in check.wrong.items():  # the source exists, its copy is damaged
            if key is not None and (shard, key) not in missing:
                evidence.remark("shard", f"{shard_name(shard)}, {key}", "; ".join(wrong))
    sources = tuple(_audited(one, evidence, checks.get(one.shard)) for one in gone.sources)
    listed = b"".join(source.to_json() + b"\n" for source in sources)
    summary = _sum_up(
        work,
        sources,
        list(checks.values()),
        listed,
        consents=quote_consents(dataset, evidence, sources),
        compared=None if found is None else sum_up(len(sources_there(evidence)), found),
        read_by_jobs=read_by_jobs,
    )
    try:
        folder = _file(dataset, summary, sources, listed)
    except OSError as error:
        raise environment_problem(error, "filing the audit") from error
    return Audit(summary, sources, folder)


def _audited(one: GoneSource, evidence: Evidence, check: ShardCheck | None) -> AuditedSource:
    sample, line = one.sample, one.line
    findings = [one.finding]
    if sample and check:
        findings += [*check.wrong.get(None, ()), *check.wrong.get(one.key, ())]
    tar = evidence.recorded[one.shard].record.tar if sample else None
    return AuditedSource(
        key=one.key,
        data_folder=one.data_folder,
        source=one.place.source,
        size_bytes=one.place.size_bytes,
        told=one.told,
        event=line.event if line else "",
        time=line.time if line else "",
        authorised_by=line.authorised_by if line else "",
        trash=line.trash if line else "",
        trash_state=one.trash_state,
        shard=shard_name(one.shard) if sample else "",
        shard_sha256=tar.sha256 if tar else "",
        member=sample.array.name if sample else "",
        array_blake3=sample.array.blake3 if sample else "",
        members=len(sample.all_members) if sample else 0,
        checked=check is not None and one.key in check.read and sample is not None,
        finding="; ".join(filter(None, findings)),
    )


def _sum_up(
    work: AuditWork,
    sources: Sequence[AuditedSource],
    checks: Sequence[ShardCheck],
    listed: bytes,
    *,
    consents: tuple[QuotedConsent, ...],
    compared: SourcesCompared | None,
    read_by_jobs: tuple[str, str],
) -> AuditSummary:
    read_from, read_until = read_by_jobs
    plans, evidence = work.plans, work.evidence
    told = [one for one in sources if one.told != "nothing"]
    checked = [one for one in sources if one.checked]
    findings = sum(1 for one in sources if one.finding)
    damaged = sum(1 for remark in evidence.remarks if remark.kind in DAMAGE_KINDS)
    return AuditSummary(
        program_version=__version__,
        time=now_text(),
        user=_user(),
        host=socket.gethostname(),
        out=as_text(work.dataset.out.resolve()),
        data_folders=tuple(dict.fromkeys(plan.settings.data_folder for plan in plans)),
        plans=tuple(plan.plan_id for plan in plans),
        share=work.share,
        seed=work.seed,
        gone_sources=len(sources),
        gone_bytes=_bytes_of(sources),
        deleted_sources=len(told),
        deleted_bytes=_bytes_of(told),
        open_intents=sum(1 for one in told if one.told == "open intent"),
        untold_sources=len(sources) - len(told),
        in_the_trash=sum(1 for one in sources if one.trash_state == "in the trash"),
        removed_from_the_trash=sum(
            1 for one in sources if one.trash_state == "removed from the trash since"
        ),
        put_back=tuple(work.gone.put_back),
        in_a_recorded_shard=sum(1 for one in sources if one.shard),
        checked_now=len(checked),
        members_read_now=sum(one.members for one in checked),
        members_sound_now=sum(one.members for one in checked if not one.finding),
        shards_read_whole=sum(1 for check in checks if check.read_whole),
        read_bytes=sum(check.read_bytes for check in checks),
        findings=findings,
        consents=consents,
        against_sources=compared,
        read_from=read_from,
        read_until=read_until,
        remarks=tuple(evidence.remarks),
        verdict=verdict(
            verdict_on_gone(
                gone=len(sources),
                checked=len(checked),
                findings=findings,
                untold=len(sources) - len(told),
                damaged=damaged,
                unreadable=len(evidence.remarks) - damaged,
                by_record=work.share < 1,
                views_of=next((p.settings.data_folder for p in plans if p.settings.view), ""),
                when=when_read(read_from, read_until),
            ),
            compared,
            when_read(read_from, read_until),
        ),
        list_file=LIST_FILE,
        list_sha256=sha256_hex(listed),
    )


def _file(
    dataset: Dataset, summary: AuditSummary, sources: Sequence[AuditedSource], listed: bytes
) -> Path:
    """Write the three files, together or not at all, into a new folder."""
    above = dataset.run.resolve() / "audits"
    make_directories(above)
    stored = summary.to_pretty_json()
    # The time is the folder's name: try again if another audit has taken it.
    while True:
        folder = above / datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        text = page(summary, sources, folder, sha256_hex(stored))
        files = {
            LIST_FILE: listed,
            SUMMARY_FILE: stored,
            # The page has a command with the folder's path, whose bytes need not be UTF-8.
            PAGE_FILE: text.encode(errors="surrogateescape"),
        }
        if publish_directory(files, folder):
            return folder


def _bytes_of(sources: Iterable[AuditedSource]) -> int:
    return sum(source.size_bytes for source in sources)


def _user() -> str:
    """Return the user that this process runs as, whatever the environment says."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"user {os.getuid()}"
