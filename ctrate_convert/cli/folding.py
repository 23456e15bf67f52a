"""Fold equal reasons into one line with a count: twenty files that fail alike are one line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from ctrate_convert.cli import show
from ctrate_convert.cli.language import error_text
from ctrate_convert.errors import CtrateError
from ctrate_convert.store.records.damage import Damage

_IN_ONE_LINE = 6
"""So many findings of one shard are told in its line."""
_FROM = 12
"""So many equal reasons become one line; fewer are told by name."""

_TIME = re.compile(r"(\d{4}-\d\d-\d\d)T[\d:.]+(\+00:00|Z)?")
_SHARD = re.compile(r"shard[ -]\d+\S*")


def by_reason(told: Iterable[tuple[str, str]]) -> list[list[tuple[str, str]]]:
    """Group names with their reasons; two are equal apart from the names and the time of day."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for name, reason in told:
        groups.setdefault(_apart_from(name, reason), []).append((name, reason))
    return list(groups.values())


def folded(
    title: str, told: Iterable[tuple[str, str]], noun: str, joint: str = ": "
) -> Iterator[str]:
    """Yield a line for each name with its reason, or one for all that have the same reason."""
    title = f"  {title}: " if title else "  "
    for group in by_reason(told):
        if len(group) < _FROM:
            yield from (f"{title}{name}{joint}{reason}" for name, reason in group)
            continue
        name, reason = group[0]
        reason = _TIME.sub(r"\1", reason)
        yield f"{title}{show.count(len(group), noun)}, such as {name}{joint}{reason}"


def folded_notes(notes: Iterable[str]) -> Iterator[str]:
    """Yield the notes; those that say the same of several samples become one."""
    told = [(name if rest else "", rest or note) for note in notes for name, rest in [_split(note)]]
    for group in by_reason(told):
        name, reason = group[0]
        if name and len(group) >= _FROM:
            yield f"{name} and {len(group) - 1:,} more: {reason}"
            continue
        yield from (f"{name}: {reason}" if name else reason for name, reason in group)


def folded_damage(damage: Iterable[Damage]) -> Iterator[str]:
    """Yield a line for each damaged shard, with its first findings; other files have one each."""
    by_shard: dict[str, list[Damage]] = {}
    for one in damage:
        by_shard.setdefault(one.shard, []).append(one)
    for shard, found in by_shard.items():
        if len(found) == 1 or not shard.endswith(".tar"):
            yield from map(damage_line, found)
            continue
        # What concerns the whole shard comes first.
        found.sort(key=lambda one: one.key is not None)
        told = [f"{one.key}: {one.what}" if one.key else one.what for one in found]
        more = "; …" if len(told) > _IN_ONE_LINE else ""
        number = show.count(len(told), "finding")
        yield f"  {shard}: {number}: {'; '.join(told[:_IN_ONE_LINE])}{more}"


def damage_line(one: Damage) -> str:
    """Return one finding as a line."""
    return f"  {one.shard}, {one.key}: {one.what}" if one.key else f"  {one.shard}: {one.what}"


def print_shard_errors(errors: Sequence[tuple[int, CtrateError]]) -> None:
    """Print the errors of shards; for those with the same one, that error once."""
    groups: dict[object, list[tuple[int, CtrateError]]] = {}
    for shard, error in sorted(errors, key=lambda one: one[0]):  # not as they came
        groups.setdefault(same_error(error), []).append((shard, error))
    for group in groups.values():
        show.line(error_text(group[0][1]))
        if len(group) > 1:
            others = ", ".join(str(shard) for shard, _ in group[1:_FROM])
            more = ", …" if len(group) > _FROM else ""
            show.line(f"  the same of {show.count(len(group) - 1, 'more shard')}: {others}{more}")


def same_error(error: CtrateError) -> object:
    """Return what two errors have in common that are the same but for the shard."""
    return type(error), _SHARD.sub("", error.what)


def _apart_from(name: str, reason: str) -> str:
    # A path of the sample's file goes as a whole: folders bear parts of the name.
    if name:
        stem = re.escape(name.rpartition("/")[2].partition(".")[0])
        reason = re.sub(rf"\S*{stem}\S*", "", reason)
    return _TIME.sub(r"\1", reason)


def _split(note: str) -> tuple[str, str]:
    """Split ``KEY: what``; a note without a key has no second part."""
    name, _, rest = note.partition(": ")
    return (name, rest) if rest and " " not in name else (note, "")
