"""Read the commands, settings and exit codes from the code, for the pages made of them."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass

import click

from ctrate_convert.cli import _group
from ctrate_convert.cli.groups import GROUPS
from ctrate_convert.errors import ExitCode

PROGRAM = "ctrate-convert"
EVERYWHERE = frozenset({"--help", "--verbose"})
"""The options that every command has, told once."""


@dataclass(frozen=True)
class Option:
    """An option as its command shows it; ``default`` and ``limits`` are empty if there are none."""

    words: str
    text: str
    default: str
    limits: str
    required: bool


@dataclass(frozen=True)
class Paragraph:
    """A piece of a help text; a block of examples keeps its lines."""

    text: str
    is_block: bool


@dataclass(frozen=True)
class Command:
    """A command with its line of usage, its help and its options."""

    name: str
    line: str
    usage: str
    help: tuple[Paragraph, ...]
    options: tuple[Option, ...]


def groups() -> dict[str, list[Command]]:
    """Return the commands by group, in the order in which ``--help`` shows them."""
    return {title: [_command(*one) for one in lines.items()] for title, lines in GROUPS.items()}


def about() -> tuple[Paragraph, ...]:
    """Return the help text of the program itself."""
    return paragraphs(_group.help)


def paragraphs(text: str | None) -> tuple[Paragraph, ...]:
    """Return the paragraphs of a help text; click keeps the lines of those marked by ``\\b``."""
    return tuple(
        Paragraph(block.removeprefix("\b\n"), is_block=True)
        if block.startswith("\b")
        else Paragraph(" ".join(block.split()), is_block=False)
        for block in re.split(r"\n\s*\n", inspect.cleandoc(text or ""))
    )


def exit_codes() -> dict[int, str]:
    """Return what each exit code means."""
    meanings = attribute_texts(ExitCode)
    return {int(code): meanings[code.name] for code in ExitCode}


def attribute_texts(kind: type) -> dict[str, str]:
    """Return the strings that stand below the attributes of a class."""
    (body,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(body, ast.ClassDef)  # noqa: S101 - the source of a class is one
    return dict(_attribute_texts(body))


def _attribute_texts(body: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for attribute, text in zip(body.body, body.body[1:], strict=False):
        match attribute, text:
            case (
                ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(words))),
            ):
                yield name, " ".join(words.split())


def _command(name: str, line: str) -> Command:
    above = click.Context(_group, info_name=PROGRAM, **_group.context_settings)
    found = _group.get_command(above, name)
    if found is None:
        raise LookupError(name)
    context = click.Context(found, info_name=name, parent=above)
    return Command(
        name,
        line,
        f"{PROGRAM} {name} {' '.join(found.collect_usage_pieces(context))}",
        paragraphs(found.help),
        tuple(_options(found, context)),
    )


def _options(command: click.Command, context: click.Context) -> Iterator[Option]:
    for one in command.get_params(context):
        if not isinstance(one, click.Option) or EVERYWHERE & set(one.opts):
            continue
        record = one.get_help_record(context)
        if record is not None:
            more = one.get_help_extra(context)
            yield Option(
                record[0],
                one.help or "",
                more.get("default", ""),
                more.get("range", ""),
                one.required,
            )
