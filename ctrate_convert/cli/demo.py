"""The command ``ctrate-convert demo``: every step on a small synthetic CT-RATE."""

from __future__ import annotations

import gzip
import shlex
import shutil
import sys
from pathlib import Path

import click

from ctrate_convert.cli import show
from ctrate_convert.errors import CtrateError, ExitCode, RefusedError
from ctrate_convert.synthetic import (
    NIFTI_KINDS,
    NPZ_KINDS,
    SyntheticCtRate,
    write_synthetic_ctrate,
)

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
    """Write a small synthetic CT-RATE as NPZ and as NIfTI, convert it, and delete what shards hold.

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
    _npz(folder / "ct-rate", folder / "shards")
    _nifti(folder / "ct-rate-nifti", folder / "shards-nifti", folder / "again")
    show.line(
        f"\nThe shards are in {folder / 'shards'} and {folder / 'shards-nifti'}; read them with "
        "webdataset, or with tar and numpy alone."
    )
    program = Path(sys.argv[0])
    if shutil.which("ctrate-convert") is None and (program.parent / "activate").is_file():
        show.line(f"To give such commands yourself: . {program.parent / 'activate'}")
    return ExitCode.DONE


def _npz(folder: Path, out: Path) -> None:
    """Convert NPZ, of which some are resampled and some broken, and delete what the shards hold."""
    made = write_synthetic_ctrate(
        folder,
        samples=24,
        kinds=(*NPZ_KINDS, "resampled", "bare"),
        faults=tuple(_FAULTS),  # type: ignore[arg-type]
    )
    show.line(
        f"Wrote a synthetic CT-RATE of {len(made.keys)} NPZ to {folder}: "
        f"{', '.join(_FAULTS.values())}, and some on a resampled grid."
    )
    _plan(made, out, "--exclude_file", str(made.exclude_file), "--samples_per_shard", "5")
    _run(["run", str(out), "--num_workers", "2"], ExitCode.SAMPLES_FAILED)
    _run(["verify", str(out), "--full", "--check_precision"])
    _run(["delete", str(out), "--dry_run"])
    _run(["delete", str(out), "--yes"])
    _run(["history", str(out)])
    _run(["merge", str(out)])


def _nifti(folder: Path, out: Path, again: Path) -> None:
    """Convert NIfTI, delete them, and export them again."""
    made = write_synthetic_ctrate(folder, samples=4, kinds=NIFTI_KINDS, shape=(128, 128, 64))
    before = {path: _content(path) for path in made.sources.values()}
    show.line(f"\nWrote {len(before)} volumes as NIfTI to {folder}.")
    _plan(made, out, "--encoding", "b2nd", "--probe", "0")
    _run(["run", str(out)])
    _run(["delete", str(out), "--yes"])
    _run(["export", str(out), str(again), "--all"])
    same = [again / path.relative_to(made.data_folder) for path in before]
    if [_content(path) for path in same] != list(before.values()):
        raise CtrateError("an exported source is not what it was", where=again)
    show.line("Each of them, uncompressed, is the file that was deleted, bit for bit.")
    _run(["preview", str(out), "-n", "4", "--to", str(out.with_name("preview.html"))])


def _content(path: Path) -> bytes:
    data = path.read_bytes()
    return gzip.decompress(data) if path.suffix == ".gz" else data


def _plan(made: SyntheticCtRate, out: Path, *more: str) -> None:
    tables = {
        "--data_folder": made.data_folder,
        "--reports_file": made.reports_file,
        "--meta_file": made.meta_file,
        "--labels_file": made.labels_file,
    }
    named = [str(word) for pair in tables.items() for word in pair]
    _run(["plan", *named, "--output_dir", str(out), *more])


def _run(words: list[str], expected: ExitCode = ExitCode.DONE) -> None:
    from ctrate_convert.cli import run_words

    show.line(f"\n$ ctrate-convert {shlex.join(words)}")
    code = run_words(words)
    if code != expected:
        raise CtrateError(f"the demo's {words[0]} ended otherwise", seen=code, expected=expected)
