"""The command line: parse, call, print; no logic is in it. Each command has a file of its own."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

import click

from ctrate_convert import __version__
from ctrate_convert.cli import terminal
from ctrate_convert.cli.groups import COMMANDS, GROUPS, nearest
from ctrate_convert.cli.language import error_text
from ctrate_convert.errors import (
    CtrateError,
    ExitCode,
    Interrupted,
    SettingsError,
    environment_problem,
)
from ctrate_convert.running import interrupts
from ctrate_convert.store.privacy import forbid


class _Commands(click.Group):
    """The commands by name; one is imported only when it is called, for slow login nodes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"ctrate_convert.cli.{cmd_name}").command
        # The module's command is the same object each time, so add the option only once.
        if not any(one.name == "verbose" for one in command.params):
            command.params.append(_verbose_option())
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command; if there is none, say which one was probably meant."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            meant = nearest(args[0])
            hint = f" Did you mean {meant!r}?" if meant else ""
            ctx.fail(f"no such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the groups; no command is imported for that."""
        for title, lines in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(9), line) for name, line in lines.items()])


def _verbose_option() -> click.Option:
    return click.Option(
        ["--verbose"],
        is_flag=True,
        expose_value=False,
        callback=lambda context, option, wanted: _be_verbose() if wanted else None,
        help="Tell each step on standard error, and tracebacks of errors.",
    )


def _be_verbose() -> None:
    """Send the log of every step to standard error, as one safe line each."""
    handler = _Notes()
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s", "%H:%M:%S"))
    log = logging.getLogger("ctrate_convert")
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)


class _Notes(logging.Handler):
    """A log handler that prints through `terminal`, so that no log can command a terminal."""

    def emit(self, record: logging.LogRecord) -> None:
        terminal.note(self.format(record))


@click.group(
    cls=_Commands,
    context_settings={
        "help_option_names": ["-h", "--help"],
        # Every option is accepted with underscores, as the original has them, and with hyphens.
        "token_normalize_func": lambda name: name.replace("-", "_"),
        "max_content_width": 100,
    },
)
@click.version_option(__version__, message="%(version)s")
def _group() -> None:
    """CT-RATE volumes to WebDataset shards, without being able to lose a scan.

    \b
    Try it:    ctrate-convert demo
    One go:    ctrate-convert init; ctrate-convert convert --config train.toml
    By steps:  ctrate-convert plan … ; run OUT ; verify OUT ; delete OUT
    Slurm:     ctrate-convert plan … ; submit OUT ; status OUT ; relaunch OUT
    """


def run_words(words: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; exceptions come through."""
    result = _group.main(words, prog_name="ctrate-convert", standalone_mode=False)
    return result if isinstance(result, int) else ExitCode.DONE


def main() -> NoReturn:
    """Run the command line and exit with an `ExitCode`."""
    terminal.escape_what_cannot_be_encoded()
    forbid()  # group and others never write what we make, whatever the umask
    try:
        with interrupts.raised():
            code = run_words()
    except CtrateError as error:
        code = _say(error)
        _say_where()
    except click.exceptions.Exit as exit_:
        code = exit_.exit_code
    except click.ClickException as error:
        code = _say_usage(error)
    except (KeyboardInterrupt, click.Abort):
        code = _say(Interrupted("interrupted; the same command goes on where this one stopped"))
    except BrokenPipeError:
        # The reader of our output is gone, as with `| head`. Python would fail once more when it
        # flushes standard output at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = ExitCode.ENVIRONMENT
    except OSError as error:
        code = _say(environment_problem(error, "the system refused"))
        _say_where()
    except Exception as error:  # noqa: BLE001 - the last boundary: say it in one line
        _say_where()
        code = _say(
            CtrateError(
                f"unexpected {type(error).__name__}: {error}",
                next_command="give the same command with --verbose to see where, and report it",
            )
        )
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
    sys.exit(int(code))


def _say(error: CtrateError) -> ExitCode:
    terminal.note(error_text(error))
    _say_as_json(error)
    return error.exit_code


def _say_as_json(error: CtrateError) -> None:
    """Print the error to standard output too, for a program that asked for ``--json``."""
    if "--json" in sys.argv[1:]:
        from ctrate_convert.cli import show

        with contextlib.suppress(BrokenPipeError):
            show.error_as_json(error)


def _say_usage(error: click.ClickException) -> ExitCode:
    text = io.StringIO()
    error.show(text)
    terminal.note(text.getvalue().rstrip("\n"))
    _say_as_json(SettingsError(error.format_message()))
    return ExitCode.USAGE


def _say_where() -> None:
    """Print the traceback of the exception being handled, for those who ask for it."""
    verbose = logging.getLogger("ctrate_convert").isEnabledFor(logging.DEBUG)
    if verbose or os.environ.get("CTRATE_CONVERT_TRACEBACK"):
        terminal.note(traceback.format_exc().rstrip("\n"))
