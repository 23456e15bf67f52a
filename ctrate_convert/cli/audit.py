"""The command ``ctrate-convert audit``."""

from __future__ import annotations

import secrets
from pathlib import Path

import click

from ctrate_convert.checking.audit.accounts import LIST_FILE, PAGE_FILE, SUMMARY_FILE, audit
from ctrate_convert.checking.audit.page import report_lines
from ctrate_convert.checking.units import audited
from ctrate_convert.cli import options, show
from ctrate_convert.cli.bar import ShardBar
from ctrate_convert.cli.on_cluster import Jobs, newest, refuse_with_result, submit_check_of
from ctrate_convert.errors import SettingsError
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.records.check import CheckOptions

_NAMED = 20


def _share(_context: click.Context, _parameter: click.Parameter, text: str) -> float:
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 < value <= 1:
        raise SettingsError(
            "--sample is the share of deleted sources that is read again",
            seen=text,
            expected="more than 0% and at most 100%, such as 1% or 0.01",
            next_command="ctrate-convert audit OUT --sample 1%",
        )
    return value


@click.command("audit")
@options.out_argument
@click.option(
    "--sample",
    "share",
    default="100%",
    show_default=True,
    callback=_share,
    help="The share of deleted sources whose members are read again, such as 1%; at least one is. "
    "With --against_sources also that of the sources to compare.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    help="Chooses the share: the same number, the same choice. Without it: a new one each time.",
)
@click.option(
    "--against_sources",
    is_flag=True,
    help="Also compare every source that is still there with its shard, voxel by voxel, as a "
    "deletion would; nothing is deleted.",
)
@options.on_the_cluster
@options.result_option
@options.num_workers_option
@options.json_option
def command(
    out: Path,
    share: float,
    seed: int | None,
    against_sources: bool,
    submit: bool,
    profile: Path | None,
    timeout_min: int | None,
    mem_gb: float | None,
    result: bool,
    num_workers: int,
    as_json: bool,
) -> int:
    """Account for every source ever deleted: which shard and member hold it, checked now.

    A page to sign and file, its summary as JSON and the list of all sources are kept under
    OUT/.run/audits; the page quotes who allowed which deletion. Exit code 3 where a source that is
    gone is not in a sound member, or one that is there differs from its shard.

    With --submit, jobs read the shards and sources; once they have, --result files the audit.

    \b
    Examples:
      ctrate-convert audit /data/shards
      ctrate-convert audit /data/shards --sample 1% --seed 7
      ctrate-convert audit /data/shards --against_sources
      ctrate-convert audit /data/shards --against_sources --submit
    """
    dataset = Dataset(out)
    jobs = Jobs(submit, profile, timeout_min, mem_gb)
    jobs.refuse_if_alone()
    any_seed = seed is None
    seed = secrets.randbelow(2**31) if seed is None else seed
    if result:
        refuse_with_result("share", "seed", "against_sources")
    if submit:
        wanted = CheckOptions(share=share, seed=seed, against_sources=against_sources)
        return submit_check_of(dataset, jobs, "audit", wanted, any_seed=any_seed, as_json=as_json)
    if result:
        done = audited(dataset, newest(dataset, "audit"))
    else:
        with ShardBar("audit") as bar:
            done = audit(
                dataset,
                share=share,
                seed=seed,
                num_workers=num_workers,
                against_sources=against_sources,
                on_shard=bar,
            )
    if as_json:
        files = {
            "page": done.folder / PAGE_FILE,
            "summary": done.folder / SUMMARY_FILE,
            "list": done.folder / LIST_FILE,
        }
        show.as_json({"summary": done.summary, "sources": done.sources, "files": files})
        return done.exit_code
    for text in report_lines(done.summary, done.sources, named=_NAMED):
        show.line(text)
    show.line()
    show.line(f"To sign and file: {done.folder / PAGE_FILE}")
    show.line(f"Every source:     {done.folder / LIST_FILE} (SHA-256 in the page)")
    return done.exit_code
