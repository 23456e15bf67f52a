"""The exit codes and exceptions of the program.

CtrateError
├── SettingsError        1  a setting, option or file the user named is not usable
├── SampleError          2  one volume cannot be converted; the other samples are converted
├── DamageError          3  bytes on disk are not what a record says they are
├── RefusedError         4  going on would not be safe
├── EnvironmentProblem   5  space, permission, a file system or a scheduler is in the way
│   └── WorkerDied          a worker process died; other shards are still converted
│       └── WorkerKilled    by SIGKILL, which the kernel sends if memory runs out
└── Interrupted        130  Ctrl+C or SIGTERM; the same command continues the work
"""

from __future__ import annotations

import enum
import errno
import os


class ExitCode(enum.IntEnum):
    """The program's exit status."""

    DONE = 0
    """Done."""
    USAGE = 1
    """A setting, option or file that was named is not usable; nothing was changed."""
    SAMPLES_FAILED = 2
    """Some samples failed; their sources are still there, and the other samples are converted."""
    DAMAGE = 3
    """Bytes on disk are not what a record says they are."""
    REFUSED = 4
    """Refused for safety, or a source that was to go was kept; the report says why."""
    ENVIRONMENT = 5
    """Space, permission, a file system, a scheduler or a killed worker is in the way."""
    INTERRUPTED = 130
    """Interrupted by Ctrl+C or SIGTERM; the same command goes on."""


class CtrateError(Exception):
    """An error with its place, the value seen, the value expected and the next command.

    The facts survive pickling, so that a worker process can send its error to the parent. The next
    command is also a note of the exception: so a traceback ends with it, and with that the text
    from which torch makes the error of a ``DataLoader`` worker anew.
    """

    exit_code: ExitCode = ExitCode.USAGE

    def __init__(
        self,
        what: str,
        *,
        where: object = None,
        seen: object = None,
        expected: object = None,
        next_command: str | None = None,
    ) -> None:
        self.what = what
        self.where = None if where is None else str(where)
        self.seen = None if seen is None else str(seen)
        self.expected = None if expected is None else str(expected)
        self.next_command = next_command
        super().__init__(self.one_line())
        if next_command:
            self.add_note(f"Next: {next_command}")

    def __reduce__(self) -> tuple[object, ...]:
        facts = {name: getattr(self, name) for name in _FACTS}
        return (_rebuild, (type(self), facts))

    def one_line(self) -> str:
        """Return the facts in one line, for records and tables."""
        text = self.what
        if self.where is not None:
            text += f" ({self.where})"
        if self.seen is not None:
            text += f": seen {self.seen}"
        if self.expected is not None:
            text += f"{',' if self.seen is not None else ':'} expected {self.expected}"
        return text

    def facts(self) -> list[tuple[str, str]]:
        """Return the facts that are known besides ``what``, each with its name."""
        facts = (
            ("where", self.where),
            ("seen", self.seen),
            ("expected", self.expected),
            ("next", self.next_command),
        )
        return [(name, value) for name, value in facts if value]

    def lines(self) -> list[str]:
        """Return the facts for a terminal, one on each line."""
        return [self.what, *(f"  {name + ':':<10}{value}" for name, value in self.facts())]


_FACTS = ("what", "where", "seen", "expected", "next_command")


def _rebuild(kind: type[CtrateError], facts: dict[str, str | None]) -> CtrateError:
    what = facts.pop("what") or ""
    return kind(what, **facts)


class SettingsError(CtrateError):
    """An error for a setting, option or named file that is not usable; nothing was changed."""

    exit_code = ExitCode.USAGE


class SampleError(CtrateError):
    """An error for one volume that cannot be converted.

    Its shard is written without it, and its source stays.
    """

    exit_code = ExitCode.SAMPLES_FAILED


class UnreadableSource(SampleError):
    """An error for a source that the storage could not read.

    The cause may be temporary, so every new plan tries the volume again.
    """


class DamageError(CtrateError):
    """An error for bytes on disk that are not what a record says they are."""

    exit_code = ExitCode.DAMAGE


class RefusedError(CtrateError):
    """An error for a step that would not be safe; nothing was changed."""

    exit_code = ExitCode.REFUSED


class EnvironmentProblem(CtrateError):
    """An error from space, permissions, a file system or a scheduler.

    The same command continues once the cause is removed.
    """

    exit_code = ExitCode.ENVIRONMENT


class WorkerDied(EnvironmentProblem):
    """An error for a worker process that died; the same command converts its shard again."""


class WorkerKilled(WorkerDied):
    """An error for a worker process that was killed by SIGKILL.

    Often the kernel or the scheduler sends SIGKILL because memory ran out.
    """


class Interrupted(CtrateError):
    """An error for a command that Ctrl+C or SIGTERM stopped.

    The same command continues where this one stopped.
    """

    exit_code = ExitCode.INTERRUPTED


class DamagedShardWarning(UserWarning):
    """A warning that the readers leave a shard out because its record is not reliable."""


_HINTS = {
    errno.ENOSPC: "free some space there; nothing was lost",
    errno.EDQUOT: "the quota there is used up; nothing was lost",
    errno.EFBIG: "a file size limit (ulimit -f) is in the way",
    errno.EROFS: "that file system is mounted read-only",
    errno.EACCES: "that place is not readable or writable for this user",
    errno.EPERM: "that place is not readable or writable for this user",
    errno.ESTALE: "the network file system lost its handle",
}


def environment_problem(error: OSError, doing: str, where: object = None) -> EnvironmentProblem:
    """Return an `EnvironmentProblem` for an ``OSError`` met while ``doing`` something."""
    number = error.errno or 0
    cause = os.strerror(number) if number else str(error)
    hint = _HINTS.get(number)
    return EnvironmentProblem(
        f"{doing}: {cause}" + (f" ({hint})" if hint else ""),
        where=error.filename if where is None else where,
        next_command="give the same command again once that is mended",
    )
