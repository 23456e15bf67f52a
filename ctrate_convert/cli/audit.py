"""``ctrate-convert audit``."""

from __future__ import annotations

from pathlib import Path

import click

from ctrate_convert.cli import options, show
from ctrate_convert.errors import ExitCode, SettingsError
from ctrate_convert.operations.audit import audit
from ctrate_convert.paths import Dataset

_NAMED = 20


def _share(_context: click.Context, _parameter: click.Parameter, text: str) -> float:
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise SettingsError("--sample is a share", seen=text, expected="1%, 0.01, or 100%")
    return value


@click.command("audit")
@options.out_argument
@click.option(
    "--sample",
    "share",
    default="100%",
    show_default=True,
    callback=_share,
    help="The share of deleted sources whose members are read again, such as 1%.",
)
@options.num_workers_option
@options.json_option
def command(out: Path, share: float, num_workers: int, as_json: bool) -> int:
    """Account for every source ever deleted: which shard and member hold it, checked now.

    \b
    Examples:
      ctrate-convert audit /data/shards
      ctrate-convert audit /data/shards --sample 1%
    """
    summary, sources, path = audit(Dataset(out), share=share, num_workers=num_workers)
    code = ExitCode.DAMAGE if summary.findings else ExitCode.DONE
    if as_json:
        show.as_json({"summary": summary, "sources": sources, "file": path})
        return code
    show.table(
        ("audit", ""),
        [
            ("time", summary.time),
            ("plans", ", ".join(plan[:12] for plan in summary.plans)),
            ("sources deleted", f"{summary.deleted_sources:,}"),
            ("their size", show.size(summary.deleted_bytes)),
            ("of these moved to a trash", f"{summary.in_the_trash:,}"),
            ("in a recorded shard", f"{summary.in_a_recorded_shard:,}"),
            ("read again and compared now", f"{summary.checked_now:,}"),
            ("findings", f"{summary.findings:,}"),
            ("verdict", summary.verdict),
        ],
    )
    bad = [source for source in sources if source.finding]
    for source in bad[:_NAMED]:
        show.line(f"  {source.key} ({source.source}): {source.finding}")
    if len(bad) > _NAMED:
        show.line(f"  … and {len(bad) - _NAMED:,} more (--json names all)")
    show.line(f"Filed, with every deleted source: {path}")
    return code
