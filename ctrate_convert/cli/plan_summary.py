"""Print a plan in ten lines: how many, how big, how long, does it fit; and all of it if asked."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.cells import cell_len

from ctrate_convert.cli import show
from ctrate_convert.cli.language import phrase, translated, word
from ctrate_convert.planning.estimate import peak_extra_bytes
from ctrate_convert.planning.run_estimate import busy_workers
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.records.plan import ExcludedSample, Plan, PlanSettings

_NAMED = 10
_MARGIN = 10
_WORKERS = (8, 16, 32)
_ELEMENTS_AT_ONCE = 256
"""As many as a cluster profile lets run at once unless it says otherwise."""
_CORES_OF_AN_ELEMENT = 8
"""As many as an element gets at most, unless a profile says otherwise."""


def free_bytes(folder: Path) -> int:
    """Return the free bytes where ``folder`` is, or is going to be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def peak_bytes(plan: Plan, num_workers: int, *, deleting: bool) -> int:
    """Return what the plan takes beyond the sources at its peak, with so many workers."""
    workers = busy_workers(plan, num_workers)
    return peak_extra_bytes(plan.shards, deleting=deleting, workers=workers)


def print_summary(
    dataset: Dataset,
    plan: Plan,
    excluded: Sequence[ExcludedSample],
    *,
    deleting: bool,
    num_workers: int,
) -> None:
    """Answer the four questions, and say what becomes of the sources."""
    title = translated(f"Plan {plan.plan_id[:12]} (generation {plan.generation}).")
    show.line(title)
    if plan.settings.view is not None:
        title, native = plan.settings.view.title, plan.settings.data_folder
        show.wrapped(translated(f"These are views {title} of {native}, which stays as it is."))
    else:
        show.wrapped(translated(_sources_words(plan.settings)))
    for name, answer in (
        ("how many", _how_many(plan, excluded)),
        ("how big", _how_big(plan)),
        ("how long", _how_long(plan)),
        ("fits", _fits(dataset, plan, num_workers, deleting=deleting)),
    ):
        label = word(name)
        blanks = " " * (_MARGIN - cell_len(label))
        show.wrapped(f"{label}{blanks}{answer}", indent=_MARGIN)


def _sources_words(settings: PlanSettings) -> str:
    if not settings.delete_source_files:
        return "Sources are KEPT: this plan deletes nothing."
    fate = f"moving to {settings.trash}" if settings.trash else "deletion"
    discarded = ", ".join(settings.discard_members)
    return f"Sources are proposed for {fate}: `run` and `submit` ask before they delete." + (
        f" Discarded with them: {discarded}." if discarded else ""
    )


def _how_many(plan: Plan, excluded: Sequence[ExcludedSample]) -> str:
    shards, tasks = len(plan.shards), len(plan.tasks)
    words = phrase(
        f"{show.count(plan.samples, 'sample')} in {show.count(shards, 'shard')} and "
        f"{show.count(tasks, 'task')}",
        "{samples:,} samples in {shards:,} shards and {tasks:,} tasks",
        samples=plan.samples,
        shards=shards,
        tasks=tasks,
    )
    reasons = Counter(one.reason for one in excluded)
    left = word(", ").join(
        f"{number:,} {word(reason).replace('_', ' ')}" for reason, number in sorted(reasons.items())
    )
    return words + (word("; left out: ") + left if left else "")


def _how_big(plan: Plan) -> str:
    estimate = plan.estimate
    change = estimate.source_bytes / max(1, estimate.output_bytes)
    ratio = (
        word("{:.2f}× smaller").format(change)
        if change >= 1
        else word("{:.2f}× larger").format(1 / change)
    )
    settings = plan.settings
    most = "" if plan.probe or settings.encoding == "npy" else word(" at most (not probed)")
    return word(
        "{source} of sources become {output}{most} in {encoding}, {ratio}; the largest volume has "
        "{largest}"
    ).format(
        source=show.size(estimate.source_bytes),
        output=show.size(estimate.output_bytes),
        most=most,
        encoding=settings.encoding,
        ratio=ratio,
        largest=show.size(estimate.largest_volume_bytes),
    )


def _how_long(plan: Plan) -> str:
    if plan.probe is None:
        return word("not known without a probe")
    cpu_s = plan.probe.chosen.cpu_s
    times: dict[int, str] = {}
    for wanted in _WORKERS:
        busy = busy_workers(plan, wanted)
        times.setdefault(busy, _time(cpu_s / busy))
    here = word(", ").join(
        phrase(
            f"{time} with {show.count(busy, 'worker')}",
            "{time} with {workers:,} workers",
            time=time,
            workers=busy,
        )
        for busy, time in sorted(times.items())
    )
    tasks = len(plan.tasks)
    cores = min(_CORES_OF_AN_ELEMENT, max(Counter(shard.task for shard in plan.shards).values()))
    at_once = min(tasks, _ELEMENTS_AT_ONCE) * cores
    array = _time(cpu_s / busy_workers(plan, at_once))
    return phrase(
        f"{here}; {array} as an array of {show.count(tasks, 'task')}, if storage keeps up",
        "{here}; {array} as an array of {tasks:,} tasks, if storage keeps up",
        here=here,
        array=array,
        tasks=tasks,
    )


def _time(seconds: float) -> str:
    return show.duration(seconds) if seconds >= 1 else word("less than a second")


def _fits(dataset: Dataset, plan: Plan, num_workers: int, *, deleting: bool) -> str:
    peak, free = peak_bytes(plan, num_workers, deleting=deleting), free_bytes(dataset.out)
    busy = busy_workers(plan, num_workers)
    words = phrase(
        f"{show.size(peak)} more at the peak with {show.count(busy, 'worker')}, "
        f"{show.size(free)} free at the output",
        "{peak} more at the peak with {workers:,} workers, {free} free at the output",
        peak=show.size(peak),
        workers=busy,
        free=show.size(free),
    )
    if peak <= free:
        return word("yes: ") + words
    wait = word(". `run` waits for space with --min_free_gb, else it does not begin")
    kept = deleting or plan.settings.view is not None
    advice = "" if kept else word("; --delete_source_files frees space along the way")
    return word("NO: ") + words + wait + advice


def print_excluded(excluded: Sequence[ExcludedSample]) -> None:
    """Print what is left out for each reason, the first ones by name."""
    for reason in sorted({one.reason for one in excluded}):
        mine = [one for one in excluded if one.reason == reason]
        show.line(f"Left out, {reason.replace('_', ' ')}: {len(mine):,}")
        show.some(
            (f"  {one.key}" + (f" ({one.detail})" if one.detail else "") for one in mine), _NAMED
        )


def print_ignored(earlier: Plan, settings: PlanSettings) -> None:
    """Say which of the settings differ from those of the newest plan, and change nothing."""
    now, then = settings.model_dump(), earlier.settings.model_dump()
    changed = [f"--{name} (planned with {_shown(then[name])})" for name in _differing(now, then)]
    if changed:
        show.line(f"Ignored, since nothing new is planned: {', '.join(changed)}.")


def _differing(now: dict[str, object], then: dict[str, object]) -> Iterable[str]:
    # Paths and lists say where to look, and lead to the same samples or to new ones.
    where = ("_folder", "_file")
    about_deletion = ("delete_source_files", "trash", "discard_members", "probe", "limit")
    return [
        name
        for name in now
        if now[name] != then[name] and not name.endswith(where) and name not in about_deletion
    ]


def _shown(value: object) -> str:
    return "none" if value in (None, (), "") else str(value)
