"""``ctrate-convert doctor``."""

from __future__ import annotations

from pathlib import Path

import click

from ctrate_convert.cli import options, show
from ctrate_convert.errors import ExitCode
from ctrate_convert.operations.doctor import diagnose


@click.command("doctor")
@options.out_argument
@options.json_option
def command(out: Path, as_json: bool) -> int:
    """Try on OUT's own mount what safety and speed rest on, and say what follows from it.

    \b
    Example:
      ctrate-convert doctor /data/shards
    """
    found = diagnose(out)
    if as_json:
        show.as_json(found)
        return found.exit_code
    show.line(f"{found.folder} on {found.mount}, {show.size(found.free_bytes)} free")
    show.table(
        ("tried", "verdict", "seen", "what follows"),
        [(f.what, f.verdict, f.seen, f.consequence) for f in found.findings],
    )
    speeds = found.speeds
    show.line(
        f"One process writes {speeds.write_bytes_per_s / 1e6:,.0f} MB/s (fsync included), reads "
        f"{speeds.read_bytes_per_s / 1e6:,.0f} MB/s from storage; a small fsync takes "
        f"{speeds.small_fsync_s * 1e3:.1f} ms."
    )
    if found.exit_code != ExitCode.DONE:
        show.line("This place cannot be used: choose an output directory on another file system.")
    return found.exit_code
