"""Start an element on its node: ``python -u -m ctrate_convert.cluster.start FOLDER``.

submitit's own entry point unpickles the payload, and unpickling runs whatever is in it. So nothing
is unpickled that anybody but this user could have written: the payload, its folder, and every
folder above it that this program made are checked. The folders are opened one after the other, each
within the one before. submitit gets the folder that was checked, whatever its name may lead to by
then.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from submitit.core.job_environment import JobEnvironment
from submitit.core.submission import process_job

from ctrate_convert.errors import EnvironmentProblem, ExitCode, RefusedError
from ctrate_convert.store.privacy import doubt_about, forbid

_PATIENCE_S = 60.0
"""Time for which a network file system may not show the payload yet."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def main(words: list[str]) -> int:
    """Check the payload and hand over to submitit, whose errors come through."""
    try:
        folder = Path(words[0]).absolute()
        with _checked_folder(folder) as descriptor:
            # A path to the opened folder itself: replacing the folder's name does not change it.
            same = f"/proc/self/fd/{descriptor}"
            os.environ["SUBMITIT_FOLDER"] = same
            _check_payload(descriptor, folder, JobEnvironment().paths.submitted_pickle.name)
            process_job(same)
    except (RefusedError, EnvironmentProblem) as error:
        sys.stderr.write("error: " + "\n".join(error.lines()) + "\n")
        return error.exit_code
    return ExitCode.DONE


@contextlib.contextmanager
def _checked_folder(folder: Path) -> Iterator[int]:
    """Check ``folder`` and those above it that the program made; yield it as a descriptor."""
    root = _made_by_us(folder)
    with contextlib.ExitStack() as stack:
        path, descriptor = root, _opened(root, root, None)
        stack.callback(os.close, descriptor)
        _check(os.fstat(descriptor), root)
        # Whatever the element writes is no more open than the program's topmost folder.
        forbid(~stat.S_IMODE(os.fstat(descriptor).st_mode))
        for part in folder.relative_to(root).parts:
            path /= part
            descriptor = _opened(path, Path(part), descriptor)
            stack.callback(os.close, descriptor)
            _check(os.fstat(descriptor), path)
        yield descriptor


def _made_by_us(folder: Path) -> Path:
    """Return the topmost folder that the program made: the innermost hidden one, as ``.run``."""
    hidden = [one for one in (folder, *folder.parents) if one.name.startswith(".")]
    return hidden[0] if hidden else folder


def _opened(path: Path, name: Path, within: int | None) -> int:
    try:
        return os.open(name, _FOLDER, dir_fd=within)
    except NotADirectoryError as error:  # a link, or not a folder
        raise _refused(path, "not a folder, or a link to one") from error
    except OSError as error:
        raise EnvironmentProblem(
            f"the element cannot open its folder: {error.strerror}", where=path
        ) from error


def _check_payload(directory: int, folder: Path, name: str) -> None:
    """Check the payload: it is a file, or the job script's link to one in the same folder."""
    path = folder / name
    status = _awaited(directory, name, path)
    if stat.S_ISLNK(status.st_mode):
        target = os.readlink(name, dir_fd=directory)
        if status.st_uid != os.geteuid() or "/" in target or target in ("", ".", ".."):
            raise _refused(path, f"a link of user {status.st_uid} to {target}")
        path = folder / target
        status = _awaited(directory, target, path)
    if not stat.S_ISREG(status.st_mode):
        raise _refused(path, "neither a file nor a link to one")
    _check(status, path)


def _awaited(directory: int, name: str, path: Path) -> os.stat_result:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError as error:
            if time.monotonic() > deadline:
                raise EnvironmentProblem("the element has no payload", where=path) from error
        time.sleep(1)


def _check(status: os.stat_result, path: Path) -> None:
    doubt = doubt_about(status)
    if doubt:
        raise _refused(path, doubt)


def _refused(path: Path, seen: str) -> RefusedError:
    return RefusedError(
        "this element was not started: somebody else could have written what it would run",
        where=path,
        seen=seen,
        expected=f"owned by user {os.geteuid()} and writable by nobody else, not reached by a link",
        next_command=f"find out who changed it; then: chmod go-w {path}, and relaunch",
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
