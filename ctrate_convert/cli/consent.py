"""The question before the first deletion: ``DELETE``, ``keep``, or nothing is done at all."""

from __future__ import annotations

import sys

from ctrate_convert.cli import show
from ctrate_convert.deleting.proposal import Proposal
from ctrate_convert.errors import RefusedError
from ctrate_convert.paths import Dataset
from ctrate_convert.schemas.consent import Consent

DELETE_WORD = "DELETE"
KEEP_WORD = "keep"

_VERBS = {
    "convert": ("converts and deletes", "converts and deletes nothing"),
    "run": ("converts and deletes", "converts and deletes nothing"),
    "submit": ("submits tasks that delete", "submits tasks that delete nothing"),
    "delete": ("deletes", "deletes nothing"),
}


def refuse_without_terminal(command: str, *, yes: bool) -> None:
    """Refuse, before anything is done, to delete where nobody can be asked.

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
    """Ask, and record the consent; None for ``keep``.

    Raises:
        RefusedError: any other answer; nothing is to be done.
    """
    how = answer(proposal, command, yes=yes)
    return proposal.accept(dataset, how) if how else None


def answer(proposal: Proposal, command: str, *, yes: bool) -> str | None:
    """Ask; return by which words deletion was allowed, None for ``keep``.

    Raises:
        RefusedError: any other answer; nothing is to be done.
    """
    if yes:
        return f"{command} --yes"
    refuse_without_terminal(command, yes=yes)
    for text in question(proposal):
        show.note(text)
    does, keeps = _VERBS[command]
    typed = show.ask(
        f"{DELETE_WORD} {does}; {KEEP_WORD} {keeps}; anything else does nothing"
    ).strip()
    if typed == DELETE_WORD:
        return f"{command}, {DELETE_WORD} typed"
    if typed.lower() == KEEP_WORD:
        show.note("Nothing will be deleted.")
        return None
    raise RefusedError(
        "nothing was done",
        seen=f"the answer {typed!r}",
        expected=f"{DELETE_WORD} or {KEEP_WORD}",
        next_command="the same command",
    )


def question(proposal: Proposal) -> list[str]:
    """Return the facts that a person decides by."""
    files = show.count(proposal.files, "source file")
    size = show.size(proposal.size_bytes)
    fate = f"moved to {proposal.trash}" if proposal.trash else "deleted for good"
    folders = sorted({plan.settings.data_folder for plan in proposal.plans})
    lines = [
        f"WARNING: up to {files} ({size}) will be {fate}, in {', '.join(folders)}.",
        "  Each goes only after it was read again and found equal, voxel by voxel, to what its "
        "shard gives back. Failed and excluded samples keep theirs.",
    ]
    lines += [f"  Rounding: {sentence}." for sentence in proposal.rounding] or [
        "  Rounding: none; every voxel is kept exactly."
    ]
    if proposal.discard_members:
        lines.append(
            "  Discarded for good, where a source holds it: "
            f"{', '.join(proposal.discard_members)} (--discard_members)."
        )
    lines += [f"  Only where {folder} holds the shard too." for folder in proposal.copies]
    return lines
