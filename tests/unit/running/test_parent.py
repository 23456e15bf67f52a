"""Workers end with their command, and so does what a worker forks."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

_COMMAND = """
import multiprocessing, os, signal, sys, time
from pathlib import Path
from ctrate_convert.running.parent import start_forkserver


def work(folder):
    child = os.fork()
    if child == 0:
        (folder / "forked").write_text(str(os.getpid()))
        while not (folder / "go").exists():
            time.sleep(0.01)
        os._exit(7)
    (folder / "status").write_text(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])))


if __name__ == "__main__":
    start_forkserver([])
    context = multiprocessing.get_context("forkserver")
    worker = context.Process(target=work, args=[Path(sys.argv[1])])
    worker.start()
    worker.join()
"""


def _started(folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    """Start a command whose worker forks; return the command and the forked process."""
    script = folder / "command.py"
    script.write_text(_COMMAND)
    command = subprocess.Popen([sys.executable, str(script), str(folder)])
    forked = folder / "forked"
    while not forked.exists() or not forked.read_text():
        assert command.poll() is None
        time.sleep(0.01)
    return command, int(forked.read_text())


def test_a_worker_may_fork(tmp_path: Path) -> None:
    """The forked process is no child of the fork server, and lives all the same."""
    command, _ = _started(tmp_path)
    (tmp_path / "go").touch()
    assert command.wait(timeout=60) == 0
    assert (tmp_path / "status").read_text() == "7"


def test_what_a_worker_forked_ends_with_the_command(tmp_path: Path) -> None:
    """Killed without a word, the command leaves no process behind."""
    command, forked = _started(tmp_path)
    command.kill()
    command.wait()
    deadline = time.monotonic() + 30
    while _runs(forked):
        assert time.monotonic() < deadline, "the forked process goes on"
        time.sleep(0.01)
    assert not (tmp_path / "status").exists()


def _runs(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
