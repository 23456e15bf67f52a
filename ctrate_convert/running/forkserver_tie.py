"""Tie the fork server, which imports this module as it starts, to the command's life.

The fork server and all processes that it forks then end with the command. Anywhere else, importing
this module does nothing.
"""

from __future__ import annotations

import os
import sys

from ctrate_convert.running.parent import die_with_parent

_parent_to_be = 0


def _note_parent() -> None:
    """Note which process is about to fork: not always the fork server, since a worker may, too."""
    global _parent_to_be
    _parent_to_be = os.getpid()


# multiprocessing starts the fork server as ``python -c '... multiprocessing.forkserver ...'``.
if "multiprocessing.forkserver" in sys.orig_argv[-1]:
    # If the command has ended by now, the fork server ends by itself: nobody asks for a worker.
    die_with_parent(os.getppid())
    # The kernel clears the death signal in a forked child, so each child asks for it again.
    os.register_at_fork(before=_note_parent, after_in_child=lambda: die_with_parent(_parent_to_be))
