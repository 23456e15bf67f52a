"""Help of commands with many options: in sections, by what the options are about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click

PLAN_SECTIONS: Mapping[str, Sequence[str]] = {
    "Input": (
        "config", "data_folder", "source", "reports_file", "meta_file", "labels_file",
        "exclude_file", "keep_file", "array_key", "files_from",
    ),
    "Views": ("view", "from", "assume_axes"),
    "Output": ("output_dir", "layout", "encoding", "chunk_shape", "dtype", "step", "max_error"),
    "Shards and tasks": (
        "samples_per_shard", "shard_size_gb", "shards_per_task", "shuffle_seed", "test_mode",
        "limit",
    ),
    "Sources": (
        "delete_source_files", "keep_source_files", "discard_members", "trash", "yes",
    ),
}  # fmt: skip
"""The options of `plan` and `convert` by section; all others come last."""


class PlanCommand(click.Command):
    """A command whose options are those of a plan, and some more."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options in the sections' order."""
        records = {
            option.name: record
            for option in self.get_params(ctx)
            if (record := option.get_help_record(ctx)) is not None
        }
        for title, names in PLAN_SECTIONS.items():
            rows = [records.pop(name) for name in names if name in records]
            if rows:  # `convert` has none about views
                with formatter.section(title):
                    formatter.write_dl(rows)
        with formatter.section("Other"):
            formatter.write_dl(list(records.values()))
