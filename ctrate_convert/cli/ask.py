"""Ask before the first deletion: ``DELETE``, ``keep``, or nothing is done at all."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import click

from ctrate_convert.cli import show
from ctrate_convert.cli.language import translated, word
from ctrate_convert.cli.wrap import wrap
from ctrate_convert.errors import Interrupted, RefusedError
from ctrate_convert.planning.removable import why_some_stay
from ctrate_convert.store.layout import Dataset
from ctrate_convert.store.records.consent import Consent

if TYPE_CHECKING:  # proposal.py imports numpy, and `status` only prints consents
    from ctrate_convert.deleting.proposal import Proposal

DELETE_WORD = "DELETE"
KEEP_WORD = "keep"

_EXACT = ("Nothing is rounded: every voxel is kept exactly",)
_NAMED = 10

_CONVERTS = ("DELETE converts and deletes;", "keep converts and deletes nothing;")
_ANSWERS = {
    "convert": _CONVERTS,
    "run": _CONVERTS,
    "submit": ("DELETE submits tasks that delete;", "keep submits tasks that delete nothing;"),
    "delete": ("DELETE deletes;", "keep deletes nothing;"),
}


def refuse_without_terminal(command: str, *, yes: bool) -> None:
    """Refuse, before anything is done, to delete if nobody can be asked.

    Raises:
        RefusedError: there is no terminal, and ``--yes`` was not given.
    """
    if yes or sys.stdin.isatty():
        return
    keep = (
        "with --dry_run to look only"
        if command == "delete"
        else "with --keep_source_files to delete nothing"
    )
    raise RefusedError(
        f"`{command}` asks before it deletes, and there is no terminal to ask at",
        expected="a terminal, or --yes",
        next_command=f"the same command with --yes, or {keep}",
    )


def ask(dataset: Dataset, proposal: Proposal, command: str, *, yes: bool) -> Consent | None:
    """Ask the person, and record the consent; return None for ``keep``.

    Raises:
        RefusedError: any other answer; nothing is to be done.
    """
    how = answer(proposal, command, yes=yes)
    return proposal.accept(dataset, how) if how else None


def answer(proposal: Proposal, command: str, *, yes: bool) -> str | None:
    """Ask the person; return the words by which deletion was allowed, or None for ``keep``.

    Raises:
        RefusedError: any other answer; nothing is to be done.
        Interrupted: Ctrl+C, Ctrl+D or SIGTERM in place of an answer.
    """
    if yes:
        for sentence in _what_stays(proposal):
            show.note(f"WARNING: {sentence}.")
        return f"{command} --yes"
    refuse_without_terminal(command, yes=yes)
    for text in question(proposal, command):
        show.note(text)
    try:
        typed = show.ask(word("Your answer")).strip()
    except click.Abort as error:
        raise Interrupted("interrupted at the question; nothing was done") from error
    # DELETE must be typed exactly; keep does no harm, so capitals do not matter.
    if typed == DELETE_WORD:
        return f"{command}, {DELETE_WORD} typed"
    if typed.lower() == KEEP_WORD:
        show.note(translated("Nothing will be deleted."))
        return None
    raise RefusedError(
        "nothing was done",
        seen=f"the answer {typed!r}" if typed else "an empty answer",
        expected="DELETE or keep",
        next_command="the same command",
    )


def question(proposal: Proposal, command: str) -> list[str]:
    """Return the facts that a person decides by, and the three answers, 80 columns wide."""
    answers = (*_ANSWERS[command], "anything else does nothing.")
    rounding = (translated(sentence) + word(".") for sentence in proposal.rounding or _EXACT)
    return [
        *_what_goes(proposal),
        *_items(rounding),
        *_items(_what_is_lost(proposal)),
        *_items(f"{sentence}." for sentence in _what_stays(proposal)),
        *_items(f"Second copy: {folder} must hold the shard too." for folder in proposal.copies),
        *(f"  {translated(answer)}" for answer in answers),
    ]


def _what_goes(proposal: Proposal) -> list[str]:
    files = show.count(proposal.files, "source file")
    size = show.size(proposal.size_bytes)
    fate = f"moved to the trash {proposal.trash}" if proposal.trash else "deleted for good"
    folders = sorted({plan.settings.data_folder for plan in proposal.plans})
    return [
        *wrap(translated(f"WARNING: up to {files} ({size}) will be {fate}, in")),
        *(f"  {folder}" for folder in folders[:_NAMED]),
        *(["  …"] if len(folders) > _NAMED else []),
        *wrap(
            translated(
                "A source goes only after it was read again and compared, voxel by voxel, with "
                "what its shard gives back. Failed and excluded samples keep theirs."
            )
        ),
    ]


def _what_is_lost(proposal: Proposal) -> Iterator[str]:
    if proposal.discard_members:
        names = ", ".join(proposal.discard_members)
        yield f"Lost with a source that holds it (--discard_members): {names}."


def _what_stays(proposal: Proposal) -> Iterator[str]:
    stay = why_some_stay(proposal.folders)
    if stay:
        yield stay[0].upper() + stay[1:]


def _items(sentences: Iterable[str]) -> Iterator[str]:
    for sentence in sentences:
        yield from wrap(translated(sentence), first="  - ", rest="    ")


def print_consents(consents: Sequence[Consent], *, newest: int | None = None) -> None:
    """Quote the given consents, oldest first; with ``newest``, only so many, the last ones."""
    shown = consents if newest is None else consents[-newest:]
    for consent in shown:
        show.line(f"Consent {consent.name}: {consent.words()}.")
        for sentence in consent.rounding if newest is None else ():
            show.line(f"  {sentence}.")
    if len(shown) < len(consents):
        show.line(f"  … and {len(consents) - len(shown):,} earlier; `history` quotes all.")
