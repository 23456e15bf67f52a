"""Imported by the fork server as it starts: it and all that it forks end with the command.

Anywhere else, importing this does nothing.
"""

from __future__ import annotations

import os
import sys

from ctrate_convert.running.parent import die_with_parent

if "multiprocessing.forkserver" in sys.orig_argv[-1]:
    # A command that has ended by now asks for no worker: then the fork server ends by itself.
    die_with_parent(os.getppid())
    _forkserver = os.getpid()
    os.register_at_fork(after_in_child=lambda: die_with_parent(_forkserver))
