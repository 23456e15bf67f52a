"""``python -m tests.one_process WORDS``: the command line in one process, its files' names known.

Workers run within it, and the random part of hidden names counts 1, 2, 3: so strace can be told
which file's calls it is to meddle with.
"""

from __future__ import annotations

import itertools
import secrets
import socket
from unittest import mock

from ctrate_convert.cli import main
from ctrate_convert.operations import run
from tests.crash.scenario import orders_here

HOST = "onehost"

if __name__ == "__main__":
    numbers = itertools.count(1)
    with (
        mock.patch.object(secrets, "token_hex", lambda size: f"{next(numbers):04d}"),
        mock.patch.object(socket, "gethostname", lambda: HOST),
        mock.patch.object(run, "run_orders", orders_here),
    ):
        main()
