"""``python -m tests.one_process WORDS``: the command line in one process, its files' names known.

Workers run within it, and hidden names are numbered instead of random: so strace can be told which
file's calls it is to meddle with.
"""

from __future__ import annotations

import socket
from collections import Counter
from pathlib import Path
from unittest import mock

from ctrate_convert.cli import main
from ctrate_convert.running import run
from ctrate_convert.store import durable
from tests.promises.crash.scenario import orders_here


def hidden(name: str, number: int = 1) -> str:
    """The hidden name of the ``number``-th attempt at ``name``."""
    return f".{name}.{socket.gethostname()}.{number}.partial"


if __name__ == "__main__":
    numbers: Counter[Path] = Counter()

    def numbered(final: Path) -> Path:
        numbers[final] += 1
        return final.with_name(hidden(final.name, numbers[final]))

    with (
        mock.patch.object(durable, "_temporary_beside", numbered),
        mock.patch.object(run, "run_orders", orders_here),
    ):
        main()
