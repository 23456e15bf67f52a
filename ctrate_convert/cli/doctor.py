"""The command ``ctrate-convert doctor``."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from ctrate_convert.checking.doctor.about_deletion import DELETION
from ctrate_convert.checking.doctor.diagnose import diagnose
from ctrate_convert.cli import options, show
from ctrate_convert.cluster.scheduler.profile import load_profile


@click.command("doctor")
@options.out_argument
@click.option(
    "--cluster",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="PROFILE",
    help="Try it between two nodes too, by one short job; the profile is the one of `submit`.",
)
@click.option(
    "--patience_min",
    type=click.FloatRange(min=0, min_open=True),
    default=15.0,
    show_default=True,
    help="With --cluster: for how long to wait for that job before it is cancelled.",
)
@options.json_option
def command(out: Path, cluster: Path | None, patience_min: float, as_json: bool) -> int:
    """Try on OUT's own mount what safety and speed rest on, and say what follows from it.

    \b
    Examples:
      ctrate-convert doctor /data/shards
      ctrate-convert doctor /data/shards --cluster config/clusters/plain.toml
    """
    profile = load_profile(cluster) if cluster else None
    found = diagnose(out)
    if profile is not None:
        from ctrate_convert.cluster.two_nodes.ask import (
            ask_two_nodes,  # imports submitit, so only if needed
        )

        between = ask_two_nodes(
            found.folder,
            profile,
            patience_s=patience_min * 60,
            tell=show.note,
        )
        found = dataclasses.replace(found, findings=(*found.findings, *between))
    if as_json:
        show.as_json(found)
        return found.exit_code
    show.wrapped(f"{found.folder} on {found.mount}, {show.size(found.free_bytes)} free")
    show.table(
        ("tried", "verdict", "seen", "what follows"),
        [(f.what, f.verdict, f.seen, f.consequence) for f in found.findings],
    )
    speeds = found.speeds
    show.wrapped(
        f"One process writes {show.speed(speeds.write_bytes_per_s)} (fsync included), reads "
        f"{show.speed(speeds.read_bytes_per_s)} from storage; a small fsync takes "
        f"{speeds.small_fsync_s * 1e3:.1f} ms."
    )
    for finding in found.findings:
        if finding.what == DELETION:
            show.wrapped(f"Deletion: {finding.seen}.")
    verdicts = {finding.verdict for finding in found.findings}
    if "not tested" in verdicts:
        show.line("Not everything could be tried: the same command again once the job can run.")
    if "bad" in verdicts:
        show.line("This place cannot be used: choose an output directory on another file system.")
    return found.exit_code
