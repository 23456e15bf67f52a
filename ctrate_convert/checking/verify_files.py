"""Verify the files beside the shards: the plans, their lists and the journals.

What a crash leaves behind is no damage and becomes a note; what no writer produces is damage.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ctrate_convert.checking.damage import (
    damaged_plan_files,
    generations_without_a_copy,
    mend_command,
    place_of_lines,
    told,
)
from ctrate_convert.errors import DamageError
from ctrate_convert.store.journals import is_done
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.plans import (
    EXCLUDED_FILE,
    SAMPLES_FILE,
    check_size_of_samples,
    load_excluded,
    load_samples,
)
from ctrate_convert.store.records.base import parse
from ctrate_convert.store.records.damage import Damage
from ctrate_convert.store.records.journal import JournalLine
from ctrate_convert.store.records.plan import Plan


@dataclass(frozen=True)
class PlannedSource:
    """The facts in the plan's line of one sample that later checks use."""

    source: str
    intercept: str


@dataclass
class FileFindings:
    """The findings in files that are not shards.

    ``planned`` has the planned samples by shard number, for every shard whose lines are intact.
    """

    damage: list[Damage] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    planned: dict[int, Mapping[str, PlannedSource]] = field(default_factory=dict)

    def damaged(self, name: str, what: str) -> None:
        """Record what is wrong with the file ``name``, relative to ``.run`` if it is in there."""
        self.damage.append(Damage(name, None, what))


def check_lists(dataset: Dataset, plans: Sequence[Plan], found: FileFindings) -> None:
    """Check every plan's list of samples, shard by shard, and its list of excluded samples."""
    for plan in plans:
        folder = f"{dataset.plans.name}/{dataset.plan(plan.generation).name}"
        for shard in plan.shards:
            try:
                samples = load_samples(dataset, plan, shard)
            except (DamageError, OSError) as error:
                what = f"{place_of_lines(shard)}: {told(error)}"
                found.damaged(f"{folder}/{SAMPLES_FILE}", what)
                continue
            found.planned[shard.index] = {
                one.key: PlannedSource(one.source, one.metadata.get("RescaleIntercept", ""))
                for one in samples
            }
        try:
            check_size_of_samples(dataset, plan)
        except FileNotFoundError:
            pass  # reported above, for each shard
        except (DamageError, OSError) as error:
            found.damaged(f"{folder}/{SAMPLES_FILE}", told(error))
        try:
            load_excluded(dataset, plan)
        except (DamageError, OSError) as error:
            found.damaged(f"{folder}/{EXCLUDED_FILE}", told(error))


def check_plans(dataset: Dataset, plans: Sequence[Plan], found: FileFindings) -> None:
    """Check each generation's ``plan.json`` and its copy: one suffices, two are expected."""
    found.damage += damaged_plan_files(dataset, plans)
    single = generations_without_a_copy(dataset, plans)
    if single:
        names = ", ".join(dataset.plan(generation).name for generation in single)
        found.notes.append(
            f"{dataset.plans.name}/{names}: no second copy of the plan, as earlier versions wrote "
            f"it; make it with: {mend_command(dataset)}"
        )


def check_journals(dataset: Dataset, plans: Sequence[Plan], found: FileFindings) -> None:
    """Check that every line of every journal can be read and names a source of its shard.

    A crash may leave a line that is cut short or empty; nothing rests on such a line.
    """
    known = {dataset.journal(shard.index): shard.index for p in plans for shard in p.shards}
    for path in sorted(dataset.journals.glob("*.jsonl")):
        name = f"{path.parent.name}/{path.name}"
        index = known.get(path)
        if index is None:
            found.damaged(name, "a journal of a shard that no plan knows")
            continue
        if not path.is_file():
            found.damaged(name, "is no regular file")
            continue
        try:
            lines = path.read_bytes().split(b"\n")
        except OSError as error:
            found.damaged(name, told(error))
            continue
        planned = found.planned.get(index)
        gone = 0
        for number, raw in enumerate(lines, 1):
            line = _journal_line(name, number, raw, found) if raw else None
            if line is None:
                continue
            gone += is_done(line)
            if planned is not None and not _is_planned(line, planned):
                what = f"line {number} tells of {line.key}, {line.source}: not planned in its shard"
                found.damaged(name, what)
        if gone and not dataset.record(index).exists():
            what = f"it tells of {gone} sources that were taken away; their shard has no record"
            found.damaged(name, what)


def _journal_line(name: str, number: int, raw: bytes, found: FileFindings) -> JournalLine | None:
    try:
        return parse(JournalLine, raw, name)
    except DamageError as error:
        if _left_by_a_crash(raw):
            what = f"line {number} was cut short, as a crash leaves it; nothing rests on it"
            found.notes.append(f"{name}: {what}")
        else:
            found.damaged(name, f"line {number} cannot be read: {error.what}")
    return None


def _is_planned(line: JournalLine, planned: Mapping[str, PlannedSource]) -> bool:
    return line.key in planned and planned[line.key].source == line.source


def _left_by_a_crash(raw: bytes) -> bool:
    """Return True if the line is cut short, or is the zeros of a block that was never written."""
    text = raw.rstrip(b"\0").decode(errors="ignore")
    if not text:
        return True
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        # In a cut line the parser fails at the end, or at the start of a string that never ends.
        open_string = error.msg.startswith("Unterminated string")
        return not text.endswith("}") and (open_string or error.pos >= len(text))
    return False
