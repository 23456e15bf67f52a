"""The command ``ctrate-convert export``."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import click

from ctrate_convert.cli import options, show
from ctrate_convert.errors import SettingsError
from ctrate_convert.exporting.export import ExportReport, Form, export
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
    default="source",
    show_default=True,
    help="source: the files as they were. nifti: KEY.nii.gz. npz: KEY.npz.",
)
@options.json_option
def command(
    out: Path,
    folder: Path,
    keys: tuple[str, ...],
    keys_file: Path | None,
    everything: bool,
    form: Form,
    as_json: bool,
) -> int:
    """Write sources again from their shards, below FOLDER.

    A source comes back with the same array, header and entries; only its compressed bytes may
    differ. Volumes that were rounded when they were converted come back rounded, and their largest
    error is told. Nothing is overwritten.

    \b
    Examples:
      ctrate-convert export /data/shards /data/again --all
      ctrate-convert export /data/shards look --key train_1_a_1 --as nifti
    """
    if bool(keys or keys_file) == everything:
        raise SettingsError(
            "which samples are to be exported?", expected="--key, --keys or --all, one of them"
        )
    wanted = None if everything else frozenset(keys) | _listed(keys_file)
    report = export(Dataset(out), folder, wanted, form)
    if as_json:
        show.as_json(report)
    else:
        _show(report, folder)
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
