"""The commands in groups, one line each, as ``--help`` and the manual page show them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

GROUPS: Mapping[str, Mapping[str, str]] = {
    "Start": {
        "demo": "Show every step on a small data set made up for it",
        "init": "Write a settings file to start from",
        "help": "Show help on a command; completion for the shell",
    },
    "Convert": {
        "plan": "Say how many, how big, how long, does it fit; freeze it",
        "run": "Convert what is planned, here",
        "convert": "Plan and convert in one go",
    },
    "Look and check": {
        "report": "Say what there is: numbers, sizes, speed, reasons",
        "preview": "Look at volumes: pictures of shards and sources",
        "verify": "Check shards against records and sources; repair",
        "audit": "Account for every source ever deleted",
        "recipes": "List what readers can resample volumes to; show one",
    },
    "Free the disk": {
        "delete": "Delete sources that equal what their shards hold",
        "restore": "Bring sources back from the trash",
        "export": "Write sources again from their shards",
    },
    "Slurm": {
        "submit": "Submit pending tasks as array jobs",
        "status": "Say the state of every task, and on what evidence",
        "relaunch": "Submit again what failed, with what it lacked",
        "cancel": "Cancel live jobs; what is published stays",
        "logs": "Show how a task ended: the traceback first",
        "history": "List all submissions, local runs, consents",
    },
    "Rarely": {
        "doctor": "Check this machine, the disks and the cluster",
        "merge": "Build the manifest anew from the records",
        "check": "The original's check, by its old name",
    },
}
"""A line has at most 60 characters."""

COMMANDS: Mapping[str, str] = {name: line for one in GROUPS.values() for name, line in one.items()}
"""The line of each command, in the order of the groups."""


def nearest(name: str) -> str | None:
    """Return the command that ``name`` was probably meant to be."""
    found = difflib.get_close_matches(name.lower(), COMMANDS, n=1, cutoff=0.6)
    return found[0] if found else None
