"""Durable file operations: what a function reports as done stays done after a power loss.

Files are published in one order everywhere: write a hidden temporary file in the same directory,
fsync it, link it to its final name if that name is free, fsync the directory. A failed fsync is
never retried: the kernel may have dropped the data, and the next fsync would succeed all the same.
The temporary file is removed instead.
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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from ctrate_convert.errors import DamageError, EnvironmentProblem

Bytes = bytes | bytearray | memoryview

PARTIAL_SUFFIX = ".partial"

FILE_MODE, FOLDER_MODE = 0o644, 0o755
"""The widest modes, whatever the umask: only the owner may write what the program makes."""

_WRITE_BACK_BYTES = 2**23
"""Bytes between two write-backs: few, so that the last fsync is short and few pages are dirty."""


def write_all(descriptor: int, data: Bytes) -> None:
    """Write every byte of ``data``; a short write is continued."""
    # As bytes: `os.write` counts bytes, and a view of voxels would be cut by voxels.
    view = memoryview(data).cast("B")
    while view:
        view = view[os.write(descriptor, view) :]


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading and return it. A FIFO of that name does not block.

    Raises:
        OSError: the file cannot be opened.
        DamageError: the path is not a regular file.
    """
    # Without O_NONBLOCK, opening a FIFO waits for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DamageError("not a regular file", where=path)
    return os.fdopen(descriptor, "rb")


def read_regular(path: Path) -> bytes:
    """Return the content of a regular file. Raises what `open_regular` raises."""
    with open_regular(path) as stream:
        return stream.read()


def fsync_directory(directory: Path) -> None:
    """Make the names in ``directory`` durable.

    EINVAL is ignored: it means that this file system cannot sync a directory.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fsync_open_directory(descriptor)
    finally:
        os.close(descriptor)


def fsync_open_directory(descriptor: int) -> None:
    """Make the names in an open directory durable; EINVAL is ignored."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise


def make_directories(*directories: Path) -> None:
    """Create ``directories`` and their missing parents; their names are durable afterwards.

    A directory that exists is synced into its parent too, since the process that made it may have
    been killed before its fsync. Names are made and synced one at a time: a kill leaves at most one
    name that is not durable, and the next call syncs it.
    """
    synced: set[Path] = set()
    for directory in directories:
        missing: list[Path] = []
        path = directory
        while not path.is_dir():
            missing.append(path)
            path = path.parent
        if path.parent not in synced:
            with contextlib.suppress(PermissionError):  # the parent may be searched but not read
                fsync_directory(path.parent)
            synced.add(path.parent)
        for path in reversed(missing):
            path.mkdir(FOLDER_MODE, exist_ok=True)
            fsync_directory(path.parent)
            synced.add(path.parent)


def link_if_absent(temporary: Path, final: Path) -> bool:
    """Give ``temporary`` the name ``final`` if that is free; return True if it has it now.

    If ``os.link`` fails, the inode of ``final`` decides: a network file system may report an error
    for a link that it made.
    """
    try:
        os.link(temporary, final, follow_symlinks=False)
    except OSError as error:
        # Also on EEXIST: a network file system that got no answer asks again, and then finds the
        # name taken by its own link.
        mine = os.lstat(temporary)
        with contextlib.suppress(FileNotFoundError):
            theirs = os.lstat(final)
            if (theirs.st_dev, theirs.st_ino) == (mine.st_dev, mine.st_ino):
                return True
            if error.errno == errno.EEXIST:
                return False
        # No fallback by rename: it could overwrite what another process published.
        if error.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            raise EnvironmentProblem(
                "this file system has no hard links, which safe publication needs",
                where=final.parent,
                next_command="choose an output directory on another file system",
            ) from error
        raise
    return True


def _temporary_beside(final: Path) -> Path:
    """Return a hidden name beside ``final`` that holds the host; see `remove_stale_partials`."""
    host = socket.gethostname()
    return final.with_name(f".{final.name}.{host}.{secrets.token_hex(6)}{PARTIAL_SUFFIX}")


def _mark_alive(descriptor: int) -> bool:
    """Hold an flock on the file while this process lives.

    Return False if another process has just locked or removed the file because it took the writer
    for dead. On a file system without flock nobody removes such files, so the result is True.
    """
    with contextlib.suppress(OSError):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    # A cleaner may have removed the name between open and flock.
    return os.fstat(descriptor).st_nlink > 0


def _open_temporary(final: Path) -> tuple[Path, int]:
    """Create an empty, locked, hidden file beside ``final``; return its path and descriptor."""
    while True:
        temporary = _temporary_beside(final)
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, FILE_MODE)
        if _mark_alive(descriptor):
            return temporary, descriptor
        os.close(descriptor)


@contextlib.contextmanager
def _temporary_with(final: Path, data: Bytes) -> Iterator[Path]:
    """Yield a synced temporary file beside ``final`` that holds ``data``; remove it afterwards."""
    temporary, descriptor = _open_temporary(final)
    try:
        write_all(descriptor, data)
        os.fsync(descriptor)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)  # `replace` has renamed it
        os.close(descriptor)


def create_once(final: Path, data: Bytes) -> bool:
    """Create ``final`` durably with ``data`` unless it exists; return True if this call did."""
    with _temporary_with(final, data) as temporary:
        created = link_if_absent(temporary, final)
    # Also if the file was there: the process that made it may have been killed before its fsync.
    fsync_directory(final.parent)
    return created


def replace(final: Path, data: Bytes) -> None:
    """Make ``final`` hold ``data`` durably; readers see the old content or the new, never a mix."""
    with _temporary_with(final, data) as temporary:
        os.replace(temporary, final)
    fsync_directory(final.parent)


def replace_unsynced(final: Path, data: Bytes) -> None:
    """Make ``final`` hold ``data`` without fsync, for progress notes that may get lost."""
    temporary = _temporary_beside(final)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
    try:
        write_all(descriptor, data)
    finally:
        os.close(descriptor)
    os.replace(temporary, final)


def append_lines(path: Path, lines: Sequence[str]) -> None:
    """Append whole lines to ``path`` in one write and make them durable.

    If a crash cut the last line short, that line is ended first, so that the new line stays
    readable. A symbolic link is not followed.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
    descriptor = os.open(path, flags, FILE_MODE)
    try:
        size_bytes = os.fstat(descriptor).st_size
        if size_bytes == 0:  # new, or its first writer was killed before this fsync
            fsync_directory(path.parent)
        torn = size_bytes > 0 and os.pread(descriptor, 1, size_bytes - 1) != b"\n"
        text = ("\n" if torn else "") + "".join(line + "\n" for line in lines)
        write_all(descriptor, text.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish_directory(files: Mapping[str, bytes | PartialFile], final: Path) -> bool:
    """Create directory ``final`` with ``files``, all or nothing; return False if it exists.

    A file that was written already gets a second name there; its names are durable with that of the
    bytes that follow it.
    """
    with scratch_directory(final) as temporary:
        for name, data in files.items():
            # Each file is durable before the folder gets the name by which readers find it.
            if isinstance(data, PartialFile):
                data.settle()
                link_if_absent(data.path, temporary / name)
            else:
                create_once(temporary / name, data)
        try:
            # rename(2) replaces an empty directory and fails with ENOTEMPTY on any other.
            os.rename(temporary, final)
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
                return False
            raise
    fsync_directory(final.parent)
    return True


@contextlib.contextmanager
def scratch_directory(beside: Path) -> Iterator[Path]:
    """Yield a new hidden folder next to ``beside``; remove it afterwards unless it was renamed."""
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
    """Create an empty file in ``directory`` that has no name; return its descriptor.

    The file has a name for a moment, and a power loss may bring that name back.
    `remove_stale_partials` recognises it.
    """
    temporary, descriptor = _open_temporary(directory / "scratch")
    temporary.unlink()
    return descriptor


def drop_page_cache(descriptor: int) -> None:
    """Ask the kernel to drop the file's cached pages, so that the next read comes from storage.

    Dirty pages stay in the cache, but the kernel starts to write them.
    """
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


class PartialFile:
    """A hidden file beside ``final`` that is still being written; no reader uses it.

    Its name holds the host, and the writer keeps an flock on it, so that `remove_stale_partials`
    can tell the file of a dead writer from that of a live one.
    """

    def __init__(self, final: Path) -> None:
        self.final = final
        self._waiting_bytes = 0
        # Drop the suffix .tar: some readers index every **/*.tar, hidden files too.
        self.path, self.descriptor = _open_temporary(final.with_suffix(""))

    def write(self, data: Bytes) -> None:
        """Append ``data``; write-back to storage starts every `_WRITE_BACK_BYTES`."""
        write_all(self.descriptor, data)
        self._waiting_bytes += memoryview(data).nbytes
        if self._waiting_bytes >= _WRITE_BACK_BYTES:
            drop_page_cache(self.descriptor)
            self._waiting_bytes = 0

    def rewrite(self, offset: int, data: Bytes) -> None:
        """Overwrite the bytes at ``offset`` with ``data``; the next write still appends."""
        here = os.lseek(self.descriptor, 0, os.SEEK_CUR)
        os.lseek(self.descriptor, offset, os.SEEK_SET)
        write_all(self.descriptor, data)
        os.lseek(self.descriptor, here, os.SEEK_SET)

    def truncate(self, size_bytes: int) -> None:
        """Cut the file at ``size_bytes``; the next write goes there."""
        os.ftruncate(self.descriptor, size_bytes)
        os.lseek(self.descriptor, size_bytes, os.SEEK_SET)

    def settle(self) -> None:
        """Write the bytes to storage and drop them from the page cache."""
        os.fsync(self.descriptor)
        drop_page_cache(self.descriptor)

    def publish(self) -> bool:
        """Give the file its final name if that is free; return True if it has it now.

        Call `settle` first.
        """
        published = link_if_absent(self.path, self.final)
        # Synced even if another process was faster, since that one may have been killed before its
        # fsync.
        fsync_directory(self.final.parent)
        return published

    def close(self) -> None:
        """Remove the hidden name and close the file; a published file keeps its final name."""
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
    """Open the directory that holds ``root/relative`` without following a link below ``root``.

    Yield the directory's descriptor and the file's own name, for calls with ``dir_fd``. With
    ``make``, missing folders are created, and every folder on the way is made durable, since the
    process that created one may have been killed before its fsync.

    Raises:
        OSError: a component is missing (ENOENT; for ``root`` itself ENOTDIR), or is a link (ELOOP,
            ENOTDIR).
        ValueError: ``relative`` is absolute, empty or has a ``..`` or ``.`` component.
    """
    parts = relative.split("/")
    if not all(part not in ("", ".", "..") for part in parts):
        raise ValueError(f"{relative!r} does not lie beneath a folder")
    try:
        # A person named ``root``, so it may be a link itself.
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError as error:  # ENOENT would mean that the file is gone
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
    """Rename durably within one file system if the new name is free; return True if renamed.

    Both directories are open descriptors. Only the new one is synced: the new name is durable
    before the removal of the old one is.
    """
    moved = rename_if_free(name, directory, new_name, new_directory)
    if moved:
        fsync_open_directory(new_directory)
    return moved


_RENAME_NOREPLACE = 1  # of linux/fs.h
# The module os does not offer renameat2, and an old libc has no wrapper for it.
_renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)


def rename_if_free(name: str, directory: int, new_name: str, new_directory: int) -> bool:
    """Rename without fsync if the new name is free; return True if renamed.

    renameat2(2) with RENAME_NOREPLACE does this in one step. A file system without it, such as NFS,
    gets a hard link under the new name first, which overwrites nothing, and then loses the old
    name. A kill in between leaves both names, and the same call removes the old one. If the file
    system has no hard links either, the function checks that the new name is free and then renames.
    """
    if _renameat2 is not None:
        names = os.fsencode(name), os.fsencode(new_name)
        if _renameat2(directory, names[0], new_directory, names[1], _RENAME_NOREPLACE) == 0:
            return True
        number = ctypes.get_errno()
        if number == errno.EEXIST:
            return False
        # EINVAL: this file system has no RENAME_NOREPLACE. ENOSYS: this kernel has no renameat2.
        if number not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(number, os.strerror(number), name, None, new_name)
    return _link_then_unlink(name, directory, new_name, new_directory)


# EMLINK: the inode has as many names as this file system allows, which may be one.
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def _link_then_unlink(name: str, directory: int, new_name: str, new_directory: int) -> bool:
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    try:
        os.link(
            name, new_name, src_dir_fd=directory, dst_dir_fd=new_directory, follow_symlinks=False
        )
    except FileExistsError:  # perhaps this link, made by a killed or unanswered call
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
    # Another process may take the name since that look. Such a file system offers nothing that
    # looks and renames in one step.
    os.rename(name, new_name, src_dir_fd=directory, dst_dir_fd=new_directory)
    return True
