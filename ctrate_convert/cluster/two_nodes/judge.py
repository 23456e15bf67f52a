"""Judge the reports of two nodes on the mount between them, as findings. Pure: reports in.

What either side never came to is "not tested"; on one machine nothing is ever called good.
"""

from __future__ import annotations

import dataclasses
from collections import Counter

from ctrate_convert.checking.doctor.finding import Finding
from ctrate_convert.cluster.two_nodes.take_part import (
    APPEND_ROUNDS,
    LINK_ROUNDS,
    Lock,
    NodeReport,
    appended_line,
)

_SLOW_TO_SEE_S = 5.0
_CLOCKS_APART_S = 1.0
_NOT_KNOWN = "how this mount behaves between nodes is not known"
_LOCKS_ONLY_SAVE_WORK = (
    "locks only save work: two tasks may convert the same shard, one result is thrown away; "
    "publication by link stays correct"
)


def not_tested(why: str) -> Finding:
    """Return the finding that nothing is known of two nodes, and why."""
    return Finding("two nodes", "not tested", why, _NOT_KNOWN)


def findings_between(first: NodeReport | None, second: NodeReport | None) -> tuple[Finding, ...]:
    """Return one finding for everything that two nodes try with each other."""
    if first is None or second is None:
        here = first or second
        why = "neither node left a report" if here is None else f"only {here.node} left a report"
        said = f": {here.stopped}" if here and here.stopped else ""
        return (not_tested(why + said),)
    found = (
        _lock("flock between nodes", second.flock),
        _lock("filelock between nodes", second.filelock),
        _visibility(first),
        _links(first, second),
        _replaces(second),
        _clocks(first, second),
        _appends(first, second),
    )
    stopped = " ".join(f"{r.node}: {r.stopped}." for r in (first, second) if r.stopped)
    filled = [_why_not(finding, stopped) for finding in found]
    names = f"{first.node} and {second.node}"
    # Two names may stand for one machine; the boot's id tells.
    if first.node != second.node and first.boot != second.boot:
        return (Finding("two nodes", "good", names), *filled)
    same = Finding(
        "two nodes", "weaker", f"{names} are one machine",
        "what follows shows nothing about nodes that are two",
    )  # fmt: skip
    return (same, *map(_no_better_than_weaker, filled))


def _why_not(finding: Finding, stopped: str) -> Finding:
    if finding.verdict != "not tested":
        return finding
    return dataclasses.replace(finding, seen=stopped or "no result", consequence=_NOT_KNOWN)


def _no_better_than_weaker(finding: Finding) -> Finding:
    if finding.verdict != "good":
        return finding
    return dataclasses.replace(
        finding, verdict="weaker", consequence="seen on one machine, not between two"
    )


def _lock(what: str, lock: Lock | None) -> Finding:
    if lock is None:
        return Finding(what, "not tested", "")
    if lock.while_held != "excluded":
        return Finding(what, "weaker", lock.while_held, _LOCKS_ONLY_SAVE_WORK)
    if lock.after_release_s is None:
        return Finding(
            what, "weaker", "excluded, and not let in 30 s after the release",
            "a command may wait for a lock that nobody holds; it then says so and ends",
        )  # fmt: skip
    return Finding(
        what, "good", f"excluded while held, let in {lock.after_release_s:.2f} s after the release"
    )


def _visibility(first: NodeReport) -> Finding:
    what = "seen by the other node"
    if first.seen_s is None or first.gone_s is None:
        return Finding(what, "not tested", "")
    seen = (
        f"a new name, and the answer to it, within {first.seen_s:.2f} s; "
        f"a removed one within {first.gone_s:.2f} s"
    )
    if max(first.seen_s, first.gone_s) < _SLOW_TO_SEE_S:
        return Finding(what, "good", seen)
    return Finding(
        what, "weaker", seen,
        "status and merge may be that late, and a shard may be converted twice; one result counts",
    )  # fmt: skip


def _links(first: NodeReport, second: NodeReport) -> Finding:
    what = "one link wins between nodes"
    if None in (first.links_won, second.links_won, first.finals, second.finals):
        return Finding(what, "not tested", "")
    won = [set(first.links_won or ()), set(second.links_won or ())]
    twice, nobody = won[0] & won[1], set(range(LINK_ROUNDS)) - won[0] - won[1]
    wrong = [
        number
        for finals in (first.finals or (), second.finals or ())
        for number, winner in enumerate(finals)
        if number not in won[winner]
    ]
    if not twice and not nobody and not wrong:
        return Finding(
            what, "good", f"{LINK_ROUNDS} rounds: {len(won[0])} to one, {len(won[1])} to the other"
        )
    return Finding(
        what, "bad",
        f"of {LINK_ROUNDS} rounds {len(twice)} won by both, {len(nobody)} by neither, "
        f"{len(set(wrong))} held the loser's file",
        "a shard could be taken for published that is not: use one node, or another file system",
    )  # fmt: skip


def _replaces(second: NodeReport) -> Finding:
    what = "renames seen by the other node"
    if second.replaced_reads is None or second.replaced_not_whole is None:
        return Finding(what, "not tested", "")
    if not second.replaced_not_whole:
        return Finding(what, "good", f"{second.replaced_reads} reads, each of a whole file")
    return Finding(
        what, "weaker",
        f"{second.replaced_not_whole} of {second.replaced_reads} reads found no whole file",
        "a manifest or a note may be unreadable for a moment while it is replaced; it is read "
        "again, and no deletion goes on without it",
    )  # fmt: skip


def _clocks(first: NodeReport, second: NodeReport) -> Finding:
    what = "clocks of the nodes"
    ahead, error = first.clock_ahead_s, first.clock_error_s
    if ahead is None or error is None or second.storage_ahead_s is None:
        return Finding(what, "not tested", "")
    storage = max(first.storage_ahead_s or 0.0, second.storage_ahead_s, key=abs)
    seen = f"{abs(ahead):.3f} s apart (± {error:.3f} s), storage {abs(storage):.3f} s"
    if abs(ahead) + error < _CLOCKS_APART_S and abs(storage) < _CLOCKS_APART_S:
        return Finding(what, "good", seen)
    return Finding(
        what, "weaker", seen,
        "status and history may order runs wrongly; deletion compares a source's times only with "
        "themselves",
    )  # fmt: skip


def _appends(first: NodeReport, second: NodeReport) -> Finding:
    what = "appends from two nodes"
    if first.appended is None or second.appended is None:
        return Finding(what, "not tested", "")
    wanted = {appended_line(side, n) for side in (0, 1) for n in range(APPEND_ROUNDS)}
    lost, torn = 0, 0
    for lines in (first.appended, second.appended):
        counted = Counter(line for line in lines if line)
        lost = max(lost, len(wanted - counted.keys()))
        torn = max(torn, sum(counted[line] for line in counted.keys() - wanted))
    if not lost and not torn:
        return Finding(what, "good", f"{len(wanted)} lines, all whole")
    return Finding(
        what, "weaker", f"of {len(wanted)} lines {lost} lost, {torn} torn",
        "two nodes never append to one journal unless locks fail too; then notes on deletions "
        "may be lost: delete from one node at a time",
    )  # fmt: skip
