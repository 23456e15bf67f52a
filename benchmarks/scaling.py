"""Two workers against one: what they cost each other.

In memory, where there is room for it: two workers write a shared machine's storage full sooner
than they use up two cores, and the figure would be the storage's.
"""

from __future__ import annotations

import functools
import multiprocessing
import shutil
from collections.abc import Sequence
from pathlib import Path

from benchmarks.conversion import Candidate, Size, candidates, inputs_of, original, ours
from benchmarks.measure import Cost, Spread, in_turns
from benchmarks.report import Table, load
from benchmarks.volumes import SourceKind

_KINDS = (SourceKind("float32", deflated=True), SourceKind("float32", deflated=False))
_IN_MEMORY = Path("/dev/shm/ctrate-convert-bench")
_ROOM_BYTES = 6 * 2**30
_SAMPLES = 2
"""Of one worker; two get twice as many, one a shard, so that they end at about the same time."""

_QUIET = 0.7
"""The load average up to which nobody else is taken to use the machine."""


def table(work: Path, size: Size) -> Table:
    """Measure each kind of source, the original's way and ours in turns."""
    before = load()
    where = _IN_MEMORY if _has_room(_IN_MEMORY.parent) else work
    rows = [row for kind in _KINDS for row in _rows(where, work, kind, size)]
    if where == _IN_MEMORY:
        shutil.rmtree(_IN_MEMORY)
    quiet = (
        "nobody else seemed to use the machine"
        if before <= _QUIET
        else "others used the machine, so the columns of samples/s show nothing but that"
    )
    return Table(
        "Two workers against one",
        ["source → encoding", "samples/s", "CPU per sample"],
        rows,
        [
            f"Load average before the run {before:.1f}: {quiet}.",
            "Shards and sources in memory (tmpfs)."
            if where == _IN_MEMORY
            else "Shards and sources on disk, since there is no room in memory (tmpfs).",
            "samples/s by wall clock: 2× is perfect. CPU per sample: 1× is nothing lost.",
            "One worker alone reads its shard back in a second thread, and so uses a little of "
            "the second core already.",
        ],
    )


def _has_room(folder: Path) -> bool:
    return folder.is_dir() and shutil.disk_usage(folder).free >= _ROOM_BYTES


def _rows(where: Path, work: Path, kind: SourceKind, size: Size) -> list[list[str]]:
    context = multiprocessing.get_context("spawn")
    where.mkdir(exist_ok=True)
    # The volumes are made, and kept, on disk; here is a copy.
    with inputs_of(work, kind, size, 2 * _SAMPLES) as made:
        shutil.copytree(made, where / "scaling")
    inputs, out = where / "scaling", where / "out"
    wanted = [None, *(one for one in candidates(kind) if one.encoding != "npy.gz")]
    with context.Pool(1) as one, context.Pool(2) as two:
        ways = [
            functools.partial(original, pool, inputs, out, samples, 1)
            if candidate is None
            else functools.partial(ours, pool, inputs, out, samples, 1, candidate)
            for candidate in wanted
            for pool, samples in ((one, _SAMPLES), (two, 2 * _SAMPLES))
        ]
        costs = in_turns(ways, size.rounds)
    shutil.rmtree(inputs)
    return [
        _row(kind, candidate, alone, both)
        for candidate, alone, both in zip(wanted, costs[::2], costs[1::2], strict=True)
    ]


def _row(
    kind: SourceKind, candidate: Candidate | None, alone: Sequence[Cost], both: Sequence[Cost]
) -> list[str]:
    pairs = list(zip(alone, both, strict=True))
    return [
        f"{kind.name} → {candidate.name if candidate else 'the original layout'}",
        str(Spread.of(2 * one.wall_s / two.wall_s for one, two in pairs)),
        f"{Spread.of(two.cpu_s / one.cpu_s / 2 for one, two in pairs).median:.2f}×",
    ]
