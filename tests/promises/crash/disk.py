"""A small model of a file system: what is durable, what is not yet, and what a power loss leaves.

It assumes as little as POSIX promises. A name is durable once its directory was fsynced, data once
its file was; neither says anything of the other, and nothing is in order: of what is not durable,
each operation may be kept or dropped on its own. Data that was dropped comes back empty, cut
short, or as zeros. A rename within one directory is atomic; of one between two directories the old
name goes only where the new one is there.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

ROOT = 0

EVERY_SUBSET_UP_TO = 8
"""So many changes that are not durable have 256 subsets; of more a choice is tried."""

Tree = Mapping[str, bytes | None]
"""Files by path with what they hold; None is a directory."""


@dataclass(frozen=True)
class NameChange:
    """Names of one directory now lead elsewhere: to an inode, or (None) nowhere.

    ``needs`` is the change without which this one cannot be.
    """

    what: str
    directory: int
    names: tuple[tuple[str, int | None], ...]
    makes_directory: bool = False
    needs: NameChange | None = None


@dataclass(frozen=True)
class DataChange:
    """Bytes of a file; ``size_bytes`` where it was cut to that size instead."""

    inode: int
    offset: int
    data: bytes
    size_bytes: int | None = None


@dataclass(frozen=True)
class Fsync:
    """A file or a directory was fsynced; ``site`` tells who asked."""

    inode: int
    site: str


@dataclass(frozen=True)
class Promise:
    """A function has returned that promises ``path`` to be durable with what it holds now."""

    by: str
    path: str
    inode: int
    content: bytes | None
    on_the_way: tuple[tuple[int, str], ...]


Change = NameChange | DataChange
Entry = Change | Fsync | Promise


@dataclass
class State:
    """One state that a power loss may leave."""

    label: str
    tree: dict[str, bytes | None]
    inodes: dict[str, int]

    @property
    def key(self) -> frozenset[tuple[str, object]]:
        """Equal for states that differ only in what hidden partial files hold.

        Nobody reads those, so only whether they are empty counts.
        """
        return frozenset(
            (path, data == b"" if path.endswith(".partial") and data is not None else data)
            for path, data in self.tree.items()
        )


@dataclass
class Disk:
    """What is durable, and every change that is not yet, in order."""

    names: dict[int, dict[str, int]] = field(default_factory=lambda: {ROOT: {}})
    data: dict[int, bytes] = field(default_factory=dict)
    pending: list[Change] = field(default_factory=list)
    promises: list[Promise] = field(default_factory=list)

    @classmethod
    def load(cls, folder: Path) -> Disk:
        """Everything below ``folder``, all of it durable."""
        disk = cls()
        inodes = {folder: ROOT}
        for path in sorted(folder.rglob("*")):
            inode = inodes[path] = len(inodes)
            disk.names[inodes[path.parent]][path.name] = inode
            if path.is_dir():
                disk.names[inode] = {}
            else:
                disk.data[inode] = path.read_bytes()
        return disk

    def copy(self) -> Disk:
        """A disk that goes its own way."""
        names = {inode: dict(entries) for inode, entries in self.names.items()}
        return Disk(names, dict(self.data), list(self.pending), list(self.promises))

    def take(self, entry: Entry) -> None:
        """One operation happens."""
        if isinstance(entry, Promise):
            self.promises.append(entry)
        elif isinstance(entry, Fsync):
            self._settle(entry.inode)
        else:
            if isinstance(entry, NameChange) and entry.makes_directory:
                self.names.setdefault(_only_inode(entry), {})
            elif isinstance(entry, NameChange):
                for _, inode in entry.names:
                    if inode is not None and inode not in self.names:
                        self.data.setdefault(inode, b"")
            self.pending.append(entry)
            self.promises = [held for held in self.promises if not _touches(entry, held)]

    def _settle(self, inode: int) -> None:
        for change in self.pending:
            if isinstance(change, NameChange) and change.directory == inode:
                _rename(self.names[inode], change)
            elif isinstance(change, DataChange) and change.inode == inode:
                self.data[inode] = written(self.data[inode], change)
        self.pending = [change for change in self.pending if _belongs_to(change) != inode]

    def state(
        self,
        label: str,
        keep: Callable[[Change], bool],
        dropped: Callable[[bytes, list[DataChange]], bytes] = lambda durable, lost: durable,
    ) -> State:
        """What is left where ``keep`` decides on each change; ``dropped`` data comes back so."""
        names = {inode: dict(entries) for inode, entries in self.names.items()}
        data: dict[int, bytes] = {}
        lost: dict[int, list[DataChange]] = {}
        for change in self.pending:
            if isinstance(change, NameChange):
                if keep(change) and self._may_be(change, keep):
                    _rename(names[change.directory], change)
            elif keep(change):
                now = data.get(change.inode, self.data[change.inode])
                data[change.inode] = written(now, change)
            else:
                lost.setdefault(change.inode, []).append(change)
        for inode, changes in lost.items():
            data[inode] = dropped(data.get(inode, self.data[inode]), changes)
        state = State(label, {}, {})
        self._walk(state, names, {**self.data, **data}, ROOT, "")
        return state

    def _may_be(self, change: NameChange, keep: Callable[[Change], bool]) -> bool:
        needs = change.needs
        return needs is None or all(one is not needs for one in self.pending) or keep(needs)

    def _walk(
        self,
        state: State,
        names: Mapping[int, Mapping[str, int]],
        data: Mapping[int, bytes],
        directory: int,
        above: str,
    ) -> None:
        for name, inode in names[directory].items():
            path = above + name
            state.tree[path] = data.get(inode)
            state.inodes[path] = inode
            if inode in names:
                self._walk(state, names, data, inode, path + "/")

    def now(self) -> State:
        """What a process sees: everything."""
        return self.state("all kept", lambda change: True)

    def states(self) -> Iterator[State]:
        """What a power loss may leave now, the gravest first.

        Every subset of what is not durable where that is little, else a bounded choice of them;
        and all that was written coming back empty, cut short or as zeros.
        """
        yield self.state("all dropped", lambda change: False)
        if not self.pending:
            return
        for how, dropped in _COMES_BACK.items():
            yield self.state(f"names kept, data {how}", _is_name, dropped)
        yield self.state("data kept, names dropped", lambda change: not _is_name(change))
        yield self.now()
        if len(self.pending) <= EVERY_SUBSET_UP_TO:
            yield from self._subsets()
            return
        for one in self._singles():
            yield self.state(f"only {_told(one)} kept", partial(operator.is_, one))
            yield self.state(f"only {_told(one)} dropped", partial(operator.is_not, one))

    def _subsets(self) -> Iterator[State]:
        for number in range(1, 2 ** len(self.pending) - 1):
            kept = [one for place, one in enumerate(self.pending) if number >> place & 1]
            label = f"only {', '.join(map(_told, kept))} kept"
            yield self.state(label, partial(_is_one_of, kept))

    def _singles(self) -> list[Change]:
        """Every name change; of each file's data changes the first, one in the middle, the last."""
        files: dict[int, list[DataChange]] = {}
        for change in self.pending:
            if isinstance(change, DataChange):
                files.setdefault(change.inode, []).append(change)
        chosen = [change for change in self.pending if isinstance(change, NameChange)]
        data = [
            changes[place]
            for changes in files.values()
            for place in sorted({0, len(changes) // 2, len(changes) - 1})
        ]
        return [*chosen, *data]

    def broken_promise(self, state: State) -> Promise | None:
        """The first promise that ``state`` does not keep."""
        for promise in self.promises:
            if (
                state.inodes.get(promise.path) != promise.inode
                or state.tree[promise.path] != promise.content
            ):
                return promise
        return None


def states_of(disk: Disk, log: Iterable[Entry]) -> Iterator[tuple[Disk, State]]:
    """The states that a power loss may leave before, within and after ``log``, with their disk."""
    disk = disk.copy()
    yield from ((disk, state) for state in disk.states())
    for entry in log:
        disk.take(entry)
        yield from ((disk, state) for state in disk.states())


def written(data: bytes, change: DataChange) -> bytes:
    """``data`` after ``change``; what lies between is zeros."""
    if change.size_bytes is not None:
        return data[: change.size_bytes].ljust(change.size_bytes, b"\0")
    end = change.offset + len(change.data)
    return data[: change.offset].ljust(change.offset, b"\0") + change.data + data[end:]


def _rename(entries: dict[str, int], change: NameChange) -> None:
    for name, inode in change.names:
        if inode is None:
            entries.pop(name, None)
        else:
            entries[name] = inode


def _cut_short(durable: bytes, lost: list[DataChange]) -> bytes:
    whole = durable
    for change in lost:
        whole = written(whole, change)
    return whole[: (len(durable) + len(whole)) // 2]


def _zeros(durable: bytes, lost: list[DataChange]) -> bytes:
    for change in lost:
        durable = written(
            durable,
            DataChange(change.inode, change.offset, bytes(len(change.data)), change.size_bytes),
        )
    return durable


_COMES_BACK: dict[str, Callable[[bytes, list[DataChange]], bytes]] = {
    "empty": lambda durable, lost: durable,
    "cut short": _cut_short,
    "zeros": _zeros,
}


def _is_name(change: Change) -> bool:
    return isinstance(change, NameChange)


def _is_one_of(changes: list[Change], change: Change) -> bool:
    return any(change is one for one in changes)


def _belongs_to(change: Change) -> int:
    return change.directory if isinstance(change, NameChange) else change.inode


def _only_inode(change: NameChange) -> int:
    inode = change.names[-1][1]
    if inode is None:
        raise ValueError("a directory that is made has an inode")
    return inode


def _touches(change: Change, promise: Promise) -> bool:
    if isinstance(change, DataChange):
        return change.inode == promise.inode
    return any((change.directory, name) in promise.on_the_way for name, _ in change.names)


def _told(change: Change) -> str:
    if isinstance(change, NameChange):
        return f"{change.what} {change.names[-1][0]}"
    return f"data of inode {change.inode} at {change.offset}"
