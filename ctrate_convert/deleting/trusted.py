"""Refuse deletions if the output's storage does not last, or is not ours alone."""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass
from pathlib import Path

from ctrate_convert.errors import RefusedError
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.privacy import storage_is_ours

# rootfs is the file system that the kernel starts with, a ramfs or a tmpfs.
_MEMORY = frozenset(("tmpfs", "ramfs", "devtmpfs", "hugetlbfs", "rootfs"))
_MEMORY_DEVICES = ("/dev/ram", "/dev/zram")
_OVERLAYS = frozenset(("overlay", "fuse-overlayfs", "fuse.fuse-overlayfs"))


@dataclass(frozen=True)
class Mount:
    """One line of ``/proc/self/mountinfo``, as proc_pid_mountinfo(5) describes it."""

    point: Path
    kind: str
    source: str
    options: str


def require_trusted(dataset: Dataset) -> None:
    """Refuse every deletion if the storage of the shards may be gone tomorrow.

    Raises:
        RefusedError: the output is memory, its folders cannot be synced, or others may write to
            ``.run``; with the reason.
    """
    _refuse(why_not_trusted(dataset), dataset.out)


def require_lasting(out: Path) -> None:
    """Refuse a place for a new dataset if its storage would forbid deletions.

    Raises:
        RefusedError: with the reason.
    """
    _refuse(why_not_lasting(out), out)


def _refuse(reason: str | None, out: Path) -> None:
    if reason:
        raise RefusedError(
            f"no source is deleted: {reason}",
            where=out,
            next_command=f"ctrate-convert doctor {out}",
        )


def why_not_lasting(out: Path) -> str | None:
    """Return why storage at ``out``, which may not exist yet, is unreliable; None if it is not."""
    there = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.is_dir())
    return _memory(there) or _not_synced(there)


def why_in_memory(path: Path) -> str | None:
    """Return why the storage at ``path`` may be gone tomorrow; None if it lasts."""
    return _memory(path)


def require_not_in_memory(shard: Path) -> None:
    """Refuse a shard in memory; its own name may be a mount point, apart from the output's.

    Raises:
        RefusedError: it lies in memory.
    """
    reason = _memory(shard)
    if reason:
        raise RefusedError(f"no source is deleted: {reason}", where=shard)


def why_not_trusted(dataset: Dataset) -> str | None:
    """Return why the output cannot be relied on; None if it can."""
    # Each of them may be a mount point of its own.
    folders = (dataset.out, dataset.run, dataset.records)
    return (
        next(filter(None, map(_memory, folders)), None)
        or next(filter(None, map(_not_synced, folders)), None)
        or storage_is_ours(dataset)
    )


def mount_of(folder: Path) -> Mount | None:
    """Return the mount that ``folder`` is on; of several with one mount point, the newest."""
    folder = folder.resolve()
    found = None
    # Names of mount points are bytes and need not be UTF-8.
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        mount = _parsed(line)
        if mount is None or not folder.is_relative_to(mount.point):
            continue
        # The deepest mount point wins. Of two equal ones the later line covers the earlier one.
        if found is None or len(mount.point.parts) >= len(found.point.parts):
            found = mount
    return found


def _parsed(line: str) -> Mount | None:
    before, separator, after = line.partition(" - ")
    fields, rest = before.split(" "), after.split(" ", 2)
    # Optional fields stand before the " - ", so type, source and options are counted from there.
    if not separator or len(fields) < 5 or len(rest) < 2:
        return None
    options = rest[2] if len(rest) > 2 else ""
    return Mount(Path(_unescaped(fields[4])), rest[0], _unescaped(rest[1]), options)


def _unescaped(text: str) -> str:
    """Undo the octal escapes of blanks, tabs, line ends and backslashes."""
    for octal, plain in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(octal, plain)
    return text


def _memory(folder: Path) -> str | None:
    """Return why ``folder`` is no lasting storage: it is memory, or rests on memory."""
    mount = mount_of(folder)
    if mount is None:
        return "its file system is not listed in /proc/self/mountinfo"
    if mount.kind in _MEMORY:
        return f"the output lies in memory ({mount.kind} on {mount.point})"
    if mount.kind in _OVERLAYS:
        return _overlay_in_memory(mount)
    below = _below(mount)
    if mount.source.startswith(_MEMORY_DEVICES) or (below and below.kind in _MEMORY):
        return f"the output lies in memory ({mount.source} on {mount.point})"
    return None


def _overlay_in_memory(mount: Mount) -> str | None:
    options = dict(o.partition("=")[::2] for o in mount.options.split(","))
    if "volatile" in options or options.get("fsync") == "volatile":  # as of Linux 6.18
        return f"the output lies in an overlay on {mount.point} that is volatile: it syncs nothing"
    # An overlay without an upper layer names none, and Path("") would be the current folder.
    upper = Path(_unescaped(options.get("upperdir", "")) or "/nonexistent")
    if not upper.is_dir():
        return f"the output lies in an overlay on {mount.point} whose upper layer cannot be seen"
    below = mount_of(upper)
    # An overlay whose upper layer lies on another overlay is refused as well: its storage is
    # unknown.
    if below is None or below.kind in _MEMORY or below.kind == mount.kind:
        kind = below.kind if below else "unknown"
        return f"the output lies in an overlay on {mount.point} whose changes lie in {kind}"
    return None


def _below(mount: Mount) -> Mount | None:
    """Return the mount below a loop device's file or below a FUSE mount's source folder."""
    source = Path(mount.source)
    # bindfs and others give the folder that they show as their source.
    if mount.kind.startswith("fuse") and source.is_absolute() and source.is_dir():
        return mount_of(source)
    with contextlib.suppress(OSError):
        file = Path("/sys/class/block", source.name, "loop/backing_file").read_text().strip()
        return mount_of(Path(file))
    return None


def _not_synced(folder: Path) -> str | None:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        return f"{folder} cannot be opened: {error.strerror}"
    try:
        # Besides the test, this makes names durable that a killed process left here unsynced.
        os.fsync(descriptor)
    except OSError as error:
        # fsync(2) fails with EINVAL if the file system cannot sync folders.
        words = "is not offered here" if error.errno == errno.EINVAL else error.strerror
        return f"names in {folder} cannot be made durable: fsync of a folder {words}"
    finally:
        os.close(descriptor)
    return None
