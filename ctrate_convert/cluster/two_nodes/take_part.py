"""Let two tasks on two nodes test storage with each other, through nothing but a shared folder.

Each side writes ``report-0.json`` or ``report-1.json`` there; `findings_between` judges both.

    python -m ctrate_convert.cluster.two_nodes.take_part FOLDER SIDE [SECONDS_TO_WAIT]
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ctrate_convert.errors import CtrateError, EnvironmentProblem
from ctrate_convert.store.durable import (
    append_lines,
    create_once,
    fsync_directory,
    link_if_absent,
    replace,
    write_all,
)
from ctrate_convert.store.locks import locked
from ctrate_convert.store.records.base import Record, read

LINK_ROUNDS = 50
REPLACE_ROUNDS = 50
APPEND_ROUNDS = 50

_VISIBILITY_ROUNDS = 5
_WAIT_S = 100.0
"""Longer than any attribute cache keeps a directory by default."""
_ALL_S = 480.0  # less than the job's time limit, so that a report is written in any case
_LOOK_S = 0.002
# Both sides wait for the next multiple of this time, to act at the same moment.
_TICK_S = 0.05
_FILLER = "x" * 200


class Lock(Record):
    """The test of one kind of lock.

    ``while_held`` is what one side got while the other held the lock. ``after_release_s`` is how
    long it took to get the lock after the release; None if it was never got.
    """

    while_held: str
    after_release_s: float | None


class NodeReport(Record):
    """The report of one side: what it did and saw. A field is None if the side never came to it.

    ``stopped`` tells why. ``seen_s`` and ``gone_s`` are round trips by one clock: published here,
    seen there, the answer seen here. ``clock_ahead_s`` is the other node's clock minus this one's.
    """

    schema_number: int = 1
    side: int
    node: str
    boot: str
    flock: Lock | None = None
    filelock: Lock | None = None
    seen_s: float | None = None
    gone_s: float | None = None
    clock_ahead_s: float | None = None
    clock_error_s: float | None = None
    storage_ahead_s: float | None = None
    links_won: tuple[int, ...] | None = None
    finals: tuple[int, ...] | None = None
    replaced_reads: int | None = None
    replaced_not_whole: int | None = None
    appended: tuple[str, ...] | None = None
    stopped: str = ""


class _Said(Record):
    """One message from one side to the other."""

    clock_s: float
    word: str = ""


class _Side:
    """One of the two sides. It waits for the other by listing the folder, and nothing else."""

    def __init__(self, folder: Path, number: int, wait_s: float) -> None:
        self.folder = folder
        self.number = number
        self._wait_s = wait_s
        self._deadline = time.monotonic() + _ALL_S

    @property
    def first(self) -> bool:
        return self.number == 0

    def say(self, name: str, word: str = "") -> None:
        said = _Said(clock_s=time.time(), word=word)
        create_once(self.folder / f"{name}.{self.number}", said.to_pretty_json())

    def hear(self, name: str) -> _Said:
        whole = f"{name}.{1 - self.number}"
        self.until(lambda: whole in _names(self.folder), name)
        return read(_Said, self.folder / whole)

    def meet(self, name: str) -> None:
        self.say(name)
        self.hear(name)

    def until(self, seen: Callable[[], bool], what: str) -> None:
        deadline = min(self._deadline, time.monotonic() + self._wait_s)
        while not seen():
            if time.monotonic() > deadline:
                raise EnvironmentProblem(
                    f"the other node was not heard of in {self._wait_s:.0f} s, waiting for {what!r}"
                )
            time.sleep(_LOOK_S)


def take_part(
    folder: Path, number: int, environment: Mapping[str, str], wait_s: float = _WAIT_S
) -> NodeReport:
    """Try everything with the other side, and leave a report even if that never comes."""
    side = _Side(folder, number, wait_s)
    facts: dict[str, Any] = {
        "side": number,
        "node": environment.get("SLURMD_NODENAME") or socket.gethostname(),
        "boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
    }
    doing = "start"
    try:
        side.meet("start")
        for step in (_locks, _visibility, _links, _replaces, _appends):
            doing = step.__name__[1:]
            facts |= step(side)
    except (CtrateError, OSError) as error:
        facts["stopped"] = f"{doing}: {error}"
    report = NodeReport(**facts)
    create_once(folder / f"report-{number}.json", report.to_pretty_json())
    return report


def _locks(side: _Side) -> dict[str, Any]:
    """Hold each lock on the first side; try it on the second, then again after the release."""
    ways: dict[str, Callable[[Path], contextlib.AbstractContextManager[str]]] = {
        "flock": _by_flock,
        "filelock": _by_filelock,
    }
    facts: dict[str, Any] = {}
    for name, way in ways.items():
        path = side.folder / f"{name}.lock"
        if side.first:
            path.touch()
            with way(path) as got:
                side.say(f"{name}-held", got)
                side.hear(f"{name}-tried")
            side.say(f"{name}-released")
            side.hear(f"{name}-had")
            continue
        held = side.hear(f"{name}-held").word
        with way(path) as got:
            while_held = got if held == "let in" else f"the first did not get it: {held}"
        side.say(f"{name}-tried")
        side.hear(f"{name}-released")
        facts[name] = Lock(while_held=while_held, after_release_s=_wait_for(way, path))
        side.say(f"{name}-had")
    return facts


@contextlib.contextmanager
def _by_flock(path: Path) -> Any:
    descriptor = os.open(path, os.O_RDWR)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            word = "let in"
        except BlockingIOError:
            word = "excluded"
        except OSError as error:
            word = error.strerror or str(error)
        yield word
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _by_filelock(path: Path) -> Any:
    with locked(path, timeout_s=0) as got:
        yield "let in" if got else "excluded"


def _wait_for(way: Callable[[Path], Any], path: Path) -> float | None:
    """Return the seconds until the lock was had; None if it was not in half a minute."""
    started = time.monotonic()
    while (waited := time.monotonic() - started) < 30:
        with way(path) as got:
            if got == "let in":
                return waited
        time.sleep(_LOOK_S)
    return None


def _visibility(side: _Side) -> dict[str, Any]:
    """Measure how soon each side sees a name that the other publishes or removes.

    The names are in a folder that both have been listing for long.
    """
    folder = side.folder / "seen"
    folder.mkdir(exist_ok=True)
    side.meet("watching")
    seen, gone, clocks = [], [], []
    for number in range(_VISIBILITY_ROUNDS):
        path = folder / f"published-{number}"
        if not side.first:
            side.until(lambda: path.name in _names(folder), path.name)  # noqa: B023
            side.say(f"seen-{number}")
            side.until(lambda: path.name not in _names(folder), path.name)  # noqa: B023
            side.say(f"gone-{number}")
            continue
        before = time.time()
        started = time.monotonic()
        _publish(path)
        answer = side.hear(f"seen-{number}")
        seen.append(time.monotonic() - started)
        # The answer was written some half a round trip ago, give or take that half.
        clocks.append((seen[-1] / 2, answer.clock_s - before - seen[-1] / 2))
        started = time.monotonic()
        path.unlink()
        fsync_directory(folder)
        side.hear(f"gone-{number}")
        gone.append(time.monotonic() - started)
    own = folder / f"time-{side.number}"
    before = time.time()
    own.write_text("now")
    # On a network file system the server's clock gives a file its time.
    facts: dict[str, Any] = {"storage_ahead_s": own.stat().st_mtime - before}
    if side.first:
        # The shortest round trip has the smallest error.
        error, ahead = min(clocks)
        facts |= {"seen_s": max(seen), "gone_s": max(gone)}
        facts |= {"clock_ahead_s": ahead, "clock_error_s": error}
    return facts


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _publish(final: Path) -> None:
    """Publish a file as a shard is published: hidden file, fsync, link, fsync of the folder."""
    hidden = final.with_name(f".{final.name}")
    descriptor = os.open(hidden, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        write_all(descriptor, b"published")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    link_if_absent(hidden, final)
    fsync_directory(final.parent)
    hidden.unlink()


def _links(side: _Side) -> dict[str, Any]:
    """Give both sides' own files the same name at the same moment, many times."""
    folder = side.folder / "links"
    folder.mkdir(exist_ok=True)
    for number in range(LINK_ROUNDS):
        (folder / f"mine-{number}.{side.number}").write_text(str(side.number))
    side.meet("links")
    won = []
    for number in range(LINK_ROUNDS):
        (folder / f"ready-{number}.{side.number}").touch()
        other = f"ready-{number}.{1 - side.number}"
        side.until(lambda: other in _names(folder), other)  # noqa: B023
        time.sleep(_TICK_S - time.time() % _TICK_S)  # the same moment, as far as clocks agree
        mine = folder / f"mine-{number}.{side.number}"
        if link_if_absent(mine, folder / f"final-{number}"):
            won.append(number)
    side.meet("linked")
    finals = [int((folder / f"final-{number}").read_text()) for number in range(LINK_ROUNDS)]
    return {"links_won": tuple(won), "finals": tuple(finals)}


def _replaces(side: _Side) -> dict[str, Any]:
    """Replace a file by rename on the first side; the second must never read a part of it."""
    path = side.folder / "replaced"
    versions = [f"{number} {_FILLER} {number}".encode() for number in range(REPLACE_ROUNDS)]
    if side.first:
        replace(path, versions[0])
    side.meet("replace")
    if side.first:
        for version in versions[1:]:
            replace(path, version)
        side.say("replaced-all")
        side.hear("read-all")
        return {}
    reads = not_whole = 0

    def last_is_there() -> bool:
        nonlocal reads, not_whole
        reads += 1
        try:
            seen = path.read_bytes()
        except OSError:
            seen = b""
        not_whole += seen not in versions
        return seen == versions[-1] and "replaced-all.0" in _names(side.folder)

    side.until(last_is_there, "replaced-all")
    side.say("read-all")
    return {"replaced_reads": reads, "replaced_not_whole": not_whole}


def _appends(side: _Side) -> dict[str, Any]:
    """Append whole lines to one file from both sides; return what is there afterwards."""
    path = side.folder / "appended"
    side.meet("append")
    for number in range(APPEND_ROUNDS):
        append_lines(path, [appended_line(side.number, number)])
    side.meet("appended-all")
    return {"appended": tuple(path.read_text(errors="replace").splitlines())}


def appended_line(side: int, number: int) -> str:
    """Return a line that tells who wrote it, and whether it is whole."""
    return f"{side} {number} {_FILLER} {side} {number}"


class TwoNodes:
    """The callable that submitit runs; its argument is a plain value.

    The ranks of the tasks are the sides.
    """

    def __call__(self, folder: str) -> None:
        """Take part as the side that Slurm gave this task."""
        take_part(Path(folder), int(os.environ["SLURM_PROCID"]), os.environ)


if __name__ == "__main__":
    patience = float(sys.argv[3]) if len(sys.argv) > 3 else _WAIT_S
    take_part(Path(sys.argv[1]), int(sys.argv[2]), os.environ, patience)
