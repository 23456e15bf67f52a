"""The command ``ctrate-convert init``."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Literal, get_args

import click

from ctrate_convert.cli import show
from ctrate_convert.errors import ExitCode, RefusedError
from ctrate_convert.store.durable import create_once

Template = Literal["train", "valid", "cluster", "sbatch"]

_FILES: dict[Template, str] = {
    "train": "train.toml",
    "valid": "valid.toml",
    "cluster": "cluster.toml",
    "sbatch": "convert_array.sbatch",
}
_NEXT: dict[Template, str] = {
    "train": "set its paths, then: ctrate-convert plan --config {path}",
    "valid": "set its paths, then: ctrate-convert plan --config {path}",
    "cluster": "set its names, then: ctrate-convert submit OUT --profile {path} --dry_run",
    "sbatch": "sbatch --array=0-9 {path} OUT, with the tasks that `status` shows",
}


@click.command("init")
@click.argument("template", type=click.Choice(get_args(Template)), default="train")
@click.option(
    "--to",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where to write it; without it, under its own name in this folder.",
)
def command(template: Template, to: Path | None) -> int:
    """Write a settings file to start from: of a split, of a cluster, or a plain job script.

    A file that is there is never overwritten.

    \b
    Examples:
      ctrate-convert init
      ctrate-convert init cluster --to mycluster.toml
    """
    path = to or Path(_FILES[template])
    content = resources.files("ctrate_convert.templates").joinpath(_FILES[template]).read_bytes()
    if not create_once(path, content):
        raise RefusedError(
            "there is such a file already",
            where=path,
            next_command=f"ctrate-convert init {template} --to ANOTHER_NAME",
        )
    show.line(f"Wrote {path}. Next: {_NEXT[template].format(path=path)}")
    return ExitCode.DONE
