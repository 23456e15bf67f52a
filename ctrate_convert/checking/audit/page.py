"""The audit as a page that a data manager reads, signs and files."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from ctrate_convert.looking.words import printable
from ctrate_convert.store.records.audit import (
    AuditedSource,
    AuditSummary,
    QuotedConsent,
    SourcesCompared,
)

_NAMED = 50


def report_lines(
    summary: AuditSummary, sources: Sequence[AuditedSource], *, named: int = _NAMED
) -> list[str]:
    """Return all that the summary says, and what is wrong, at most ``named`` of each kind."""
    how = "by jobs" if summary.read_from else "now"
    rows = [
        ("dataset", summary.out),
        *(("data folder", folder) for folder in summary.data_folders),
        *(("plan", plan) for plan in summary.plans),
        ("audited", f"{summary.time} by {summary.user} on {summary.host}"),
        *([("read by jobs", _span(summary))] if summary.read_from else []),
        ("program", f"ctrate-convert {summary.program_version}"),
        ("sources gone", _with_bytes(summary.gone_sources, summary.gone_bytes)),
        ("  deleted, by the journal", _with_bytes(summary.deleted_sources, summary.deleted_bytes)),
        ("    without its last line", f"{summary.open_intents:,} (an open intent, the file gone)"),
        ("    in the trash", f"{summary.in_the_trash:,}"),
        ("    removed from the trash since", f"{summary.removed_from_the_trash:,}"),
        ("  told of by no journal", f"{summary.untold_sources:,}"),
        ("deleted, but there again", f"{len(summary.put_back):,}"),
        ("gone, in a recorded shard", f"{summary.in_a_recorded_shard:,}"),
        ("share to be read again", f"{100 * summary.share:g}%, chosen by --seed {summary.seed}"),
        (f"read and checked {how}", f"{summary.checked_now:,} of {summary.gone_sources:,} sources"),
        (
            "  their members",
            f"{summary.members_read_now:,} read, {summary.members_sound_now:,} of them sound",
        ),
        (
            "  read from storage",
            f"{summary.read_bytes:,} bytes, {_some(summary.shards_read_whole, 'shard')} whole",
        ),
        ("not accounted for", f"{summary.findings:,}"),
        *_rows_of_compared(summary.against_sources, how),
        ("consents to delete", f"{len(summary.consents):,}"),
        ("VERDICT", summary.verdict),
    ]
    lines = [f"{name:<34}{value}" for name, value in rows]
    bad = [f"{one.key} ({one.source}): {one.finding}" for one in sources if one.finding]
    untold = [
        f"{one.key} ({one.source}): in {one.shard}"
        for one in sources
        if one.told == "nothing" and not one.finding
    ]
    remarks = [f"{one.where}: {one.what}" for one in summary.remarks]
    for title, entries in (
        ("Deletion was allowed:", [_quoted(one) for one in summary.consents]),
        ("Not accounted for:", bad),
        *_lists_of_compared(summary.against_sources),
        ("Gone, and told of by no journal (one was lost, or another hand did it):", untold),
        ("Could not be relied on:", remarks),
        ("Deleted, but a file of that name is there again, so not in the list:", summary.put_back),
    ):
        if entries:
            lines += ["", title, *(f"  {entry}" for entry in entries[:named])]
        if len(entries) > named:
            lines.append(f"  … and {len(entries) - named:,} more (--json names all)")
    return [printable(line) for line in lines]


def _rows_of_compared(compared: SourcesCompared | None, how: str) -> list[tuple[str, str]]:
    if compared is None:
        return []
    unread = len(compared.unreadable)
    return [
        ("converted sources still there", f"{compared.there:,}"),
        (f"  compared with their shards {how}", f"{compared.compared:,}"),
        ("    equal, voxel by voxel", f"{compared.equal:,}"),
        ("    of these not wholly held", f"{len(compared.not_wholly_held):,}"),
        ("    DIFFERENT", f"{len(compared.different):,}"),
        ("  could not be compared", f"{unread:,}"),
        ("  went meanwhile", f"{compared.went_meanwhile:,}"),
    ]


def _lists_of_compared(compared: SourcesCompared | None) -> list[tuple[str, list[str]]]:
    if compared is None:
        return []
    return [
        (
            "Different from their shards:",
            [f"{one.key} ({one.source}): {one.difference}" for one in compared.different],
        ),
        (
            "Equal, but the source holds more than its shard:",
            [
                f"{one.key} ({one.source}): {'; '.join(one.left_out)}"
                for one in compared.not_wholly_held
            ],
        ),
        (
            "Could not be compared:",
            [f"{one.key} ({one.source}): {one.unreadable}" for one in compared.unreadable],
        ),
    ]


def _quoted(one: QuotedConsent) -> str:
    """Return a consent in one line: who allowed what, on which terms, and what has gone since."""
    consent = one.consent
    said = [f"rounding: {sentence}" for sentence in consent.rounding] or ["rounding: none"]
    if consent.discard_members:
        said.append(f"discarded: {', '.join(consent.discard_members)}")
    if consent.trash:
        said.append(f"trash: {consent.trash}")
    said += [f"only where {folder} holds the shard too" for folder in consent.copies]
    went = f"gone under it: {_with_bytes(one.gone_sources, one.gone_bytes)}"
    return "; ".join((consent.words(), *said, went, f"consent {consent.name}"))


def page(
    summary: AuditSummary, sources: Sequence[AuditedSource], folder: Path, summary_sha256: str
) -> str:
    """Return the page: the report, how to check the files in ``folder``, and where to sign."""
    return "\n".join(
        [
            "AUDIT OF DELETED SOURCES",
            "",
            *report_lines(summary, sources),
            "",
            f"Every source that is gone, with its shard, member and digests: {summary.list_file},",
            "in the folder below. Both files are those of this page if this says OK twice:",
            "",
            f"cd {shlex.quote(str(folder))} && sha256sum --check <<END",
            f"{summary.list_sha256}  {summary.list_file}",
            f"{summary_sha256}  summary.json",
            "END",
            "",
            "A shard is compared with the list by sha256sum, too.",
            "",
            "",
            "Name       ____________________________________",
            "",
            "Date       ____________________________________",
            "",
            "Signature  ____________________________________",
            "",
        ]
    )


def when_read(read_from: str, read_until: str) -> str:
    """Return when the shards were read, as words for a sentence."""
    return f"by jobs, {read_from} to {read_until}" if read_from else "now"


def verdict(of_gone: str, compared: SourcesCompared | None, when: str = "now") -> str:
    """Return a sentence that claims no more than was looked at.

    ``of_gone`` is its part on the sources that are gone. ``compared`` is about the sources that are
    still there, if that was asked for.
    """
    if compared is None:
        return of_gone
    of_there = _verdict_on_there(compared, when)
    # Bad news comes first.
    return "; ".join((of_there, of_gone) if compared.different else (of_gone, of_there))


def _verdict_on_there(compared: SourcesCompared, when: str) -> str:
    there = _some(compared.there, "source")
    parts = [f"{compared.equal:,} of {there} still there compared {when}, and equal"]
    if compared.different:
        number = f"{len(compared.different):,} of {_some(compared.compared, 'source')}"
        parts.insert(0, f"NOT as their shards have it: {number} compared {when}")
    if compared.not_wholly_held:
        parts.append(f"{len(compared.not_wholly_held):,} of these hold more than their shards")
    if compared.unreadable:
        parts.append(f"{len(compared.unreadable):,} could not be compared")
    return "; ".join(parts)


def verdict_on_gone(
    *,
    gone: int,
    checked: int,
    findings: int,
    untold: int,
    damaged: int,
    unreadable: int,
    by_record: bool,
    views_of: str = "",
    when: str = "now",
) -> str:
    """Return the part of the verdict that is about the sources that are gone.

    ``damaged`` counts the places in plans, records and shards that cannot be relied on,
    ``unreadable`` the lines of journals, consents and sources that cannot be relied on.
    ``by_record`` is True if only a share was to be read. ``views_of`` is the dataset that views
    were made from; other datasets have none.
    """
    doubts = []
    if damaged:
        doubts.append(f"plans, records or shards are damaged in {_some(damaged, 'place')}")
    if untold:
        doubts.append(f"no journal tells of {untold:,} of the sources that are gone")
    if unreadable:
        doubts.append(f"{_some(unreadable, 'entry', 'entries')} could not be relied on")
    # The worst comes first: sources not accounted for, then damage, then reservations.
    if findings:
        words = f"NOT accounted for: {findings:,} of {_some(gone, 'source')} that are gone"
        return "; ".join((words, *doubts))
    read = f"{checked:,} of {gone:,} read and checked {when}, and sound"
    if not gone:
        read = "no source is gone, as far as can be seen" if doubts else "no source is gone"
        if views_of:
            read = f"no source could go: made from shards of {views_of}, which are never deleted"
    if damaged:
        return "; ".join(("DAMAGE, so not all is accounted for", *doubts, read))
    if not gone:
        return "; ".join((read, *doubts))
    how = "accounted for by record" if by_record else "every deleted source is accounted for"
    if doubts:
        how = "accounted for WITH RESERVATIONS" + (", by record" if by_record else "")
    return "; ".join((how, read, *doubts))


def _span(summary: AuditSummary) -> str:
    return f"begun {summary.read_from} to {summary.read_until}"


def _some(number: int, noun: str, nouns: str = "") -> str:
    return f"{number:,} {noun if number == 1 else nouns or noun + 's'}"


def _with_bytes(number: int, size_bytes: int) -> str:
    return f"{number:,} ({size_bytes:,} bytes)"
