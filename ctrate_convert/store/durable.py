"""All durable file work: what these functions say happened has happened, also after a power loss.

Publication follows one order everywhere: hidden temporary file in the same directory, write,
fsync, link into place only if absent, fsync the directory. A failed fsync is never retried: the
data may be gone although the next fsync succeeds, so the temporary file is thrown away instead.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import secrets
import shutil
import socket
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from ctrate_convert.errors import DamageError, EnvironmentProblem

Bytes = bytes | bytearray | memoryview

PARTIAL_SUFFIX = ".partial"

FILE_MODE, FOLDER_MODE = 0o644, 0o755
"""At most, under any umask: nobody but its owner may ever write what the program makes."""

_WRITE_BACK_BYTES = 2**23
"""Little enough that the last fsync is short and that few pages are dirty at any time."""


def write_all(descriptor: int, data: Bytes) -> None:
    """Write every byte of ``data``; a short write is continued, never taken for done."""
    view = memoryview(data).cast("B")
    while view:
        view = view[os.write(descriptor, view) :]


def open_regular(path: Path) -> BinaryIO:
    """Return a regular file, open to be read. A FIFO under its name keeps nobody waiting.

    Raises:
        OSError: it cannot be opened.
        DamageError: it is no regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DamageError("not a regular file", where=path)
    return os.fdopen(descriptor, "rb")


def read_regular(path: Path) -> bytes:
    """Return all of a regular file; raises as `open_regular` does."""
    with open_regular(path) as stream:
        return stream.read()


def fsync_directory(directory: Path) -> None:
    """Make the names in ``directory`` durable; only EINVAL (no such service there) is tolerated."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fsync_open_directory(descriptor)
    finally:
        os.close(descriptor)


def fsync_open_directory(descriptor: int) -> None:
    """Fsync a directory that is open, so that its names survive a power loss."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise


def make_directories(*directories: Path) -> None:
    """Create ``directories`` and their missing parents; their names are durable afterwards.

    Also of those that exist: who made them may have been killed before the fsync. One name at a
    time, so that a kill leaves at most one that is not durable, and the next call finds it.
    """
    synced: set[Path] = set()
    for directory in directories:
        missing: list[Path] = []
        path = directory
        while not path.is_dir():
            missing.append(path)
            path = path.parent
        if path.parent not in synced:
            with contextlib.suppress(PermissionError):  # it may be entered but not read
                fsync_directory(path.parent)
            synced.add(path.parent)
        for path in reversed(missing):
            path.mkdir(FOLDER_MODE, exist_ok=True)
            fsync_directory(path.parent)
            synced.add(path.parent)


def link_if_absent(temporary: Path, final: Path) -> bool:
    """Give ``temporary`` the name ``final`` unless that name is taken; True if it got it.

    The link count decides, not the return code: a network file system may report an error for a
    link that it made.
    """
    try:
        os.link(temporary, final, follow_symlinks=False)
    except OSError as error:
        mine = os.lstat(temporary)
        with contextlib.suppress(FileNotFoundError):
            theirs = os.lstat(final)
            if (theirs.st_dev, theirs.st_ino) == (mine.st_dev, mine.st_ino):
                return True
            if error.errno == errno.EEXIST:
                return False
        if error.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            raise EnvironmentProblem(
                "this file system has no hard links, which safe publication needs",
                where=final.parent,
                next_command="choose an output directory on another file system",
            ) from error
        raise
    return True


def _temporary_beside(final: Path) -> Path:
    """Return a hidden name beside ``final`` that tells the host; see `remove_stale_partials`."""
    host = socket.gethostname()
    return final.with_name(f".{final.name}.{host}.{secrets.token_hex(6)}{PARTIAL_SUFFIX}")


def _mark_alive(descriptor: int) -> bool:
    """Hold an flock while this process lives; False if it was just taken for a dead one's.

    Where the file system has no flock, nobody cleans up either.
    """
    with contextlib.suppress(OSError):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return os.fstat(descriptor).st_nlink > 0


def _open_temporary(final: Path) -> tuple[Path, int]:
    """Return a new, empty, hidden file beside ``final``, open and marked alive."""
    while True:
        temporary = _temporary_beside(final)
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, FILE_MODE)
        if _mark_alive(descriptor):
            return temporary, descriptor
        os.close(descriptor)


@contextlib.contextmanager
def _temporary_with(final: Path, data: Bytes) -> Iterator[Path]:
    """Yield a fsynced temporary file beside ``final`` holding ``data``; remove it afterwards."""
    temporary, descriptor = _open_temporary(final)
    try:
        write_all(descriptor, data)
        os.fsync(descriptor)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
        os.close(descriptor)


def create_once(final: Path, data: Bytes) -> bool:
    """Create ``final`` holding ``data``, durably, unless it exists; True if this call did."""
    with _temporary_with(final, data) as temporary:
        created = link_if_absent(temporary, final)
    fsync_directory(final.parent)
    return created


def replace(final: Path, data: Bytes) -> None:
    """Make ``final`` hold ``data``, durably; readers see the old or the new, never a part."""
    with _temporary_with(final, data) as temporary:
        os.replace(temporary, final)
    fsync_directory(final.parent)


def replace_unsynced(final: Path, data: Bytes) -> None:
    """Make ``final`` hold ``data`` for now: for progress notes, which a power loss may take."""
    temporary = _temporary_beside(final)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
    try:
        write_all(descriptor, data)
    finally:
        os.close(descriptor)
    os.replace(temporary, final)


def append_lines(path: Path, lines: Sequence[str]) -> None:
    """Append whole lines to ``path`` in one write and make them durable.

    A last line that a crash cut short is closed first, so that it cannot swallow the next one. No
    link is followed: what is appended to is this file or none.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
    descriptor = os.open(path, flags, FILE_MODE)
    try:
        size_bytes = os.fstat(descriptor).st_size
        if size_bytes == 0:  # its name first: an empty file is taken for a new one again
            fsync_directory(path.parent)
        torn = size_bytes > 0 and os.pread(descriptor, 1, size_bytes - 1) != b"\n"
        text = ("\n" if torn else "") + "".join(line + "\n" for line in lines)
        write_all(descriptor, text.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish_directory(files: dict[str, bytes], final: Path) -> bool:
    """Create directory ``final`` holding ``files``, all or nothing; False if it exists already."""
    with scratch_directory(final) as temporary:
        for name, data in files.items():
            create_once(temporary / name, data)
        try:
            os.rename(temporary, final)
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
                return False
            raise
    fsync_directory(final.parent)
    return True


@contextlib.contextmanager
def scratch_directory(beside: Path) -> Iterator[Path]:
    """Make a hidden folder next to ``beside``; remove it afterwards if it has that name still."""
    temporary = _temporary_beside(beside)
    temporary.mkdir(FOLDER_MODE)
    descriptor = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _mark_alive(descriptor)
        yield temporary
    finally:
        os.close(descriptor)
        if temporary.exists():
            shutil.rmtree(temporary)


def open_scratch_file(directory: Path) -> int:
    """Return a new, empty file in ``directory`` that has no name any more; returns its descriptor.

    The name that it has for a moment is one that `remove_stale_partials` knows, since a power
    loss may bring it back.
    """
    temporary, descriptor = _open_temporary(directory / "scratch")
    temporary.unlink()
    return descriptor


def drop_page_cache(descriptor: int) -> None:
    """Ask the kernel to forget the file's cached pages, so that the next read is from storage.

    Pages not written yet stay, but their way to storage begins.
    """
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


class PartialFile:
    """A file under way to ``final``: hidden, beside it, and of no value to any reader.

    Its name tells the host, and while its writer lives it holds an flock on it, so that
    `remove_stale_partials` can tell a dead writer's leavings from a live one's work.
    """

    def __init__(self, final: Path) -> None:
        self.final = final
        self._waiting_bytes = 0
        # Without the suffix .tar: some readers index every **/*.tar, hidden or not.
        self.path, self.descriptor = _open_temporary(final.with_suffix(""))

    def write(self, data: Bytes) -> None:
        """Append ``data``; it leaves for storage along the way, not only when it is settled."""
        write_all(self.descriptor, data)
        self._waiting_bytes += memoryview(data).nbytes
        if self._waiting_bytes >= _WRITE_BACK_BYTES:
            drop_page_cache(self.descriptor)
            self._waiting_bytes = 0

    def rewrite(self, offset: int, data: Bytes) -> None:
        """Put ``data`` over what stands at ``offset``; the next write still goes to the end."""
        here = os.lseek(self.descriptor, 0, os.SEEK_CUR)
        os.lseek(self.descriptor, offset, os.SEEK_SET)
        write_all(self.descriptor, data)
        os.lseek(self.descriptor, here, os.SEEK_SET)

    def truncate(self, size_bytes: int) -> None:
        """Forget everything from ``size_bytes`` on; the next write goes there."""
        os.ftruncate(self.descriptor, size_bytes)
        os.lseek(self.descriptor, size_bytes, os.SEEK_SET)

    def settle(self) -> None:
        """Bring the bytes to storage and out of the page cache."""
        os.fsync(self.descriptor)
        drop_page_cache(self.descriptor)

    def publish(self) -> bool:
        """Give the file its final name unless that is taken; True if it got it. Settle it first."""
        published = link_if_absent(self.path, self.final)
        fsync_directory(self.final.parent)
        return published

    def close(self) -> None:
        """Close and remove the hidden name; a published file keeps its final one."""
        if self.descriptor >= 0:
            self.path.unlink(missing_ok=True)
            os.close(self.descriptor)
            self.descriptor = -1

    def __enter__(self) -> PartialFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextlib.contextmanager
def open_beneath(root: Path, relative: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
    """Open the directory that holds ``root/relative``, following no link below ``root``.

    Yields its descriptor and the file's own name, for calls with ``dir_fd``. ``make``: folders
    that are missing are made, and all on the way are durable: who made one may have been killed.

    Raises:
        OSError: a component is missing (ENOENT; of ``root`` itself ENOTDIR), or is a link (ELOOP,
            ENOTDIR).
        ValueError: ``relative`` is absolute, empty or has a ``..`` or ``.`` component.
    """
    parts = relative.split("/")
    if not all(part not in ("", ".", "..") for part in parts):
        raise ValueError(f"{relative!r} does not lie beneath a folder")
    try:
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError as error:  # an unmounted folder says nothing of the file
        raise NotADirectoryError(errno.ENOTDIR, "the folder is missing", str(root)) from error
    try:
        for part in parts[:-1]:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, FOLDER_MODE, dir_fd=descriptor)
                fsync_open_directory(descriptor)
            deeper = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = deeper
        yield descriptor, parts[-1]
    finally:
        os.close(descriptor)


def move_if_free(name: str, directory: int, new_name: str, new_directory: int) -> bool:
    """Rename within one file system unless the new name is taken, durably; True if it was done.

    Both directories are open. The new name is durable before the old one is known to be gone.
    """
    moved = rename_if_free(name, directory, new_name, new_directory)
    if moved:
        fsync_open_directory(new_directory)
    return moved


_RENAME_NOREPLACE = 1
_renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)


def rename_if_free(name: str, directory: int, new_name: str, new_directory: int) -> bool:
    """Rename if the new name is free, without an fsync; atomic by renameat2(2) on Linux.

    Where it has not, as on NFS, the new name is a link first: making one overwrites nothing. A kill
    in between leaves both names, and the same call removes the old one. Only where there are no
    links either, it looks first and then renames.
    """
    if _renameat2 is not None:
        names = os.fsencode(name), os.fsencode(new_name)
        if _renameat2(directory, names[0], new_directory, names[1], _RENAME_NOREPLACE) == 0:
            return True
        number = ctypes.get_errno()
        if number == errno.EEXIST:
            return False
        if number not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(number, os.strerror(number), name, None, new_name)
    return _link_then_unlink(name, directory, new_name, new_directory)


_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def _link_then_unlink(name: str, directory: int, new_name: str, new_directory: int) -> bool:
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    try:
        os.link(
            name, new_name, src_dir_fd=directory, dst_dir_fd=new_directory, follow_symlinks=False
        )
    except FileExistsError:  # by a call that was killed, or whose answer got lost?
        taken = os.stat(new_name, dir_fd=new_directory, follow_symlinks=False)
        if not os.path.samestat(status, taken) or taken.st_nlink < 2:
            return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _look_then_rename(name, directory, new_name, new_directory)
    os.unlink(name, dir_fd=directory)
    return True


def _look_then_rename(name: str, directory: int, new_name: str, new_directory: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        os.stat(new_name, dir_fd=new_directory, follow_symlinks=False)
        return False
    os.rename(name, new_name, src_dir_fd=directory, dst_dir_fd=new_directory)
    return True
