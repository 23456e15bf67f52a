"""Write the manual page: ``python -m tools.manual``; it is installed as share/man/man1."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ctrate_convert import __version__
from tools.commands import PROGRAM, Command, Option, Paragraph, about, exit_codes, groups

PAGE = Path(__file__).parents[1] / "docs" / "man" / f"{PROGRAM}.1"

EVERYWHERE = {
    "-h, --help": "Show the help of the command.",
    "--verbose": "Tell each step on standard error, and tracebacks of errors.",
}
ENVIRONMENT = {
    "LANGUAGE, LC_ALL, LC_MESSAGES, LANG": "The language of what a person decides by: questions, "
    "status and errors. There is Chinese (zh); all else is English. Records and --json stay "
    "English.",
    "NO_COLOR": "If it is set and not empty, tables and progress have no colours.",
    "COLUMNS": "The width of tables and of help, instead of the terminal's.",
    "COLORTERM": "If it is truecolor or 24bit, preview shows exact greys in the terminal.",
    f"{PROGRAM.upper().replace('-', '_')}_TRACEBACK": "If it is set and not empty, errors come "
    "with a traceback.",
    "SBATCH_PARTITION, SBATCH_ACCOUNT, SBATCH_QOS, SLURM_CLUSTERS": "What Slurm takes where "
    "neither the profile nor an option names it; submit minds its limits.",
}
FILES = {
    "OUT/shard-NNNNNN.tar": "A shard: a tar that any reader of WebDataset reads.",
    "OUT/manifest.json": "What OUT holds: shards, samples, digests. merge builds it anew.",
    "OUT/README.md": "The dataset card.",
    "OUT/.run/plans": "The plans, each twice.",
    "OUT/.run/records": "The record of each shard: what it holds, and from which source.",
    "OUT/.run/submissions": "What was submitted to Slurm.",
    "OUT/.run/logs": "What the jobs printed.",
    "OUT/.run/consents": "Who allowed which deletion.",
}

_SIGNS = {
    "\\": "\\e", "-": "\\-", '"': "\\(dq", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti",
}  # fmt: skip
"""What roff would otherwise take for a command, or print as a typographer's sign."""


def page() -> str:
    """Return the manual page as roff."""
    return "\n".join([*_lines(), ""])


def _lines() -> Iterator[str]:
    yield '.\\" Made by python -m tools.manual from the commands; do not edit.'
    yield f'.TH {_text(PROGRAM.upper())} 1 "" "{PROGRAM} {__version__}" "User Commands"'
    yield ".SH NAME"
    yield f"{_text(PROGRAM)} \\- CT\\-RATE volumes to WebDataset shards"
    yield ".SH SYNOPSIS"
    yield f".B {_text(PROGRAM)}"
    yield ".I COMMAND"
    yield "[\\fIOPTIONS\\fR] [\\fIARGUMENTS\\fR]"
    yield ".SH DESCRIPTION"
    told = about()
    yield from _paragraphs(one for one in told if not one.is_block)
    yield ".PP"
    yield _text(
        "A source volume is deleted only after a person allowed it, and after it was compared, "
        "voxel by voxel, with what its shard gives back. Every command can be given again: it "
        "goes on where it stopped."
    )
    yield ".PP"
    yield _text(
        "Options are accepted with underscores and with hyphens. --config FILE takes their names "
        "from a TOML file."
    )
    yield ".SH COMMANDS"
    commands = groups()
    for title, some in commands.items():
        yield f'.SS "{_text(title)}"'
        yield from _entries({one.name: one.line for one in some})
    yield ".SH OPTIONS"
    yield "Every command has these:"
    yield from _entries(EVERYWHERE)
    for some in commands.values():
        for command in some:
            yield from _command(command)
    yield '.SH "EXIT STATUS"'
    yield from _entries({str(code): meaning for code, meaning in exit_codes().items()})
    yield ".SH ENVIRONMENT"
    yield from _entries(ENVIRONMENT)
    yield ".SH FILES"
    yield from _entries(FILES)
    yield ".SH EXAMPLES"
    yield from _paragraphs(one for one in told if one.is_block)


def _command(command: Command) -> Iterator[str]:
    yield f'.SS "{_text(command.usage)}"'
    yield from _paragraphs(command.help)
    for option in command.options:
        yield from _option(option)


def _option(option: Option) -> Iterator[str]:
    yield ".TP"
    yield f".B {_text(option.words)}"
    facts = [f"Default: {option.default}."] if option.default else []
    facts += [f"Limits: {option.limits}."] if option.limits else []
    facts += ["Required."] if option.required else []
    yield _text(" ".join([option.text, *facts]))


def _entries(entries: Mapping[str, str]) -> Iterator[str]:
    for name, text in entries.items():
        yield ".TP"
        yield f".B {_text(name)}"
        yield _text(text)


def _paragraphs(texts: Iterable[Paragraph]) -> Iterator[str]:
    for one in texts:
        yield ".PP"
        if one.is_block:
            yield ".nf"
            yield from map(_text, one.text.splitlines())
            yield ".fi"
        else:
            yield _text(one.text)


def _text(text: str) -> str:
    """Return ``text`` so that roff prints it as it is."""
    signs = [one if one.isascii() else f"\\[u{ord(one):04X}]" for one in text]
    text = "".join(_SIGNS.get(one, one) for one in signs)
    return f"\\&{text}" if text.startswith(".") else text


def main() -> None:
    """Write the page."""
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page())
    print(f"{PAGE.name}: {page().count(chr(10))} lines")


if __name__ == "__main__":
    main()
