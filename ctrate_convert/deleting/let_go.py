"""Let one source go: rename it aside, compare that very file with its shard, unlink it.

The file is renamed to a hidden name in its own folder before it is read, so that whatever else
takes its name meanwhile is not what is deleted. Anything else than equal gives the name back. A
kill at any point leaves the file under one of its two names; `put_back` finds it.
"""

from __future__ import annotations

import contextlib
import enum
import fcntl
import os
import stat
from collections.abc import Callable
from dataclasses import InitVar, dataclass
from pathlib import Path
from typing import NoReturn

from ctrate_convert.deleting.presence import Presence, aside_name, presence, status_of
from ctrate_convert.durable import fsync_open_directory, open_beneath, rename_if_free
from ctrate_convert.errors import (
    DamageError,
    EnvironmentProblem,
    RefusedError,
    SampleError,
    UnreadableSource,
)
from ctrate_convert.fresh import FreshStatus, fresh_status, fresh_status_of

_ONLY_COMPARED = object()


class Fate(enum.Enum):
    """What became of a source.

    ``undecided``: something that may pass was in the way; the next command tries again.
    """

    TAKEN = "taken"
    KEPT = "kept"
    GONE = "gone"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Outcome:
    """A source's fate, and the reason where it was not taken."""

    fate: Fate
    reason: str = ""
    size_bytes: int = 0


@dataclass(frozen=True)
class Equal:
    """The proof that an open file holds nothing that its shard does not hold.

    Only `let_go` makes one, from a comparison that it has just seen, and it is good for that file
    under that name alone. ``status`` is what the file looked like before it was read.
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
"""Compares an open file; returns why it must stay, or an empty string."""

Take = Callable[[Equal], str]
"""Takes the proven file away; returns why not, or an empty string."""


def unlink(proof: Equal) -> str:
    """Delete the proven file."""
    require_proof(proof)
    os.unlink(proof.name, dir_fd=proof.directory)
    return ""


def require_proof(proof: Equal) -> None:
    """Refuse whatever merely looks like a proof.

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
) -> Outcome:
    """Take one source away if ``compare`` finds nothing against it; else it keeps its name.

    ``last_look`` is asked right before ``take``: why the shard, or the command itself, is not what
    it was. The caller has written the intent to the journal and makes the result durable.

    Raises:
        OSError: it cannot be told whether the source is gone. Its intent must stay open.
        Interrupted: ``compare`` raised it; the source has its name back.
    """
    try:
        with open_beneath(data_folder, source) as (directory, name):
            doubt = _put_back(directory, name) or _doubt_about_name(directory, name, out)
            if doubt is not None:
                return doubt
            return _take_aside(
                directory, name, Path(data_folder) / source, compare, last_look, take
            )
    except FileNotFoundError:
        return _not_found(data_folder, source)
    except (OSError, ValueError) as error:
        if isinstance(error, _CannotTell):
            raise
        return Outcome(Fate.UNDECIDED, f"its path cannot be followed safely: {error}")


class _CannotTell(OSError):
    """A call failed that may have done its work."""


def _not_found(data_folder: Path, source: str) -> Outcome:
    if presence(data_folder, source) is Presence.GONE:
        return Outcome(Fate.GONE)
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
    except OSError as error:
        if status_of(name, directory) is None:
            raise _CannotTell(*error.args) from error
        return Outcome(Fate.UNDECIDED, f"it could not be renamed: {error.strerror}")
    taken = False
    try:
        outcome = _compare_and_take(directory, aside, compare, last_look, take)
        taken = outcome.fate is Fate.TAKEN
    except _CannotTell:
        taken = True
        raise
    finally:
        back = taken or _give_name_back(directory, name)
    if not back:
        reason = f"{outcome.reason}; another file has taken its name, it is now {aside}"
        return Outcome(Fate.UNDECIDED, reason)
    return outcome


def _compare_and_take(
    directory: int, aside: str, compare: Compare, last_look: Callable[[], str], take: Take
) -> Outcome:
    try:
        descriptor = os.open(
            aside, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory
        )
    except OSError as error:
        return Outcome(Fate.UNDECIDED, f"it cannot be opened: {error.strerror}")
    try:
        with contextlib.suppress(OSError):  # tells `put_back` that this process lives
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        before = fresh_status_of(descriptor)
        doubt = _compared(descriptor, compare)
        if doubt is not None:
            return doubt
        return _take(directory, aside, before, last_look, take)
    except OSError as error:
        if isinstance(error, _CannotTell):
            raise
        return Outcome(Fate.UNDECIDED, f"it could not be looked at: {error.strerror}")
    finally:
        os.close(descriptor)


def _compared(descriptor: int, compare: Compare) -> Outcome | None:
    try:
        reason = compare(descriptor)
    except (UnreadableSource, EnvironmentProblem) as error:
        return Outcome(Fate.UNDECIDED, error.one_line())
    except (SampleError, DamageError) as error:
        return Outcome(Fate.KEPT, error.one_line())
    return Outcome(Fate.KEPT, reason) if reason else None


def _take(
    directory: int,
    aside: str,
    before: FreshStatus,
    last_look: Callable[[], str],
    take: Take,
) -> Outcome:
    now = fresh_status(aside, directory)
    if now != before:
        return Outcome(Fate.UNDECIDED, "it was changed while it was compared")
    if not stat.S_ISREG(now.st_mode) or now.st_nlink != 1:
        return Outcome(Fate.UNDECIDED, "it got another name while it was compared")
    reason = last_look()
    if reason:
        return Outcome(Fate.UNDECIDED, reason)
    try:
        refused = take(Equal(directory, aside, before, seal=_ONLY_COMPARED))
    except OSError as error:
        # A call may fail after it did its work: only what is seen to be there is not taken.
        if _is_seen(directory, aside):
            return Outcome(Fate.UNDECIDED, f"it could not be taken away: {error.strerror}")
        raise _CannotTell(*error.args) from error
    if refused:
        return Outcome(Fate.UNDECIDED, refused)
    return Outcome(Fate.TAKEN, size_bytes=before.st_size)


def _is_seen(directory: int, name: str) -> bool:
    try:
        return status_of(name, directory) is not None
    except OSError:
        return False


def _give_name_back(directory: int, name: str) -> bool:
    """Return True where the source has its name again; the caller makes that durable."""
    try:
        return rename_if_free(aside_name(name), directory, name, directory)
    except FileNotFoundError:
        return True  # somebody else gave it back, or took it
    except OSError:
        return False


def put_back(data_folder: Path, source: str) -> bool:
    """Give a source its name back that a killed process left aside; True where that was done.

    Then it is durable. A file that a live process has aside is left to it.
    """
    with (
        contextlib.suppress(OSError, ValueError),
        open_beneath(data_folder, source) as (directory, name),
    ):
        left = status_of(aside_name(name), directory) is not None
        if left and _put_back(directory, name) is None:
            fsync_open_directory(directory)
            return True
    return False


def _put_back(directory: int, name: str) -> Outcome | None:
    """Give a file that was left aside its name back; why that cannot be done, if so."""
    aside = aside_name(name)
    with contextlib.ExitStack() as stack:
        try:
            _lock(stack, aside, directory)
        except FileNotFoundError:
            return None
        except BlockingIOError:
            return Outcome(Fate.UNDECIDED, "another process is comparing it")
        if _give_name_back(directory, name):
            return None
    return Outcome(
        Fate.UNDECIDED,
        f"two files claim its name: the one left aside by a killed command is {aside}",
    )


def _lock(stack: contextlib.ExitStack, aside: str, directory: int) -> None:
    """Lock the file, as far as there are locks, and as long as ``stack`` is open.

    Without one, the process that compares it sees that its file has moved.

    Raises:
        FileNotFoundError: it is not there.
        BlockingIOError: another process has it locked.
    """
    try:
        descriptor = os.open(
            aside, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory
        )
    except PermissionError:
        return  # a file that may not be read gets its name back all the same
    stack.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return


def _lies_in(directory: int, folder: Path) -> bool:
    """Return True if the open ``directory`` is ``folder`` or lies in it, under whatever mount."""
    try:
        wanted = os.stat(folder)
    except FileNotFoundError as error:  # which says nothing of the source
        raise ValueError(f"the dataset directory {folder} is missing") from error
    with contextlib.ExitStack() as stack:
        here = os.fstat(directory)
        while not os.path.samestat(here, wanted):
            directory = os.open("..", os.O_PATH | os.O_DIRECTORY, dir_fd=directory)
            stack.callback(os.close, directory)
            above = os.fstat(directory)
            if os.path.samestat(above, here):
                return False
            here = above
    return True
