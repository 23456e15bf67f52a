"""The page of a dataset: what was promised, what became, when, where, and what is in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ctrate_convert import __version__
from ctrate_convert.checking.promises import NOTE, rows
from ctrate_convert.looking.words import count, seconds, size
from ctrate_convert.reporting import about_volumes, course, course_charts, volume_charts
from ctrate_convert.reporting.about_volumes import NOTHING, counted, first
from ctrate_convert.reporting.course import Outcome, Row
from ctrate_convert.reporting.facts import NAMED, Facts, Filed, Used
from ctrate_convert.reporting.markup import (
    charts,
    figure,
    key,
    paragraph,
    quotes,
    table,
    text,
    tiles,
    timeline,
    whole,
)

_SOME_TASKS = 12
"""Tasks from which on a chart also tells how many were under way at a time."""


def page(facts: Facts) -> bytes:
    """Return the page as one HTML file that holds all it shows."""
    sections = {
        "totals": ("Totals", _totals(facts)),
        "promises": ("Promised and became", _promises(facts)),
        "course": ("Throughput and space", _course(facts)),
        "timelines": ("Nodes and tasks", _timelines(facts)),
        "sizes": ("Sizes and ratios", about_volumes.sizes(facts)),
        "errors": ("Errors and Hounsfield units", about_volumes.errors(facts)),
        "geometry": ("Shapes and spacings", about_volumes.geometry(facts)),
        "labels": ("Labels", about_volumes.labels(facts)),
        "failed": ("Failed and excluded", _left_out(facts)),
        "deletion": ("Consents and audits", _deletion(facts)),
        "gallery": ("Volumes", about_volumes.gallery(facts)),
    }
    header = (
        f"<h1>{text(facts.out)}</h1>"
        + paragraph(f"Report of {facts.time:%Y-%m-%d %H:%M:%S} UTC", "muted")
        + paragraph(facts.verdict, f"verdict {facts.state}")
    )
    footer = text(
        f"Written by ctrate-convert {__version__} from plans, records, journals and attempts in "
        "this dataset. Records tell what was measured when a shard was written; only verify and "
        "audit read shards again."
    )
    return whole(f"{facts.out}: report", header, sections, footer)


def _totals(facts: Facts) -> str:
    found, samples = facts.report, facts.samples
    source_bytes = int(found.total("source_bytes") or 0)
    output_bytes = int(found.total("output_bytes") or 0)
    attempts = found.attempts
    ended = ", ".join(f"{number} {how}" for how, number in attempts.ended.items())
    parts = [
        tiles(
            [
                ("converted", f"{samples['converted']:,}", f"of {samples['total']:,} volumes"),
                ("failed", f"{samples['failed']:,}", "sources kept"),
                ("pending", f"{samples['pending']:,}", "planned, not recorded"),
                ("excluded", f"{samples['excluded']:,}", "by lists, tables and names"),
                ("shards", f"{len(found.shards):,}", f"of {found.shards_planned:,} planned"),
                ("sources", size(source_bytes), "of the recorded shards"),
                ("written", size(output_bytes), "the recorded shards"),
                ("freed", size(found.freed_bytes), count(found.deleted_files, "deleted source")),
                ("under way", seconds(found.wall_s), count(found.workers, "worker") + " at most"),
                ("attempts", f"{attempts.attempts:,}", ended),
                ("memory", size(attempts.max_rss_bytes), "at most, in one process"),
            ]
        )
    ]
    plans = [
        (
            plan.generation,
            f"{plan.created[:19].replace('T', ' ')}",
            f"{plan.samples:,}",
            f"{len(plan.shards):,}",
            _settings(facts, generation=place),
            plan.program_version,
        )
        for place, plan in enumerate(facts.plans)
    ]
    names = (">plan", "made (UTC)", ">volumes", ">shards", "stored as", "by version")
    parts.append(table("Plans", names, plans))
    if facts.damage:
        shown = [(one.shard, one.what) for one in facts.damage[:NAMED]]
        parts.append(table(f"Damaged files{first(len(facts.damage))}", ("file", "what"), shown))
    if facts.notes:
        parts += ["<h3>Could not be told</h3>", quotes(facts.notes)]
    return "\n".join(parts)


def _settings(facts: Facts, generation: int) -> str:
    settings = facts.plans[generation].settings
    purpose = "; repairs" if facts.plans[generation].repairs else ""
    if settings.view is not None:
        stored = f"{settings.layout}, {settings.encoding}, {settings.view.output}{purpose}"
        return f"{settings.view_words}: {stored}"
    step = f", step {settings.step:g}" if settings.step else ""
    return f"{settings.layout}, {settings.encoding}, {settings.dtype}{step}{purpose}"


def _promises(facts: Facts) -> str:
    found = facts.report
    planned = [
        (
            plan.generation,
            size(plan.estimate.source_bytes),
            size(plan.estimate.output_bytes),
            size(plan.estimate.peak_extra_bytes),
            size(plan.estimate.largest_volume_bytes),
            f"{plan.probe.volumes:,} volumes" if plan.probe else "no probe",
        )
        for plan in facts.plans
    ]
    names = (">plan", ">sources", ">promised", ">peak disk", ">largest volume", "probed")
    whole_plans = table("What the plans promise, whole", names, planned)
    if not found.shards:
        return whole_plans + paragraph(f"{NOTHING} There is nothing to compare.")
    compared = table(
        f"Of {count(len(found.shards), 'recorded shard')}",
        ("", ">promised", ">became", ">promised / became"),
        rows(found),
    )
    told = paragraph(NOTE.replace("\n", " "), "muted")
    chart = figure(
        volume_charts.promised(found.shards),
        "Shards, promised and become.",
        "On the line: as promised. Below it: smaller, as where samples failed.",
    )
    return charts([compared, chart], kind="broad") + told + whole_plans


def _course(facts: Facts) -> str:
    if not facts.runs:
        return paragraph(NOTHING)
    lasted_s = max(run.ended_s for run in facts.runs) - min(run.started_s for run in facts.runs)
    remark = (
        f"{seconds(lasted_s)} from the first shard's beginning to the last one's end. Each "
        "shard's bytes are spread evenly over its conversion, re-read included."
    )
    freed = "A source in a trash frees nothing." if facts.freed else "No source was deleted."
    return charts(
        [
            figure(course_charts.throughput(facts.runs), "Throughput of sources.", remark),
            figure(
                course_charts.disk(facts.runs, facts.freed),
                "Shards written and sources freed, in sum.",
                f"From records and journals. {freed}",
            ),
        ]
    )


def _timelines(facts: Facts) -> str:
    nodes = course.node_rows(facts.attempts, facts.runs)
    tasks = course.task_rows(facts.attempts, facts.runs, facts.tasks)
    if not nodes:
        return paragraph("No attempt was made yet.")
    there = {bar.outcome for row in (*nodes, *tasks) for bar in row.bars}
    parts = [key(outcome for outcome in Outcome if outcome in there)]
    parts.append(
        timeline(
            course_charts.timeline("nodes", "Attempts on each node over time", nodes),
            f"Attempts on {count(len(nodes), 'node')}.",
            _part_of(nodes, "nodes"),
        )
    )
    if tasks:
        remark = (
            "An attempt of one task is one bar; of an attempt of several, each task has what "
            f"records tell of its shards. {_part_of(tasks, 'tasks')}"
        )
        about = "Attempts of each task over time"
        few = len(course_charts.shown_rows(tasks)) == len(tasks)
        drawings = course_charts.timeline("tasks", about, tasks, since_first=not few)
        parts.append(timeline(drawings, f"{count(len(tasks), 'task')}.", remark))
    more = []
    if len(tasks) >= _SOME_TASKS:
        remark = "By the outcome of the attempt; the mean of each stretch of time."
        more.append(figure(course_charts.under_way(tasks), "Tasks under way.", remark))
    troubled = _reasons(facts)
    if troubled:
        title = "Attempts that did not end well, by reason"
        more.append(table(title, (">attempts", "how", "why"), troubled))
    if more:
        parts.append(charts(more))
    return "\n".join(parts)


def _part_of(rows: Sequence[Row], noun: str) -> str:
    shown = course_charts.shown_rows(rows)
    told = []
    if course_charts.are_summed(rows):
        told.append("The height of a row tells how many attempts were under way, by outcome.")
    if len(shown) < len(rows):
        told.append(f"{len(shown)} of {len(rows):,} {noun} are shown, those with trouble first.")
    return " ".join(told)


def _reasons(facts: Facts) -> list[tuple[str, str, str]]:
    """Return how many attempts ended badly, how and why, the most frequent first."""
    why: Counter[tuple[str, str]] = Counter()
    for one in facts.attempts:
        if one.end is None:
            why["no end record", "under way, or killed"] += 1
        elif one.end.outcome != "done":
            why[one.end.outcome, one.end.reason] += 1
    return [(f"{number:,}", how, reason) for (how, reason), number in why.most_common(NAMED)]


def _left_out(facts: Facts) -> str:
    parts = []
    number = facts.failed_why.total()
    if number:
        shown = [(one.key, one.source, one.reason) for one in facts.failed]
        kept = "" if facts.report.view else ", source kept"
        parts += [
            counted(f"{count(number, 'failed volume')}{kept}", "why", facts.failed_why),
            table(f"Failed{first(number)}", ("volume", "source", "why"), shown),
        ]
    else:
        parts.append(paragraph("No volume failed."))
    excluded = Counter(facts.plans[-1].excluded)
    if excluded:
        out = [(one.key, one.reason, one.detail, one.source or "") for one in facts.excluded]
        parts += [
            counted(f"{count(excluded.total(), 'excluded volume')}", "why", excluded),
            table(f"Excluded{first(excluded.total())}", ("volume", "why", "detail", "source"), out),
        ]
    else:
        parts.append(paragraph("No volume is excluded."))
    return "\n".join(parts)


def _deletion(facts: Facts) -> str:
    parts = ["<h3>Consents to delete</h3>"]
    if facts.consents:
        parts.append(quotes(_quoted(one) for one in facts.consents))
    else:
        parts.append(paragraph("Nobody consented to a deletion."))
    parts.append("<h3>Audits</h3>")
    if facts.audits:
        parts.append(quotes(_told(one) for one in facts.audits))
    else:
        parts.append(paragraph("No audit was filed: ctrate-convert audit OUT makes one."))
    return "\n".join(parts)


def _quoted(one: Used) -> str:
    consent = one.consent
    said = [consent.words(), *(f"rounding: {sentence}" for sentence in consent.rounding)]
    if consent.discard_members:
        said.append(f"discarded: {', '.join(consent.discard_members)}")
    said += [f"only where {folder} holds the shard too" for folder in consent.copies]
    gone = f"gone under it, by the journals: {count(one.gone, 'file')}, {size(one.gone_bytes)}"
    return "; ".join((*said, gone))


def _told(one: Filed) -> str:
    summary = one.summary
    if summary is None:
        return f"{one.name}: its summary is damaged, or of another version"
    return (
        f"{summary.time}, {summary.user} on {summary.host}: {summary.verdict} "
        f"{count(summary.gone_sources, 'source')} gone, {summary.checked_now:,} of them checked, "
        f"{count(summary.findings, 'finding')}."
    )
