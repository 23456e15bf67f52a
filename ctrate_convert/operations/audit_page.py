"""The audit as a page: what a data manager reads, signs and files."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from ctrate_convert.schemas.audit import AuditedSource, AuditSummary

_NAMED = 50


def report_lines(
    summary: AuditSummary, sources: Sequence[AuditedSource], *, named: int = _NAMED
) -> list[str]:
    """All that the summary says, and what is wrong by name; of each kind at most ``named``."""
    rows = [
        ("dataset", summary.out),
        *(("data folder", folder) for folder in summary.data_folders),
        *(("plan", plan) for plan in summary.plans),
        ("audited", f"{summary.time} by {summary.user} on {summary.host}"),
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
        ("read and checked now", f"{summary.checked_now:,} of {summary.gone_sources:,} sources"),
        (
            "  their members",
            f"{summary.members_read_now:,} read, {summary.members_sound_now:,} of them sound",
        ),
        (
            "  read from storage",
            f"{summary.read_bytes:,} bytes, {_some(summary.shards_read_whole, 'shard')} whole",
        ),
        ("not accounted for", f"{summary.findings:,}"),
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
        ("Not accounted for:", bad),
        ("Gone, and told of by no journal (one was lost, or another hand did it):", untold),
        ("Could not be relied on:", remarks),
        ("Deleted, but a file of that name is there again, so not in the list:", summary.put_back),
    ):
        if entries:
            lines += ["", title, *(f"  {entry}" for entry in entries[:named])]
        if len(entries) > named:
            lines.append(f"  … and {len(entries) - named:,} more (--json names all)")
    return [_printable(line) for line in lines]


def page(
    summary: AuditSummary, sources: Sequence[AuditedSource], folder: Path, summary_sha256: str
) -> str:
    """The page: the report, how to check what lies beside it in ``folder``, and where to sign."""
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


def verdict(
    *,
    gone: int,
    checked: int,
    findings: int,
    untold: int,
    damaged: int,
    unreadable: int,
    by_record: bool,
) -> str:
    """One sentence that claims no more than was looked at.

    ``damaged``: places in plans, records and shards that cannot be relied on. ``unreadable``:
    lines of journals, and sources, that cannot be read or looked at. ``by_record``: only a share
    was to be read.
    """
    doubts = []
    if damaged:
        doubts.append(f"plans, records or shards are damaged in {_some(damaged, 'place')}")
    if untold:
        doubts.append(f"no journal tells of {untold:,} of the sources that are gone")
    if unreadable:
        doubts.append(f"{_some(unreadable, 'entry', 'entries')} could not be relied on")
    if findings:
        words = f"NOT accounted for: {findings:,} of {_some(gone, 'source')} that are gone"
        return "; ".join((words, *doubts))
    read = f"{checked:,} of {gone:,} read and checked now, and sound"
    if not gone:
        read = "no source is gone, as far as can be seen" if doubts else "no source is gone"
    if damaged:
        return "; ".join(("DAMAGE, so not all is accounted for", *doubts, read))
    if not gone:
        return "; ".join((read, *doubts))
    how = "accounted for by record" if by_record else "every deleted source is accounted for"
    if doubts:
        how = "accounted for WITH RESERVATIONS" + (", by record" if by_record else "")
    return "; ".join((how, read, *doubts))


def _some(number: int, noun: str, nouns: str = "") -> str:
    return f"{number:,} {noun if number == 1 else nouns or noun + 's'}"


def _with_bytes(number: int, size_bytes: int) -> str:
    return f"{number:,} ({size_bytes:,} bytes)"


def _printable(line: str) -> str:
    """The line without what could pass for other lines: a name may hold anything."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
