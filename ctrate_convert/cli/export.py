"""The command ``ctrate-convert export``."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import click

from ctrate_convert.cli import options, show
from ctrate_convert.errors import SettingsError
from ctrate_convert.exporting.export import ExportReport, Form, export
from ctrate_convert.exporting.indexes.export_index import export_index
from ctrate_convert.exporting.indexes.own_folder import Kind
from ctrate_convert.store.layout import Dataset


@click.command("export")
@options.out_argument
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--key", "keys", multiple=True, help="Only this sample; may be repeated.")
@click.option(
    "--keys",
    "keys_file",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Only the samples on this list, one a line.",
)
@click.option("--all", "everything", is_flag=True, help="Every sample that is in a shard.")
@click.option(
    "--as",
    "form",
    type=click.Choice(get_args(Form)),
    show_default="source",
    help="source: the files as they were. nifti: KEY.nii.gz. npz: KEY.npz.",
)
@click.option(
    "--index",
    type=click.Choice(get_args(Kind)),
    help="No sources, but links to the shards and this reader's index of them.",
)
@options.json_option
def command(
    out: Path,
    folder: Path,
    keys: tuple[str, ...],
    keys_file: Path | None,
    everything: bool,
    form: Form | None,
    index: Kind | None,
    as_json: bool,
) -> int:
    """Write sources again from their shards, below FOLDER.

    A source comes back with the same array, header and entries; only its compressed bytes may
    differ. Volumes that were rounded when they were converted come back rounded, and their largest
    error is told. Nothing is overwritten.

    With --index, FOLDER becomes a dataset for another reader: wids, NVIDIA DALI or
    Megatron-Energon. Give the same command again after new shards were published.

    \b
    Examples:
      ctrate-convert export /data/shards /data/again --all
      ctrate-convert export /data/shards look --key train_1_a_1 --as nifti
      ctrate-convert export /data/shards /data/for-energon --index energon
    """
    if index is not None:
        if keys or keys_file or everything or form:
            raise SettingsError(
                "an index is always of all samples",
                seen="--index beside --key, --keys, --all or --as",
                expected="--index alone",
            )
        return _index(Dataset(out), folder, index, as_json)
    if bool(keys or keys_file) == everything:
        raise SettingsError(
            "which samples are to be exported?", expected="--key, --keys or --all, one of them"
        )
    wanted = None if everything else frozenset(keys) | _listed(keys_file)
    report = export(Dataset(out), folder, wanted, form or "source")
    if as_json:
        show.as_json(report)
    else:
        _show(report, folder)
    return report.exit_code


def _index(dataset: Dataset, folder: Path, index: Kind, as_json: bool) -> int:
    report = export_index(dataset, folder, index)
    if as_json:
        show.as_json(report)
        return report.exit_code
    show.line(
        f"{folder} is ready for {index}: {show.count(report.samples, 'sample')} in "
        f"{show.count(report.shards, 'shard')}."
    )
    if report.superseded and index == "wids":
        show.line(
            f"The shards also hold {show.count(report.superseded, 'sample')} of which a repair "
            "made another copy; wids reads both."
        )
    show.some(f"  changed since it was written, and kept: {name}" for name in report.kept)
    show.some(f"  left out: {name} — {why}" for name, why in report.failed)
    return report.exit_code


def _listed(path: Path | None) -> frozenset[str]:
    if path is None:
        return frozenset()
    from ctrate_convert.formats.tables import read_keys

    return read_keys(path, "keys")


def _show(report: ExportReport, folder: Path) -> None:
    size_bytes = sum(one.size_bytes for one in report.exported)
    show.line(
        f"Exported {show.count(len(report.exported), 'file')} to {folder}, {show.size(size_bytes)}."
    )
    rounded = [one for one in report.exported if one.max_abs_error > 0.0]
    if rounded:
        largest = max(rounded, key=lambda one: one.max_abs_error)
        show.line(
            f"{show.count(len(rounded), 'volume')} of them were rounded when they were converted: "
            f"at most {largest.max_abs_error:.4g} off, in {largest.key}."
        )
    if report.there:
        show.line(
            f"{show.count(len(report.there), 'file')} with these names were there already and are "
            "left as they are."
        )
    show.some(f"  not exported: {key} — {why}" for key, why in report.failed)
