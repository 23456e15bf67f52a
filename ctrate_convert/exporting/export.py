"""Write sources again from their shards, each published whole or not at all."""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal

from ctrate_convert.errors import (
    DamageError,
    ExitCode,
    SampleError,
    SettingsError,
    environment_problem,
)
from ctrate_convert.exporting import as_nifti, as_npz
from ctrate_convert.exporting.held import Held, read_held
from ctrate_convert.store.durable import PartialFile, make_directories
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.leavings import remove_stale_partials
from ctrate_convert.store.ledger import Ledger
from ctrate_convert.store.plans import load_plans
from ctrate_convert.store.records.record import ConvertedSample

Form = Literal["source", "nifti", "npz"]


@dataclass(frozen=True)
class Exported:
    """A file that was written. ``max_abs_error`` is that of its voxels, in the source's unit."""

    key: str
    path: str
    size_bytes: int
    max_abs_error: float


@dataclass
class ExportReport:
    """The files that were written, those that were there before, and the samples that failed.

    ``there`` are kept as they are: nothing is overwritten.
    """

    exported: list[Exported] = field(default_factory=list)
    there: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    exit_code: ExitCode = ExitCode.DONE


def export(
    dataset: Dataset,
    folder: Path,
    keys: Collection[str] | None,
    form: Form = "source",
) -> ExportReport:
    """Write the samples ``keys`` (None: all that are in a shard) below ``folder``.

    ``source`` writes files of the sources' kinds at the sources' relative paths. For integers, and
    for floats stored without error, the array, its header and all entries equal the source's; the
    compressed bytes need not. ``nifti`` and ``npz`` write ``KEY.nii.gz`` and ``KEY.npz``. Nothing
    is overwritten. A sample that cannot be written costs only itself.

    Raises:
        SettingsError: a key is in no shard, or ``folder`` lies in the dataset directory; or
            sources are asked for of views, which have none.
        EnvironmentProblem: the folder cannot be written.
    """
    require_outside(dataset, folder)
    if form == "source":
        _refuse_views(dataset)
    found = dict(_samples(dataset, keys))
    unknown = [] if keys is None else sorted(set(keys) - found.keys())
    if unknown:
        raise SettingsError(
            f"{len(unknown)} of the keys are in no readable shard",
            seen=", ".join(unknown[:3]),
            expected="keys of converted samples: ctrate-convert report OUT",
        )
    report = ExportReport()
    for parent in {(folder / _name(sample, form)).parent for _, sample in found.values()}:
        remove_stale_partials(parent, frozenset())  # of an export that was killed
    for key, (shard, sample) in found.items():
        try:
            _export(shard, sample, folder, form, report)
        except (SampleError, DamageError) as error:
            report.failed.append((key, error.one_line()))
            report.exit_code = max(report.exit_code, error.exit_code)
        except OSError as error:
            raise environment_problem(error, f"exporting {key}", folder) from error
    return report


def _refuse_views(dataset: Dataset) -> None:
    for plan in load_plans(dataset):
        if plan.settings.view is not None:
            raise SettingsError(
                "a view was made from a shard and has no source file of its own",
                where=dataset.out,
                expected="--as nifti or --as npz",
                next_command=f"ctrate-convert export {shlex.quote(plan.settings.data_folder)} …, "
                "for the sources of that dataset",
            )


def require_outside(dataset: Dataset, folder: Path) -> None:
    """Raise SettingsError if ``folder`` is the dataset directory or lies in it."""
    out = dataset.out.resolve()
    if folder.resolve() == out or out in folder.resolve().parents:
        raise SettingsError(
            "the folder lies in the dataset directory, which holds shards only",
            where=folder,
            next_command="choose a folder elsewhere",
        )


def _samples(
    dataset: Dataset, keys: Collection[str] | None
) -> Iterator[tuple[str, tuple[Path, ConvertedSample]]]:
    for recorded in Ledger.load(dataset).readable():
        for sample in recorded.live:
            if keys is None or sample.key in keys:
                yield sample.key, (dataset.shard(recorded.shard.index), sample)


def _export(
    shard: Path, sample: ConvertedSample, folder: Path, form: Form, report: ExportReport
) -> None:
    final = folder / _name(sample, form)
    if os.path.lexists(final):
        report.there.append(str(final))
        return
    held = read_held(shard, sample)
    make_directories(final.parent)
    with PartialFile(final) as partial:
        with os.fdopen(os.dup(partial.descriptor), "wb") as stream:
            _write(held, stream, form, final)
        size_bytes = os.fstat(partial.descriptor).st_size
        partial.settle()
        if not partial.publish():
            report.there.append(str(final))
            return
    report.exported.append(Exported(sample.key, str(final), size_bytes, sample.array.max_abs_error))


def _name(sample: ConvertedSample, form: Form) -> str:
    if form == "source":
        return sample.source.source
    return f"{sample.key}{'.nii.gz' if form == 'nifti' else '.npz'}"


def _write(held: Held, stream: BinaryIO, form: Form, final: Path) -> None:
    kind = held.header.kind
    if kind == "nifti" and form != "npz":
        as_nifti.write_source(held, stream, compressed=final.name.lower().endswith(".gz"))
    elif form == "nifti":
        as_nifti.write_from_affine(held, stream, final.parent)
    elif kind == "npz":
        as_npz.write_source(held, stream, final.parent)
    else:
        as_npz.write_array(held, stream)
