"""The command ``ctrate-convert demo``: every step on a small synthetic CT-RATE."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from ctrate_convert.cli import show
from ctrate_convert.errors import CtrateError, ExitCode, RefusedError
from ctrate_convert.synthetic import write_synthetic_ctrate

_FAULTS = {
    "corrupt": "one NPZ with a flipped byte",
    "no_report": "one volume without a report",
    "excluded": "one volume on the exclusion list",
}


@click.command("demo")
@click.argument(
    "folder", metavar="[FOLDER]", default="demo", type=click.Path(file_okay=False, path_type=Path)
)
def command(folder: Path) -> int:
    """Write a small synthetic CT-RATE, convert it, verify it, and delete what the shards hold.

    Each command is shown with what it prints.

    \b
    Example:
      ctrate-convert demo /tmp/demo
    """
    if folder.exists() and any(folder.iterdir()):
        raise RefusedError(
            "the demo wants a new folder",
            where=folder,
            next_command="ctrate-convert demo ANOTHER_FOLDER, or remove that one",
        )
    made = write_synthetic_ctrate(folder / "ct-rate", samples=24, faults=tuple(_FAULTS))  # type: ignore[arg-type]
    show.line(
        f"Wrote a synthetic CT-RATE of {len(made.keys)} volumes to {folder / 'ct-rate'}: "
        f"{', '.join(_FAULTS.values())}."
    )
    out = str(folder / "shards")
    tables = {
        "--data_folder": made.data_folder,
        "--reports_file": made.reports_file,
        "--meta_file": made.meta_file,
        "--labels_file": made.labels_file,
        "--exclude_file": made.exclude_file,
    }
    named = [str(word) for pair in tables.items() for word in pair]
    _run(["plan", *named, "--output_dir", out, "--samples_per_shard", "5"])
    _run(["run", out, "--num_workers", "2"], ExitCode.SAMPLES_FAILED)
    _run(["verify", out, "--full", "--check_precision"])
    _run(["delete", out, "--dry_run"])
    _run(["delete", out, "--yes"])
    _run(["history", out])
    _run(["merge", out])
    show.line(f"\nThe shards are in {out}; read them with webdataset, or with tar and numpy alone.")
    return ExitCode.DONE


def _run(words: list[str], expected: ExitCode = ExitCode.DONE) -> None:
    from ctrate_convert.cli import run_words

    show.line(f"\n$ ctrate-convert {shlex.join(words)}")
    code = run_words(words)
    if code != expected:
        raise CtrateError(f"the demo's {words[0]} ended otherwise", seen=code, expected=expected)
