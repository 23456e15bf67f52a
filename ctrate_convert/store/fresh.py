"""Read a file's status from the server instead of this node's attribute cache.

On NFS, SMB and FUSE mounts, `os.stat` and `os.fstat` may answer from a cache for a minute and miss
a change by another node. ``statx`` with AT_STATX_FORCE_SYNC asks the server.

Source: statx(2) of the Linux man-pages; the structure is that of ``linux/stat.h``.
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import NamedTuple

# Constants of the Linux headers fcntl.h and stat.h, which the module os does not export.
_AT_FDCWD = -100
_AT_SYMLINK_NOFOLLOW = 0x100
_AT_EMPTY_PATH = 0x1000
_AT_STATX_FORCE_SYNC = 0x2000
_STATX_BASIC_STATS = 0x7FF
_NS_A_SECOND = 10**9

# Looked up at run time: an old libc has no wrapper for statx.
_statx = getattr(ctypes.CDLL(None, use_errno=True), "statx", None)


class _Time(ctypes.Structure):
    _fields_ = (
        ("seconds", ctypes.c_int64),
        ("nanoseconds", ctypes.c_uint32),
        ("_reserved", ctypes.c_int32),
    )

    def ns(self) -> int:
        return int(self.seconds) * _NS_A_SECOND + int(self.nanoseconds)


class _Statx(ctypes.Structure):
    _fields_ = (
        ("mask", ctypes.c_uint32),
        ("blksize", ctypes.c_uint32),
        ("attributes", ctypes.c_uint64),
        ("nlink", ctypes.c_uint32),
        ("uid", ctypes.c_uint32),
        ("gid", ctypes.c_uint32),
        ("mode", ctypes.c_uint16),
        ("_spare0", ctypes.c_uint16),
        ("ino", ctypes.c_uint64),
        ("size", ctypes.c_uint64),
        ("blocks", ctypes.c_uint64),
        ("attributes_mask", ctypes.c_uint64),
        ("atime", _Time),
        ("btime", _Time),
        ("ctime", _Time),
        ("mtime", _Time),
        ("rdev_major", ctypes.c_uint32),
        ("rdev_minor", ctypes.c_uint32),
        ("dev_major", ctypes.c_uint32),
        ("dev_minor", ctypes.c_uint32),
        ("_spare", ctypes.c_uint64 * 14),
    )


class FreshStatus(NamedTuple):
    """The fields of `os.stat_result` that the program uses, under the same names."""

    st_mode: int
    st_nlink: int
    st_uid: int
    st_dev: int
    st_ino: int
    st_size: int
    st_mtime_ns: int
    st_ctime_ns: int


def fresh_status(name: str | os.PathLike[str], directory: int | None = None) -> FreshStatus:
    """Return the status of ``name`` (in the open ``directory``), following no link.

    Raises:
        FileNotFoundError: nothing has the name.
        OSError: the status cannot be read.
    """
    where = _AT_FDCWD if directory is None else directory
    return _look(where, os.fspath(name), _AT_SYMLINK_NOFOLLOW)


def fresh_status_of(descriptor: int) -> FreshStatus:
    """Return the status of an open file.

    Raises:
        OSError: the status cannot be read.
    """
    return _look(descriptor, "", _AT_EMPTY_PATH)


def _look(directory: int, name: str, flags: int) -> FreshStatus:
    if _statx is not None:
        found = _Statx()
        if (
            _statx(
                directory,
                os.fsencode(name),
                flags | _AT_STATX_FORCE_SYNC,
                _STATX_BASIC_STATS,
                ctypes.byref(found),
            )
            == 0
        ):
            return _of_statx(found)
        number = ctypes.get_errno()
        # The libc may have a wrapper for a call that the kernel lacks.
        if number != errno.ENOSYS:
            raise OSError(number, os.strerror(number), name or None)
    return _of_stat(directory, name)


def _of_statx(found: _Statx) -> FreshStatus:
    return FreshStatus(
        st_mode=found.mode,
        st_nlink=found.nlink,
        st_uid=found.uid,
        st_dev=os.makedev(found.dev_major, found.dev_minor),
        st_ino=found.ino,
        st_size=found.size,
        st_mtime_ns=found.mtime.ns(),
        st_ctime_ns=found.ctime.ns(),
    )


def _of_stat(directory: int, name: str) -> FreshStatus:
    """Return the status by the ordinary calls, for kernels without statx (before Linux 4.11)."""
    if name:
        where = None if directory == _AT_FDCWD else directory
        status = os.stat(name, dir_fd=where, follow_symlinks=False)
    else:
        status = os.fstat(directory)
    return FreshStatus(
        *(getattr(status, field) for field in FreshStatus._fields),
    )
