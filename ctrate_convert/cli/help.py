"""The command ``ctrate-convert help``."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from ctrate_convert.cli import show
from ctrate_convert.errors import ExitCode, SettingsError


@click.command("help")
@click.argument("name", metavar="[COMMAND]", required=False)
@click.option(
    "--completion",
    type=click.Choice(("bash", "zsh", "fish")),
    help="Print what completes commands and options in this shell.",
)
@click.pass_context
def command(ctx: click.Context, name: str | None, completion: str | None) -> int:
    """Show the help of COMMAND, or of all commands.

    \b
    Examples:
      ctrate-convert help plan
      ctrate-convert help --completion bash >> ~/.bashrc
    """
    above = ctx.parent or ctx
    group = above.command
    if completion is not None:
        found = get_completion_class(completion)
        if found is None:
            raise SettingsError(f"no completion for {completion}")
        show.line(found(group, {}, "ctrate-convert", "_CTRATE_CONVERT_COMPLETE").source().rstrip())
        return ExitCode.DONE
    if name is None:
        show.line(above.get_help())
        return ExitCode.DONE
    if not isinstance(group, click.Group):
        raise SettingsError("no commands here")
    words, wanted, _ = group.resolve_command(above, [name])
    if wanted is not None:
        context = click.Context(wanted, info_name=words, parent=above)
        show.line(wanted.get_help(context))
    return ExitCode.DONE
