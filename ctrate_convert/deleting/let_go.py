"""Let one source go: rename it aside, compare that very file with its shard, unlink it.

The file is renamed to a hidden name in its own folder before it is read, so a file that takes the
old name meanwhile is never deleted. Once found equal, the file gets a second hidden name, which
only compared files bear. If it is not equal, it gets its name back. A kill at any point leaves the
file under one of its three names; `put_back` finds it.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable
from dataclasses import InitVar, dataclass
from pathlib import Path
from typing import NoReturn

from ctrate_convert.deleting.aside import give_name_back, open_hidden, put_back_in
from ctrate_convert.errors import (
    DamageError,
    EnvironmentProblem,
    RefusedError,
    SampleError,
    UnreadableSource,
)
from ctrate_convert.store.durable import open_beneath, rename_if_free
from ctrate_convert.store.fresh import FreshStatus, fresh_status, fresh_status_of
from ctrate_convert.store.presence import (
    Presence,
    aside_name,
    hidden_names,
    presence,
    proven_name,
    status_of,
)

_ONLY_COMPARED = object()

_NS_A_SECOND = 10**9
_COARSEST_NS = 2 * _NS_A_SECOND
"""The resolution of the coarsest file system clock, that of FAT."""


class Fate(enum.Enum):
    """The outcomes for a source.

    ``undecided``: an obstacle that may pass was in the way; the next command tries again.
    """

    TAKEN = "taken"
    KEPT = "kept"
    GONE = "gone"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Outcome:
    """A source's fate, and the reason if it was not taken."""

    fate: Fate
    reason: str = ""
    size_bytes: int = 0


@dataclass(frozen=True)
class Equal:
    """The proof that an open file holds nothing that its shard does not hold.

    Only `let_go` makes a proof, from a comparison that it has just made. The proof is good for that
    file under that name alone. ``status`` is the file's status before it was read.
    """

    directory: int
    name: str
    status: FreshStatus
    seal: InitVar[object]

    def __post_init__(self, seal: object) -> None:
        if seal is not _ONLY_COMPARED:
            raise RefusedError("a source is let go only after it was compared with its shard")

    def __init_subclass__(cls) -> NoReturn:
        raise RefusedError("there is one kind of proof")

    def __reduce__(self) -> NoReturn:
        raise RefusedError("a proof is neither copied nor stored: it holds for now only")


Compare = Callable[[int], str]
"""A function that compares an open file; it returns why the file must stay, or an empty string."""

Take = Callable[[Equal], str]
"""A function that takes the proven file away; it returns why not, or an empty string."""


def unlink(proof: Equal) -> str:
    """Delete the proven file."""
    require_proof(proof)
    os.unlink(proof.name, dir_fd=proof.directory)
    return ""


def require_proof(proof: Equal) -> None:
    """Refuse an object that merely looks like a proof.

    Raises:
        RefusedError: `let_go` did not make it.
    """
    if type(proof) is not Equal:
        raise RefusedError("a source is let go only after it was compared with its shard")


def let_go(
    data_folder: Path,
    source: str,
    *,
    out: Path,
    compare: Compare,
    last_look: Callable[[], str],
    take: Take = unlink,
    folder_inode: int = 0,
) -> Outcome:
    """Take one source away if ``compare`` finds nothing against it; otherwise give its name back.

    ``last_look`` is called right before ``take`` and returns why the shard, or the command itself,
    has changed. The caller has written the intent to the journal and makes the result durable.
    ``folder_inode`` tells which folder holds the source (0: any), as for `presence`.

    Raises:
        OSError: it cannot be told whether the source is gone. Its intent must stay open.
        Interrupted: ``compare`` raised it; the source has its name back.
    """
    try:
        with open_beneath(data_folder, source) as (directory, name):
            # After a kill the source may still bear a hidden name. Without this call it would seem
            # to be missing.
            in_the_way = put_back_in(directory, name)
            if in_the_way:
                return Outcome(Fate.UNDECIDED, in_the_way)
            doubt = _doubt_about_name(directory, name, out)
            if doubt is not None:
                return doubt
            return _take_aside(
                directory, name, Path(data_folder) / source, compare, last_look, take
            )
    except FileNotFoundError:
        return _not_found(data_folder, source, folder_inode)
    except (OSError, ValueError) as error:
        # A call that may have done its work is no mere obstacle: the caller must leave the intent
        # open.
        if isinstance(error, _CannotTell):
            raise
        return Outcome(Fate.UNDECIDED, f"its path cannot be followed safely: {error}")


# A class of its own: OSError itself would turn into FileNotFoundError if its errno is ENOENT, and
# that means gone.
class _CannotTell(OSError):
    """A call failed that may have done its work."""


def _not_found(data_folder: Path, source: str, folder_inode: int) -> Outcome:
    seen = presence(data_folder, source, folder_inode)
    if seen is Presence.GONE:
        return Outcome(Fate.GONE)
    if seen is Presence.THERE:
        return Outcome(Fate.UNDECIDED, "another process renamed it meanwhile")
    return Outcome(Fate.UNDECIDED, "the folder that it was in cannot be seen now")


def _doubt_about_name(directory: int, name: str, out: Path) -> Outcome | None:
    """Return what speaks against the file as its name shows it; None if nothing does."""
    status = fresh_status(name, directory)
    if stat.S_ISLNK(status.st_mode):
        return Outcome(Fate.KEPT, "it is a link; links are neither followed nor deleted")
    if not stat.S_ISREG(status.st_mode):
        return Outcome(Fate.KEPT, "it is no regular file")
    if status.st_nlink != 1:
        return Outcome(
            Fate.KEPT, f"it has {status.st_nlink} hard links; deleting one would free nothing"
        )
    if _lies_in(directory, out):
        return Outcome(Fate.KEPT, "it lies in the dataset directory")
    return None


def _take_aside(
    directory: int,
    name: str,
    where: Path,
    compare: Compare,
    last_look: Callable[[], str],
    take: Take,
) -> Outcome:
    aside = aside_name(name)
    try:
        if not rename_if_free(name, directory, aside, directory):
            return Outcome(Fate.UNDECIDED, f"another process has it aside as {aside}")
    except FileNotFoundError:  # another process renamed it first; this one did nothing
        raise
    except OSError as error:
        # The rename failed, and yet the name is gone: a network file system may report an error for
        # a rename that it made.
        if status_of(name, directory) is None:
            raise _CannotTell(*error.args) from error
        return Outcome(Fate.UNDECIDED, f"it could not be renamed: {error.strerror}")
    taken = False
    try:
        outcome = _compare_and_take(directory, name, compare, last_look, take)
        taken = outcome.fate is Fate.TAKEN
    # Nobody knows whether the file is gone: leave all names as they are, under the open intent.
    except _CannotTell:
        taken = True
        raise
    finally:
        # Also after a stop or a bug in the comparison: whatever was raised, the source gets its
        # name back.
        back = taken or give_name_back(directory, name)
    if not back:
        left = " or ".join(hidden_names(name))
        reason = f"{outcome.reason}; another file has taken its name, it is now {left}"
        return Outcome(Fate.UNDECIDED, reason)
    return outcome


def _compare_and_take(
    directory: int, name: str, compare: Compare, last_look: Callable[[], str], take: Take
) -> Outcome:
    try:
        descriptor = open_hidden(aside_name(name), directory)
    except OSError as error:
        return Outcome(Fate.UNDECIDED, f"it cannot be opened: {error.strerror}")
    try:
        with contextlib.suppress(OSError):  # the lock tells `put_back` that this process lives
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _flush_mapped_writes(descriptor)
        # Only after the flush, which may itself set the times for stores that were made earlier.
        before = fresh_status_of(descriptor)
        # The age of a change counts as of now: one of this very second could be followed by another
        # that whole seconds do not tell from it, however long the comparison takes.
        doubtful_clock = _doubt_about_clock(before)
        doubt = _compared(descriptor, compare) or doubtful_clock
        if doubt is not None:
            return doubt
        return _take(directory, name, before, last_look, take)
    except OSError as error:
        if isinstance(error, _CannotTell):
            raise
        return Outcome(Fate.UNDECIDED, f"it could not be looked at: {error.strerror}")
    finally:
        os.close(descriptor)


def _flush_mapped_writes(descriptor: int) -> None:
    """Write back stores made through memory maps: only then does a further store change a time."""
    try:
        os.fdatasync(descriptor)
    except OSError as error:
        # These say that the file system cannot sync or is read-only, not that a sync failed.
        if error.errno not in (errno.EINVAL, errno.EROFS, errno.ENOSYS):
            raise


def _doubt_about_clock(status: FreshStatus) -> Outcome | None:
    """Return a doubt if the times would not show a change made during the comparison."""
    # The file server's clock may be ahead of this node's, so the age may be below zero.
    age_ns = time.time_ns() - status.st_mtime_ns
    # A change time without a fraction: the file system most likely stores whole seconds only.
    whole_seconds = status.st_ctime_ns % _NS_A_SECOND == 0
    if whole_seconds and abs(age_ns) < _COARSEST_NS:
        return Outcome(
            Fate.UNDECIDED, "it was changed just now, and this file system knows whole seconds only"
        )
    return None


def _compared(descriptor: int, compare: Compare) -> Outcome | None:
    try:
        reason = compare(descriptor)
    # UnreadableSource is a SampleError too, but its cause may pass: it must be caught first.
    except (UnreadableSource, EnvironmentProblem) as error:
        return Outcome(Fate.UNDECIDED, error.one_line())
    except (SampleError, DamageError) as error:
        return Outcome(Fate.KEPT, error.one_line())
    return Outcome(Fate.KEPT, reason) if reason else None


def _take(
    directory: int,
    name: str,
    before: FreshStatus,
    last_look: Callable[[], str],
    take: Take,
) -> Outcome:
    aside, proven = aside_name(name), proven_name(name)
    reason = last_look()
    if reason:
        return Outcome(Fate.UNDECIDED, reason)
    # By the name, not by the open descriptor: another file may have taken the hidden name
    # meanwhile.
    now = fresh_status(aside, directory)
    if now != before:
        return Outcome(Fate.UNDECIDED, "it was changed while it was compared")
    if not stat.S_ISREG(now.st_mode) or now.st_nlink != 1:
        return Outcome(Fate.UNDECIDED, "it got another name while it was compared")
    # A plain rename, not a link and an unlink: NFS and FUSE keep a second name of an open file. It
    # may replace a file under this name, but only one that was found equal too.
    os.rename(aside, proven, src_dir_fd=directory, dst_dir_fd=directory)
    now = fresh_status(proven, directory)
    # The rename itself changes the change time, on most file systems. All else must be as before.
    if now._replace(st_ctime_ns=before.st_ctime_ns) != before:
        return Outcome(Fate.UNDECIDED, "another process has renamed it while it was compared")
    try:
        refused = take(Equal(directory, proven, before, seal=_ONLY_COMPARED))
    except OSError as error:
        # A call may fail after it did its work: only a file that is seen to be there was not taken.
        if _is_seen(directory, proven):
            return Outcome(Fate.UNDECIDED, f"it could not be taken away: {error.strerror}")
        raise _CannotTell(*error.args) from error
    if refused:
        return Outcome(Fate.UNDECIDED, refused)
    return Outcome(Fate.TAKEN, size_bytes=before.st_size)


def _is_seen(directory: int, name: str) -> bool:
    try:
        # What cannot be looked at may be gone. The caller then leaves the intent open, and the next
        # command can tell.
        return status_of(name, directory) is not None
    except OSError:
        return False


def _lies_in(directory: int, folder: Path) -> bool:
    """Return True if the open ``directory`` is ``folder`` or lies in it, under whatever mount."""
    try:
        wanted = os.stat(folder)
    except FileNotFoundError as error:  # else taken for a missing source
        raise ValueError(f"the dataset directory {folder} is missing") from error
    with contextlib.ExitStack() as stack:
        here = os.fstat(directory)
        while not os.path.samestat(here, wanted):
            # Climbing by descriptors cannot be misled by links or by a rename of a folder on the
            # way.
            directory = os.open("..", os.O_PATH | os.O_DIRECTORY, dir_fd=directory)
            stack.callback(os.close, directory)
            above = os.fstat(directory)
            if os.path.samestat(above, here):
                return False
            here = above
    return True
