"""The command ``ctrate-convert verify``."""

from __future__ import annotations

from pathlib import Path

import click

from ctrate_convert.checking.damage import mend_command
from ctrate_convert.checking.mending.mend import MendReport, mend
from ctrate_convert.checking.mending.repair import RepairReport, repair
from ctrate_convert.checking.units import verified
from ctrate_convert.checking.verify import VerifyReport, verify
from ctrate_convert.cli import options, show
from ctrate_convert.cli.bar import ShardBar
from ctrate_convert.cli.folding import damage_line, folded_damage, folded_notes
from ctrate_convert.cli.on_cluster import Jobs, newest, refuse_with_result, submit_check_of
from ctrate_convert.cli.progress import RunProgress
from ctrate_convert.cli.stopping import stoppable
from ctrate_convert.errors import SettingsError
from ctrate_convert.running.run import Crew
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.records.check import CheckOptions

_NAMED = 50
_FEW = 5


@click.command("verify")
@options.out_argument
@click.option(
    "--num_samples",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    help="Samples to check byte by byte, chosen at random.",
)
@click.option("--check_precision", is_flag=True, help="Compare voxels with the sources' voxels.")
@click.option("--full", is_flag=True, help="Read every shard whole instead of some samples.")
@click.option(
    "--repair",
    "repairing",
    is_flag=True,
    help="Restore damaged plans from their second copy, rebuild damaged records from their shards, "
    "and convert damaged shards' samples again into new shards, from sources that still exist. "
    "With --full.",
)
@click.option("--details", is_flag=True, help="Name every finding, not one line for each shard.")
@options.on_the_cluster
@options.result_option
@options.num_workers_option
@options.json_option
def command(
    out: Path,
    num_samples: int,
    check_precision: bool,
    full: bool,
    repairing: bool,
    details: bool,
    submit: bool,
    profile: Path | None,
    timeout_min: int | None,
    mem_gb: float | None,
    result: bool,
    num_workers: int,
    as_json: bool,
) -> int:
    """Check the shards against their records, and against the sources that still exist.

    With --submit, jobs read the shards. The same command then goes on with what they left, and
    --result reports: exit code 5 while a shard is not checked.

    \b
    Examples:
      ctrate-convert verify /data/shards --num_samples 10 --check_precision
      ctrate-convert verify /data/shards --full
      ctrate-convert verify /data/shards --full --repair
      ctrate-convert verify /data/shards --full --submit
    """
    dataset = Dataset(out)
    if repairing and not full:
        raise SettingsError(
            "--repair needs to know every damaged shard",
            seen="--repair without --full",
            next_command=f"ctrate-convert verify {out} --full --repair",
        )
    jobs = Jobs(submit, profile, timeout_min, mem_gb)
    jobs.refuse_if_alone("repairing")
    if result:
        refuse_with_result("num_samples", "check_precision", "full", "repairing")
        files = newest(dataset, "verify")
        report = verified(dataset, files)
        if not as_json:
            show.line(
                f"Check {files.check.number:04d} of {files.check.created}: {files.check.words}."
            )
        return _print_checked(dataset, report, details=details, as_json=as_json)
    if submit:
        wanted = CheckOptions(
            num_samples=0 if full else num_samples, check_precision=check_precision, full=full
        )
        return submit_check_of(dataset, jobs, "verify", wanted, as_json=as_json)
    with ShardBar("verify") as bar:
        report = verify(
            dataset,
            num_samples=num_samples,
            check_precision=check_precision,
            full=full,
            num_workers=num_workers,
            on_shard=bar,
        )
    if not repairing:
        return _print_checked(dataset, report, details=details, as_json=as_json)
    if not as_json:
        print_verify(dataset, report, details=details)
    mended = mend(dataset, report)
    if not as_json:
        _print_mended(mended)
    with RunProgress() as progress, stoppable() as stop:
        done = repair(dataset, report, Crew(num_workers, stop, on_change=progress))
    if as_json:
        show.as_json({"verified": report, "mended": mended, "repaired": done})
    else:
        _print_repair(dataset, done, mended)
    return done.exit_code


def _print_checked(dataset: Dataset, report: VerifyReport, *, details: bool, as_json: bool) -> int:
    if as_json:
        show.as_json(report)
        return report.exit_code
    print_verify(dataset, report, details=details)
    if report.damaged_shards:
        show.line(f"Mend it with: {mend_command(dataset)}")
    return report.exit_code


def _print_mended(report: MendReport) -> None:
    show.some(
        (f"Restored from the other copy of the plan: {name}" for name in report.plan_files), _NAMED
    )
    show.some((f"Rebuilt from its shard: {name}" for name in report.rebuilt), _NAMED)
    show.some((f"The damaged record is kept as {name}" for name in report.aside), _NAMED)
    show.some(
        (
            f"No manifest knew the shard's SHA-256; its bytes were taken as they are: {name}"
            for name in report.uncompared
        ),
        _NAMED,
    )
    show.some((f"NOT rebuilt: {name}: {reason}" for name, reason in report.not_rebuilt), _NAMED)


def _print_repair(dataset: Dataset, report: RepairReport, mended: MendReport) -> None:
    if report.repaired or report.new_shards:
        into = ", ".join(report.new_shards[:_NAMED])
        show.line(
            f"Repaired {show.count(report.repaired, 'sample')} from their sources"
            + (f" into {into}." if into else ".")
        )
    elif not (report.lost or report.waiting or report.other_damage or mended.did_something):
        show.line("Nothing to repair.")
    if report.superseded:
        show.line(
            f"Not read any more, and may be moved away: {', '.join(report.superseded[:_NAMED])}. "
            "Raw readers of shard-*.tar see both copies until you do."
        )
    show.some((f"Failed: {key}: {reason}" for key, reason in report.failed), _NAMED)
    if report.lost:
        show.line(
            f"LOST, {show.count(len(report.lost), 'sample')}: damaged, and without a source that "
            "could be converted again:"
        )
    show.some((f"  {shard}, {key}" for key, shard in report.lost), _NAMED)
    if report.waiting:
        show.line(
            f"Still damaged, {show.count(len(report.waiting), 'sample')}, since the conversion "
            f"was stopped. Go on with: ctrate-convert verify {dataset.out} --full --repair"
        )
    if report.other_damage:
        show.line(
            f"Not mended: {show.count(report.other_damage, 'finding')} that are not in a shard."
        )


def print_verify(dataset: Dataset, report: VerifyReport, *, details: bool = False) -> None:
    """Print what was looked at and what was found; with ``details`` each finding on its own."""
    show.line(
        f"{show.count(report.shards, 'shard')} with {show.count(report.samples, 'sample')}: "
        f"all present and sized as recorded, {report.shards_read_whole:,} read whole, "
        f"{report.samples_checked:,} samples checked byte by byte"
        if not (report.damage or report.unchecked)
        else f"Looked at {show.count(report.shards, 'shard')}, "
        f"{report.samples_checked:,} samples byte by byte"
    )
    show.line(
        f"Compared with their sources: {report.compared_with_source:,}; with the recorded "
        f"digests alone: {report.compared_with_digest_only:,}."
    )
    notes = report.notes if details else list(folded_notes(report.notes))
    for note in notes[:_NAMED]:
        show.wrapped(f"Note: {note}")
    if len(notes) > _NAMED:
        show.line(f"  … and {len(notes) - _NAMED:,} more notes (--json names all)")
    if report.precision:
        show.table(
            ("sample", ">max error", ">mean error", ">recorded max"),
            [
                (
                    p.key,
                    "source gone" if p.max_abs_error is None else f"{p.max_abs_error:.6g}",
                    "" if p.mean_abs_error is None else f"{p.mean_abs_error:.3g}",
                    f"{p.recorded_max_abs_error:.6g}",
                )
                for p in report.precision[:_NAMED]
            ],
        )
        if len(report.precision) > _NAMED:
            show.line(f"  … and {len(report.precision) - _NAMED:,} more samples (--json names all)")
    if report.unchecked:
        show.line(
            f"NOT CHECKED yet, {show.count(len(report.unchecked), 'shard')}: "
            f"{', '.join(report.unchecked[:_FEW])}{', …' if len(report.unchecked) > _FEW else ''}. "
            f"See: ctrate-convert status {dataset.out}"
        )
    if report.read_from:
        show.line(f"Read by jobs, begun {report.read_from} to {report.read_until}.")
    if not report.damage:
        if not report.unchecked or report.samples_checked:
            show.line("No damage found" + (" in the rest." if report.unchecked else "."))
        return
    show.line(f"DAMAGE, {show.count(len(report.damage), 'finding')}:")
    if details:
        show.some(map(damage_line, report.damage), most=len(report.damage))
    else:
        show.some(folded_damage(report.damage), _NAMED)
    show.line(
        "No source of a damaged shard can be deleted. Full list: --details or --json. "
        f"Where: {dataset.out}"
    )
