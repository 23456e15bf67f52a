"""The command ``ctrate-convert restore``."""

from __future__ import annotations

from pathlib import Path

import click

from ctrate_convert.cli import options, show
from ctrate_convert.cli.folding import folded
from ctrate_convert.deleting.restore import restore
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.plans import require_plans


@click.command("restore")
@options.out_argument
@click.option("--key", "keys", multiple=True, help="Only this sample's source; may be repeated.")
@options.json_option
def command(out: Path, keys: tuple[str, ...], as_json: bool) -> int:
    """Move sources that --trash moved away back to where they were.

    Nothing is overwritten. A restored source is kept from then on. Sources that a killed deletion
    left under a hidden name (.NAME.npz.leaving, .equal) get their name back, too.

    \b
    Examples:
      ctrate-convert restore /data/shards
      ctrate-convert restore /data/shards --key train_1_a_1
    """
    report = restore(Dataset(out), keys)
    if as_json:
        show.as_json(report)
        return report.exit_code
    show.line(
        f"Restored {show.count(len(report.restored), 'source file')}, "
        f"{show.size(report.restored_bytes)}."
        if report.restored or report.left
        else "Nothing is in a trash."
    )
    if report.put_back:
        show.line(
            f"{show.count(len(report.put_back), 'source file')} that a killed command had aside "
            "got the name back."
        )
    if report.restored:
        folders = sorted({plan.settings.data_folder for plan in require_plans(Dataset(out))})
        show.line(
            f"Back in: {', '.join(folders)}. Next: ctrate-convert delete {out}, which shows all."
        )
    show.some(folded("left in the trash", report.left, "file", " — "))
    return report.exit_code
