"""Peak memory of a worker process, small volume against large, above a worker that does nothing."""

from __future__ import annotations

import multiprocessing
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks import original_way, our_way
from benchmarks.report import Table, Target
from benchmarks.volumes import Shape, SourceKind, Volume, make
from ctrate_convert.store.records.plan import Encoding

LIMIT_MIB = 150
"""What a worker may take above an idle one, whatever the volume's size."""

_DEFLATED = SourceKind("float32", deflated=True)
_TURNED = SourceKind("float32", deflated=True, fortran=True)
_STORED = SourceKind("float32", deflated=False)

WAYS: tuple[tuple[SourceKind, Encoding], ...] = (
    (_DEFLATED, "npy"),
    (_STORED, "npy"),
    (_TURNED, "npy"),
    *((kind, encoding) for encoding in ("npy.gz", "b2nd") for kind in (_DEFLATED, _TURNED)),
)
_FAST_LEVEL = 1


@dataclass(frozen=True)
class Sizes:
    """The two sizes that are compared."""

    small: Shape
    large: Shape


FULL = Sizes(small=(256, 256, 256), large=(512, 512, 1639))
QUICK = Sizes(small=(256, 256, 64), large=(256, 256, 256))


def table(work: Path, sizes: Sizes) -> Table:
    """Convert both sizes in every way, each in a fresh worker process."""
    idle = peak_mib(nothing)
    rows = []
    worst = 0.0
    for kind, encoding in WAYS:
        peaks = [
            _ours(work, Volume(kind, shape, level=_FAST_LEVEL), encoding)
            for shape in (sizes.small, sizes.large)
        ]
        above = [peak - idle for peak in peaks]
        worst = max(worst, above[1])
        rows.append([f"{kind.name} → {encoding}", *(f"{mib:.0f} MiB" for mib in above)])
    large = Volume(_STORED, sizes.large, level=_FAST_LEVEL)
    small = Volume(_STORED, sizes.small, level=_FAST_LEVEL)
    above = [_original(work, volume) - idle for volume in (small, large)]
    rows.append([f"{_STORED.name}, original's way", *(f"{mib:.0f} MiB" for mib in above)])
    return Table(
        "Memory: a worker's peak above an idle worker",
        ["source → encoding", _size(small), _size(large)],
        rows,
        [
            f"The high-water mark of resident memory (VmHWM) less that of a worker process of the "
            f"same kind that has imported everything and converts nothing ({idle:.0f} MiB).",
            Target("The worst of ours", high=LIMIT_MIB, unit=" MiB").note(worst) + ".",
        ],
    )


def _size(volume: Volume) -> str:
    mib = volume.array_bytes / 2**20
    return f"{mib / 1024:.1f} GiB" if mib >= 1024 else f"{mib:.0f} MiB"


def _ours(work: Path, volume: Volume, encoding: Encoding) -> float:
    inputs, out = work / "inputs", work / "ours"
    shutil.rmtree(inputs, ignore_errors=True)
    our_way.write_inputs(inputs, make([volume], work / "volumes"))
    our_way.plan(inputs, out, samples_per_shard=1, encoding=encoding)
    peak = peak_mib(our_way.convert, out, 0)
    shutil.rmtree(inputs)
    shutil.rmtree(out)
    return peak


def _original(work: Path, volume: Volume) -> float:
    target = work / "original.tar"
    peak = peak_mib(original_way.convert, make([volume], work / "volumes"), target)
    target.unlink()
    return peak


def nothing() -> None:
    """Do nothing: the job of an idle worker."""


def peak_mib(job: Callable[..., object], *arguments: object) -> float:
    """Run ``job`` in a process that starts as the tool's own workers do.

    Raises:
        RuntimeError: it failed.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ctrate_convert.running.worker", "benchmarks.our_way"])
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_job, args=(there, job, arguments))
    process.start()
    there.close()
    try:
        return float(here.recv())
    except EOFError as error:
        raise RuntimeError("the measured process failed") from error
    finally:
        process.join()


def _job(connection: Connection, job: Callable[..., object], arguments: tuple[object, ...]) -> None:
    job(*arguments)
    # Not ru_maxrss, which a process inherits from the one that started it.
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            connection.send(int(line.split()[1]) / 1024)
