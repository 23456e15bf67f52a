"""Memory of views: a reading process and a converting worker, above the same ones idle."""

from __future__ import annotations

import importlib
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import our_way
from benchmarks.memory import peak_mib
from benchmarks.report import Table, Target
from benchmarks.volumes import Shape, SourceKind, Volume, make
from ctrate_convert import Volumes
from ctrate_convert.planning.views.plan import plan_views
from ctrate_convert.reading.boxes import whole
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.merger import merge
from ctrate_convert.store.plans import load_plans
from ctrate_convert.store.records.geometry import Axes
from ctrate_convert.store.records.plan import Encoding, PlanSettings
from ctrate_convert.views.presets import presets

BEYOND_OUTPUT_MIB = 40.0

_NAMES = ("ctclip", "ctclip-inference", "ctclip-modern", "hlip")
_ENCODINGS: tuple[Encoding, ...] = ("npy", "b2nd")
_INT16 = SourceKind("int16", deflated=True)
_ROWS_FIRST: Axes = "yxz"


@dataclass(frozen=True)
class _Seen:
    """A view, how it was made, its bytes, and the peak above an idle process of the same kind."""

    how: str
    output_mib: float
    above_mib: float

    @property
    def beyond_mib(self) -> float:
        return self.above_mib - self.output_mib

    def row(self) -> list[str]:
        return [
            self.how,
            *(f"{one:.0f} MiB" for one in (self.output_mib, self.above_mib, self.beyond_mib)),
        ]


def table(work: Path, shape: Shape) -> Table:
    """Make views of one volume while reading and as a stored dataset, in fresh processes."""
    folder = work / "view-memory"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    source = make([Volume(_INT16, shape)], work / "volumes")
    our_way.write_inputs(folder / "inputs", source, shape=shape)
    seen: list[_Seen] = []
    idle = {encoding: peak_mib(_nothing, encoding) for encoding in _ENCODINGS}
    for encoding in _ENCODINGS:
        native = folder / encoding
        our_way.plan(folder / "inputs", native, 1, encoding)
        our_way.convert(native, 0)
        merge(Dataset(native), load_plans(Dataset(native)))
        for name in _NAMES:
            output = _output_mib(native, name)
            read = peak_mib(_read, native, name)
            seen.append(_Seen(f"{name}, reading {encoding}", output, read - idle[encoding]))
    for name, encoding in (("ctclip", "npy"), ("ctclip", "b2nd"), ("ctclip-modern", "b2nd")):
        out = folder / f"{name}-{encoding}"
        _plan(folder / "b2nd", out, name, encoding)
        stored = peak_mib(our_way.convert, out, 0)
        output = _output_mib(folder / "b2nd", name)
        seen.append(_Seen(f"{name}, b2nd to stored {encoding}", output, stored - idle["b2nd"]))
    shutil.rmtree(folder)
    worst = max(one.beyond_mib for one in seen)
    return Table(
        f"Views: memory of a process, a volume of {'×'.join(map(str, shape))}, int16",
        ["view, and what is done", "the view itself", "peak above idle", "beyond the view"],
        [one.row() for one in seen],
        [
            "The high-water mark of resident memory (VmHWM) less that of a worker process that has "
            f"imported everything and makes no view: {idle['npy']:.0f} MiB, and with Blosc2, which "
            f"b2nd needs, {idle['b2nd']:.0f} MiB.",
            Target("The worst, beyond the view", high=BEYOND_OUTPUT_MIB, unit=" MiB").note(worst)
            + ".",
        ],
    )


def _plan(native: Path, out: Path, name: str, encoding: Encoding) -> None:
    settings = PlanSettings(
        data_folder=str(native), reports_file="", meta_file="", labels_file="",
        view=presets()[name], encoding=encoding, assume_axes=_ROWS_FIRST, probe=0,
    )  # fmt: skip
    plan_views(Dataset(out), settings)


def _output_mib(native: Path, name: str) -> float:
    (sample,) = Volumes(native, view=name, assume_axes=_ROWS_FIRST).values()
    return float(np.prod(sample.array.shape)) * sample.array.dtype.itemsize / 2**20


def _nothing(encoding: Encoding) -> None:
    """Do nothing, in a process that has imported all that reading or writing ``encoding`` needs."""
    if encoding == "b2nd":
        importlib.import_module("blosc2")
    presets()


def _read(native: Path, name: str) -> None:
    (sample,) = Volumes(native, view=name, assume_axes=_ROWS_FIRST).values()
    part = sample.array[whole(sample.array.shape)]
    if part.shape != sample.array.shape:
        raise RuntimeError(f"{name} has another shape than was told")
