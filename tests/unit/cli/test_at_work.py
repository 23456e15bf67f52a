"""Progress with the time left at a terminal, and what a stopped command says."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ctrate_convert.cli.bar import Bar
from ctrate_convert.errors import ExitCode
from ctrate_convert.looking.words import speed
from ctrate_convert.synthetic import SyntheticCtRate
from tests.support import (
    TIMEOUT_S,
    Converted,
    at_terminal_of,
    command,
    partials,
    plan_words,
    run_here,
)

Make = Callable[..., SyntheticCtRate]


def at_terminal(*words: object) -> str:
    return at_terminal_of(150, *words, env=dict(os.environ))


def test_each_long_command_has_a_bar_with_the_time_left(make_ctrate: Make, tmp_path: Path) -> None:
    out = tmp_path / "out"
    made = make_ctrate(8, shape=(160, 192, 192), kinds=("data",))
    plan = plan_words(made, out, "--samples_per_shard", 1, "--probe", 4)
    # A fast machine may be done before a bar was drawn twice: then it shows the end alone.
    planned = at_terminal(*plan)
    assert re.search(r"plan .*(volumes found|headers read|volumes probed)", planned), planned
    ran = at_terminal("run", out, "--num_workers", 1)
    assert re.search(r"convert .* [\d.,]+/8 samples, [\d,.]+ \wB/s", ran), ran
    verified = at_terminal("verify", out, "--full", "--num_workers", 1)
    assert re.search(r"verify .* \d/8 shards", verified), verified
    compared = at_terminal("audit", out, "--against_sources", "--num_workers", 1)
    assert re.search(r"audit .* \d/8 shards", compared), compared
    deleted = at_terminal("delete", out, "--yes", "--num_workers", 1)
    assert re.search(r"delete .* [\d.,]+/8 samples, .* freed", deleted), deleted
    assert "MB/s" not in deleted
    audited = at_terminal("audit", out, "--num_workers", 1)
    assert re.search(r"audit .* \d/8 shards", audited), audited
    told = (planned, ran, verified, compared, deleted, audited)
    assert any(re.search(r"ETA 0:00:0\d", said) for said in told)


def test_elsewhere_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Bar("verify") as bar:
        bar.update(0, 40, "0/40 shards")
        now[0] += 9
        bar.update(9, 40, "9/40 shards")
        now[0] += 1
        bar.update(10, 40, "10/40 shards")
        bar.update(11, 40, "11/40 shards")
    assert capsys.readouterr().err == "verify: 10/40 shards, ETA 0:00:30\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_says_so_at_once_and_then_what_it_gave_up(
    make_ctrate: Make, tmp_path: Path, number: signal.Signals
) -> None:
    """The number of volumes to be converted again is that of the shard's samples that were done."""
    out = tmp_path / "out"
    made = make_ctrate(30, shape=(96, 128, 128), kinds=("data",))
    run_here(*plan_words(made, out, "--probe", 0, "--encoding", "npy.gz"))
    with subprocess.Popen(
        command("run", out, "--num_workers", 1),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        deadline = time.monotonic() + TIMEOUT_S
        while written_bytes(out) < 2**20:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == ExitCode.INTERRUPTED
    stopping = f"stopping ({number.name}): shards under way are given up within 30 s, none is lost"
    assert stderr.count(stopping) == 1
    found = re.search(
        r"Given up: 1 half-converted shard; converted again next time: (\d+) volumes?\.\n"
        rf"Stopped by {number.name}; nothing is lost, the same command goes on\.",
        stdout,
    )
    assert found, stdout
    assert 1 <= int(found[1]) <= 30
    again = run_here("run", out, "--num_workers", 1)
    assert (again.code, "Converted 30 samples" in again.stdout) == (ExitCode.DONE, True)


def written_bytes(out: Path) -> int:
    """The size of what is being written."""
    return sum(path.stat().st_size for path in partials(out))


def test_precision_is_told_of_deleted_sources_too(converted: Converted) -> None:
    """Of a source that is gone, what was recorded when it was converted."""
    samples = converted.record().converted
    key = samples[0].key
    recorded = f"{samples[0].array.max_abs_error:.6g}"
    words = ["--num_samples", 100, "--check_precision"]
    assert run_here("delete", converted.out, "--yes").code == ExitCode.DONE
    for command_words in (["verify", converted.out], ["check", "--webdataset_dir", converted.out]):
        done = run_here(*command_words, *words)
        assert done.code == ExitCode.DONE
        assert re.search(rf"^{key} +source gone +{re.escape(recorded)} *$", done.stdout, re.M)
    precision = run_here("verify", converted.out, *words, "--json").json()["precision"]
    assert len(precision) == len(converted.originals)
    assert {one["max_abs_error"] for one in precision} == {None}


def test_history_lists_local_runs(make_ctrate: Make, tmp_path: Path) -> None:
    out = tmp_path / "out"
    made = make_ctrate(4)
    run_here(*plan_words(made, out, "--probe", 0))
    assert "deletes sources" not in run_here("history", out).stdout
    assert run_here("run", out, "--num_workers", 1).code == ExitCode.DONE
    assert run_here("delete", out, "--yes").code == ExitCode.DONE
    said = run_here("history", out).stdout
    host = re.escape(socket.gethostname())
    when = r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d"
    assert re.search(rf"^{when} +{host} +0 +converts +0:00:\d\d +4 +0 +done", said, re.M), said
    assert re.search(rf"^{when} +{host} +0 +deletes sources .* done", said, re.M), said
    runs = run_here("history", out, "--json").json()["runs"]
    facts = {(one["deletes_only"], one["samples_converted"], one["outcome"]) for one in runs}
    assert facts == {(False, 4, "done"), (True, 0, "done")}


def test_sizes_and_speeds_have_units_that_suit_them(make_ctrate: Make, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_here(*plan_words(make_ctrate(2), out, "--probe", 0))
    said = run_here("run", out, "--num_workers", 1).stdout + run_here("merge", out).stdout
    assert re.search(r"2 samples, \d+\.\d KiB, \d+\.\d KiB a sample|2 samples, .* bytes", said), (
        said
    )
    assert not re.search(r"(?<![\d.])0(\.0+)? (MB/s|[KMGT]iB)", said)
    assert [speed(value) for value in (3.2e8, 4.25e6, 5e4)] == ["320 MB/s", "4.2 MB/s", "50.0 kB/s"]
