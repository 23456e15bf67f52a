"""Records what a run does to the files below one folder, by standing before the ``os`` functions.

That this misses nothing is shown against ``strace`` in ``test_recording.py``.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

import ctrate_convert
from ctrate_convert.store import durable
from tests.promises.crash.disk import (
    ROOT,
    DataChange,
    Disk,
    Entry,
    Fsync,
    NameChange,
    Promise,
    written,
)

_PACKAGE = str(Path(ctrate_convert.__file__).parent)
_WATCHED = (
    "open", "close", "write", "pwrite", "ftruncate", "fsync", "fdatasync",
    "link", "rename", "replace", "unlink", "remove", "mkdir", "rmdir",
)  # fmt: skip
_PROMISING = ("create_once", "replace", "append_lines", "make_directories", "publish_directory")

Place = tuple[int, str]


class Recorder:
    """The file operations of what runs within it, as entries of ``log``; a context manager.

    ``told`` has the same in words, as the kernel would tell them. ``disk`` is what ``folder``
    holds at the start; it may have changes that are not durable yet.
    """

    def __init__(self, folder: Path, disk: Disk) -> None:
        self.log: list[Entry] = []
        self.told: list[str] = []
        self._folder = os.path.realpath(folder)
        now = disk.now()
        self._names: dict[int, dict[str, int]] = {inode: {} for inode in disk.names}
        self._content: dict[int, bytes] = {}
        for path, inode in now.inodes.items():
            above, _, name = path.rpartition("/")
            self._names[now.inodes[above] if above else ROOT][name] = inode
            self._content[inode] = now.tree[path] or b""
        self._next = 1 + max([*disk.names, *disk.data])
        self._opened: dict[int, int] = {}
        self._os: dict[str, Callable[..., Any]] = {name: getattr(os, name) for name in _WATCHED}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Recorder:
        patch = self._stack.enter_context
        accessor = getattr(pathlib, "_NormalAccessor", None)  # Python 3.10 keeps its own copies
        for name in _WATCHED:
            stand_in = getattr(self, f"do_{name}")
            patch(mock.patch.object(os, name, stand_in))
            if hasattr(accessor, name):
                patch(mock.patch.object(accessor, name, staticmethod(stand_in)))
        patch(mock.patch.object(Path, "write_bytes", _write_bytes))
        for module in _modules_with("rename_if_free"):
            patch(mock.patch.object(module, "rename_if_free", self.do_rename_if_free))
        for name in _PROMISING:
            promising = self._promising(name)
            for module in _modules_with(name):
                patch(mock.patch.object(module, name, promising))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # --- stand-ins, each doing the real thing first -------------------------------------------

    def do_open(
        self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None
    ) -> int:
        descriptor: int = self._os["open"](path, flags, mode, dir_fd=dir_fd)
        place = self._place(path, dir_fd)
        if place is None:
            if dir_fd is None and os.path.abspath(path) == self._folder:
                self._opened[descriptor] = ROOT
            return descriptor
        if place[1] not in self._names[place[0]]:
            self._rename("create", place[0], (place[1], self._new(b"")))
        inode = self._opened[descriptor] = self._names[place[0]][place[1]]
        if flags & os.O_TRUNC and self._content[inode]:
            self._change(DataChange(inode, 0, b"", 0))
        return descriptor

    def do_close(self, descriptor: int) -> None:
        self._opened.pop(descriptor, None)
        self._os["close"](descriptor)

    def do_write(self, descriptor: int, data: Any) -> int:
        count: int = self._os["write"](descriptor, data)
        if descriptor in self._opened:
            offset = os.lseek(descriptor, 0, os.SEEK_CUR) - count
            piece = bytes(memoryview(data).cast("B")[:count])
            self._change(DataChange(self._opened[descriptor], offset, piece))
            self._tell("write", descriptor, count)
        return count

    def do_pwrite(self, descriptor: int, data: Any, offset: int) -> int:
        count: int = self._os["pwrite"](descriptor, data, offset)
        if descriptor in self._opened:
            piece = bytes(memoryview(data).cast("B")[:count])
            self._change(DataChange(self._opened[descriptor], offset, piece))
            self._tell("pwrite64", descriptor, count)
        return count

    def do_ftruncate(self, descriptor: int, length: int) -> None:
        self._os["ftruncate"](descriptor, length)
        if descriptor in self._opened:
            self._change(DataChange(self._opened[descriptor], 0, b"", length))
            self._tell("ftruncate", descriptor)

    def do_fsync(self, descriptor: int) -> None:
        self._os["fsync"](descriptor)
        if descriptor in self._opened:
            inode = self._opened[descriptor]
            what = "names" if inode in self._names else "data"
            self.log.append(Fsync(inode, f"{what}: {_site(sys._getframe(1))}"))
            self._tell("fsync", descriptor)

    def do_fdatasync(self, descriptor: int) -> None:
        """Only sources are, which nobody writes to here: told, and no entry."""
        self._os["fdatasync"](descriptor)
        if descriptor in self._opened:
            self._tell("fdatasync", descriptor)

    def do_link(self, src: Any, dst: Any, **more: Any) -> None:
        self._os["link"](src, dst, **more)
        old, new = self._place(src), self._place(dst)
        if old is not None and new is not None:
            self._rename("link", new[0], (new[1], self._names[old[0]][old[1]]))

    def do_rename(
        self, src: Any, dst: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None
    ) -> None:
        old, new = self._place(src, src_dir_fd), self._place(dst, dst_dir_fd)
        self._os["rename"](src, dst, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
        if old is None or new is None:
            return
        inode = self._names[old[0]][old[1]]
        if old[0] != new[0]:  # two changes, which two fsyncs settle
            arrival = self._rename("move to", new[0], (new[1], inode))
            self._rename("unlink", old[0], (old[1], None), needs=arrival)
            return
        self._rename("rename", old[0], (old[1], None), (new[1], inode))

    do_replace = do_rename

    def do_rename_if_free(
        self, name: str, directory: int, new_name: str, new_directory: int
    ) -> bool:
        try:
            os.stat(new_name, dir_fd=new_directory, follow_symlinks=False)
        except FileNotFoundError:
            self.do_rename(name, new_name, src_dir_fd=directory, dst_dir_fd=new_directory)
            return True
        return False

    def do_unlink(self, path: Any, *, dir_fd: int | None = None) -> None:
        self._remove("unlink", path, dir_fd)

    do_remove = do_unlink

    def do_rmdir(self, path: Any, *, dir_fd: int | None = None) -> None:
        self._remove("rmdir", path, dir_fd)

    def do_mkdir(self, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        self._os["mkdir"](path, mode, dir_fd=dir_fd)
        place = self._place(path, dir_fd)
        if place is not None:
            inode = self._new(None)
            self._names[inode] = {}
            self._rename("mkdir", place[0], (place[1], inode), makes_directory=True)

    # --- bookkeeping --------------------------------------------------------------------------

    def _place(self, path: Any, dir_fd: int | None = None) -> Place | None:
        """The directory and the name that ``path`` leads to; None outside the folder."""
        text = os.fspath(path)
        if dir_fd is not None:
            text = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), text)
        text = os.path.abspath(text)
        if not text.startswith(self._folder + "/"):
            return None
        *above, name = text[len(self._folder) + 1 :].split("/")
        directory = ROOT
        for part in above:
            directory = self._names[directory][part]
        return directory, name

    def _new(self, content: bytes | None) -> int:
        inode, self._next = self._next, self._next + 1
        if content is not None:
            self._content[inode] = content
        return inode

    def _rename(
        self,
        what: str,
        directory: int,
        *names: tuple[str, int | None],
        makes_directory: bool = False,
        needs: NameChange | None = None,
    ) -> NameChange:
        for name, inode in names:
            if inode is None:
                del self._names[directory][name]
            else:
                self._names[directory][name] = inode
        change = NameChange(what, directory, names, makes_directory, needs)
        self.log.append(change)
        self.told.append(" ".join([what, *(name for name, _ in names)]))
        return change

    def _remove(self, what: str, path: Any, dir_fd: int | None) -> None:
        place = self._place(path, dir_fd)
        self._os[what](path, dir_fd=dir_fd)
        if place is not None:
            self._rename(what, place[0], (place[1], None))

    def _tell(self, what: str, descriptor: int, *more: object) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}").removesuffix(" (deleted)")
        self.told.append(" ".join([what, os.path.basename(path), *map(str, more)]))

    def _change(self, change: DataChange) -> None:
        self._content[change.inode] = written(self._content[change.inode], change)
        self.log.append(change)

    def _promising(self, name: str) -> Callable[..., Any]:
        function = getattr(durable, name)

        def stand_in(*words: Any, **more: Any) -> Any:
            result = function(*words, **more)
            final = words[1] if name == "publish_directory" else words[0]
            paths = list(words) if name == "make_directories" else [final]
            if name == "publish_directory":
                paths += [final / part for part in words[0]]
            for path in paths:
                self._promise(name, path)
            return result

        return stand_in

    def _promise(self, by: str, path: Path) -> None:
        if self._place(path) is None:
            return
        relative = os.path.abspath(path)[len(self._folder) + 1 :]
        if ".partial" in relative:
            return  # what is under way in a hidden folder is durable once that folder is
        inode, way = ROOT, []
        for part in relative.split("/"):
            way.append((inode, part))
            inode = self._names[inode][part]
        content = None if inode in self._names else self._content[inode]
        self.log.append(Promise(by, relative, inode, content, tuple(way)))


def _write_bytes(path: Path, data: bytes) -> int:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        return os.write(descriptor, data)
    finally:
        os.close(descriptor)


def _modules_with(name: str) -> list[Any]:
    function = getattr(durable, name)
    return [
        module
        for module_name, module in list(sys.modules.items())
        if module_name.startswith("ctrate_convert") and vars(module).get(name) is function
    ]


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        if frame.f_code.co_filename.startswith(_PACKAGE):
            yield frame
        frame = frame.f_back


def _site(frame: FrameType) -> str:
    """Who asked: the functions of the durable layer, then the first one above it, with its line."""
    told: list[str] = []
    for one in _frames(frame):
        name = one.f_code.co_name
        if one.f_code.co_filename != durable.__file__:
            module = Path(one.f_code.co_filename).stem
            return " < ".join([*told, f"{module}.{name}:{one.f_lineno}"])
        if not name.startswith("fsync_"):
            told.append(name)
    return " < ".join(told)


def named_by_order(log: list[Entry]) -> list[Entry]:
    """The log with each site's line number replaced by its place among its caller's lines."""
    lines: dict[str, set[int]] = {}
    for entry in log:
        if isinstance(entry, Fsync):
            name, _, line = entry.site.rpartition(":")
            lines.setdefault(name, set()).add(int(line))

    def renamed(site: str) -> str:
        name, _, line = site.rpartition(":")
        order = sorted(lines[name])
        return name if len(order) == 1 else f"{name} #{order.index(int(line)) + 1}"

    return [
        Fsync(entry.inode, renamed(entry.site)) if isinstance(entry, Fsync) else entry
        for entry in log
    ]
