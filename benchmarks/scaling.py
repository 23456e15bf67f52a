"""Two workers against one: what they cost each other.

In memory, where there is room for it: two workers write a shared machine's storage full sooner
than they use up two cores, and the figure would be the storage's. Copying alone, in the same
turns, tells what the machine's memory leaves to gain.
"""

from __future__ import annotations

import functools
import multiprocessing
import shutil
import tempfile
from collections.abc import Callable, Sequence
from multiprocessing.pool import Pool
from pathlib import Path

from benchmarks.conversion import (
    Candidate,
    Size,
    inputs_of,
    original,
    ours,
    run_jobs,
    usual_candidates,
)
from benchmarks.measure import Cost, Spread, in_turns, touch_memory
from benchmarks.report import Table, Target, load
from benchmarks.volumes import SourceKind

FULL = Size((480, 480, 120), rounds=7)
QUICK = Size((480, 480, 60), rounds=2)

_KINDS = (SourceKind("float32", deflated=True), SourceKind("float32", deflated=False))
_COPIED = SourceKind("float32", deflated=False)
_TARGET = Target("samples/s", low=1.8)
_MEMORY = Path("/dev/shm")
_ROOM_BYTES = 6 * 2**30
_TOUCHED_BYTES = 2**31
_SAMPLES = 4
"""Of one worker; two get twice as many, one a shard, so that they end at about the same time."""

_QUIET = 0.7
"""The load average up to which nobody else is taken to use the machine."""

Way = Callable[[Pool, int], Cost]


def table(work: Path, size: Size) -> Table:
    """Measure each kind of source: copying, the original's way and ours in turns."""
    before = load()
    in_memory = _has_room(_MEMORY)
    with tempfile.TemporaryDirectory(
        prefix="ctrate-convert-bench-", dir=_MEMORY if in_memory else work
    ) as folder:
        rows = [row for kind in _KINDS for row in _rows(Path(folder), work, kind, size)]
    quiet = (
        "nobody else seemed to use the machine"
        if before <= _QUIET
        else "others used the machine, so the columns of samples/s show nothing but that"
    )
    return Table(
        "Two workers against one",
        ["source → encoding", "samples/s", f"{_TARGET.low}×", "CPU per sample", "cores of one"],
        rows,
        [
            f"Load average before the run {before:.1f}: {quiet}.",
            f"Volumes of {'×'.join(map(str, size.shape))}, {_SAMPLES} a worker; shards and sources "
            + ("in memory (tmpfs)." if in_memory else "on disk, since tmpfs has no room."),
            "samples/s by wall clock: 2× is perfect. CPU per sample: 1× is nothing lost.",
            "Copied and nothing else is work for memory and for the kernel, which fills fresh "
            "pages: what that gains is what the machine's memory leaves to gain.",
            "Cores of one: CPU over wall clock of one worker alone, which reads its shard back in "
            "a second thread. It can gain no more than 2× over that.",
        ],
    )


def _has_room(folder: Path) -> bool:
    return folder.is_dir() and shutil.disk_usage(folder).free >= _ROOM_BYTES


def _rows(where: Path, work: Path, kind: SourceKind, size: Size) -> list[list[str]]:
    inputs, out = where / "inputs", where / "out"
    # The volumes are made, and kept, on disk; here is a copy.
    with inputs_of(work, kind, size, 2 * _SAMPLES) as made:
        shutil.copytree(made, inputs)
    ways = _ways(kind, inputs, out)
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as one, context.Pool(2) as two:
        turns = [
            functools.partial(_turn, way, pool, samples)
            for way in ways.values()
            for pool, samples in ((one, _SAMPLES), (two, 2 * _SAMPLES))
        ]
        costs = in_turns(turns, size.rounds)
    shutil.rmtree(inputs)
    return [
        _row(name, alone, both)
        for name, alone, both in zip(ways, costs[::2], costs[1::2], strict=True)
    ]


def _ways(kind: SourceKind, inputs: Path, out: Path) -> dict[str, Way]:
    ways: dict[str, Way] = {}
    if kind == _COPIED:
        ways[f"{kind.name}, copied and nothing else"] = functools.partial(_copied, inputs, out)
    ways[f"{kind.name} → the original's layout"] = functools.partial(_original, inputs, out)
    for candidate in usual_candidates(kind):
        way = functools.partial(_ours, inputs, out, candidate)
        ways[f"{kind.name} → {candidate.name}"] = way
    return ways


def _copied(inputs: Path, out: Path, pool: Pool, samples: int) -> Cost:
    out.mkdir()
    sources = sorted((inputs / "npz").iterdir())[:samples]
    copies = [functools.partial(shutil.copyfile, path, out / path.name) for path in sources]
    return run_jobs(pool, copies, out)


def _original(inputs: Path, out: Path, pool: Pool, samples: int) -> Cost:
    return original(pool, inputs, out, samples, samples_a_shard=1)


def _ours(inputs: Path, out: Path, candidate: Candidate, pool: Pool, samples: int) -> Cost:
    return ours(pool, inputs, out, samples, 1, candidate)


def _turn(way: Way, pool: Pool, samples: int) -> Cost:
    # Pages that the machine has just handed out, so that no turn waits for more than another.
    touch_memory(_TOUCHED_BYTES)
    return way(pool, samples)


def _row(name: str, alone: Sequence[Cost], both: Sequence[Cost]) -> list[str]:
    pairs = list(zip(alone, both, strict=True))
    gain = Spread.of(2 * one.wall_s / two.wall_s for one, two in pairs)
    return [
        name,
        str(gain),
        _TARGET.verdict(gain.median),
        f"{Spread.of(two.cpu_s / one.cpu_s / 2 for one, two in pairs).median:.2f}×",
        f"{Spread.of(one.cpu_s / one.wall_s for one in alone).median:.2f}",
    ]
