"""The recording is the truth: the kernel saw the same operations in the same order."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.promises.crash.disk import ROOT, DataChange, Disk, Fsync, NameChange
from tests.support import needs

CALLS = (
    "open,openat,openat2,creat,write,pwrite64,writev,pwritev,pwritev2,sendfile,copy_file_range,"
    "ftruncate,truncate,fallocate,fsync,fdatasync,sync_file_range,link,linkat,symlink,symlinkat,"
    "rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir"
)
_LINE = re.compile(r"\d+\s+(\w+)\((.*)\)\s+= (\d+)(?:<.*)?$")
_UNFINISHED = " <unfinished ...>"
_RESUMED = re.compile(r"(\d+)\s+<\.\.\. \w+ resumed>(.*)$")
_DESCRIPTOR = re.compile(r"^\d+<(.*?)>")
_NAMES = re.compile(r'"((?:[^"\\]|\\.)*)"')


class KernelLog:
    """What strace says of the files below ``folder``, in the recorder's words."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._there: set[str] = set()

    def told(self, text: str) -> list[str]:
        return [line for raw in _whole_lines(text) for line in self._line(raw)]

    def _line(self, raw: str) -> list[str]:
        match = _LINE.match(raw)
        if match is None or self._folder not in raw:
            return []
        call, words, result = match.groups()
        names = [name.rpartition("/")[2] for name in _NAMES.findall(words)]
        if call.startswith("open"):
            return self._create(names[0]) if "O_CREAT" in words else []
        if call.startswith(("rename", "link")):
            old, new = names
            self._there.add(new)
            return [f"rename {old} {new}"] if call.startswith("rename") else [f"link {new}"]
        if call.startswith(("unlink", "rmdir")):
            self._there.discard(names[0])
            directory = call == "rmdir" or "AT_REMOVEDIR" in words
            return [f"{'rmdir' if directory else 'unlink'} {names[0]}"]
        if call.startswith("mkdir"):
            self._there.add(names[0])
            return [f"mkdir {names[0]}"]
        descriptor = _DESCRIPTOR.match(words)
        if descriptor is None:
            return [raw]
        name = descriptor[1].removesuffix(" (deleted)").rpartition("/")[2]
        return [f"{call} {name} {result}" if "write" in call else f"{call} {name}"]

    def _create(self, name: str) -> list[str]:
        if name in self._there:
            return []
        self._there.add(name)
        return [f"create {name}"]


def _whole_lines(text: str) -> Iterator[str]:
    """Calls that another thread cut in two, if only by its own end, put together again."""
    begun: dict[str, str] = {}
    for line in text.splitlines():
        resumed = _RESUMED.match(line)
        if line.endswith(_UNFINISHED):
            begun[line.split()[0]] = line.removesuffix(_UNFINISHED)
        elif resumed:
            yield begun.pop(resumed[1]) + resumed[2]
        else:
            yield line


def test_a_call_that_was_cut_in_two_is_read_as_one() -> None:
    """A thread may end while another one's call is under way."""
    text = """\
7 fsync(5</d/out> <unfinished ...>
8 +++ exited with 0 +++
7 <... fsync resumed>)                     = 0
7 unlink("/d/out/a") = 0"""
    assert KernelLog(Path("/d")).told(text) == ["fsync out", "unlink a"]


def test_the_kernel_saw_what_was_recorded(tmp_path: Path) -> None:
    """strace tells the same creations, writes, fsyncs, links, renames and removals in order."""
    needs("strace", "strace", "-o", "/dev/null", "true")
    log, folder = tmp_path / "strace.txt", tmp_path / "work"
    strace = ["strace", "-f", "-y", "-s", "4", "-e", f"trace={CALLS}", "-o", str(log)]
    python = [sys.executable, "-m", "tests.promises.crash", str(folder)]
    done = subprocess.run([*strace, *python], capture_output=True, text=True, check=True)
    recorded = done.stdout.splitlines()
    assert len(recorded) > 100

    text = log.read_text()
    made = text.index(f'mkdir("{folder}/disk/results"')
    # The place is tried before anything is made there.
    start = text.rindex(f"<{folder}/disk>)", 0, made)
    kernel = KernelLog(folder / "disk").told(text[text.rindex("\n", 0, start) + 1 :])
    assert kernel == recorded


def publish() -> Disk:
    """A file that was written, renamed and not synced at all."""
    disk = Disk()
    disk.take(NameChange("create", ROOT, (("hidden", 1),)))
    disk.take(DataChange(1, 0, b"four"))
    disk.take(NameChange("rename", ROOT, (("hidden", None), ("final", 1))))
    return disk


def test_without_fsync_a_name_may_come_without_its_data() -> None:
    """The model knows the file that is renamed into place and empty after a power loss."""
    trees = [state.tree for state in publish().states()]
    for left in ({}, {"hidden": b""}, {"final": b""}, {"final": b"fo"}, {"final": bytes(4)}):
        assert left in trees
    assert {"final": b"four"} in trees


def test_fsync_of_a_file_says_nothing_of_its_name() -> None:
    """Data that is durable under a name that is not is not to be found."""
    disk = publish()
    disk.take(Fsync(1, "data"))
    trees = [state.tree for state in disk.states()]
    assert {} in trees
    assert {"final": b"four"} in trees
    assert {"final": b""} not in trees


def test_fsync_of_a_directory_says_nothing_of_the_data() -> None:
    """A name that is durable may lead to an empty file."""
    disk = publish()
    disk.take(Fsync(ROOT, "names"))
    trees = [state.tree for state in disk.states()]
    assert {} not in trees
    assert {"final": b""} in trees


def test_both_make_it_durable() -> None:
    """After both there is one state left."""
    disk = publish()
    disk.take(Fsync(1, "data"))
    disk.take(Fsync(ROOT, "names"))
    assert [state.tree for state in disk.states()] == [{"final": b"four"}]
