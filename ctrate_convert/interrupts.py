"""Ctrl+C and SIGTERM at any moment of a command end it with exit code 130, and without a traceback.

While the program is only loading, and once it is done, the process just ends. In between they
raise KeyboardInterrupt, so that what is under way is taken back; `stop_on_signals` takes over
where there is more to finish.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def end_at_once() -> None:
    """From here on, a signal ends the process: nothing has begun that would have to be undone."""
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` or `&` in a script wants it
            signal.signal(number, _end)


class Interruption:
    """Tells whether a signal has come: an import that it hits may make another error of it."""

    def __init__(self) -> None:
        self.came = False

    def __call__(self, _number: int, _frame: object) -> None:
        """The signal handler."""
        self.came = True
        raise KeyboardInterrupt


@contextlib.contextmanager
def raised(interruption: Interruption) -> Iterator[None]:
    """Within the block, a signal raises KeyboardInterrupt, and ``interruption`` knows of it."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, interruption)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore() -> None:
    """From here on, the exit code stands."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def forget() -> None:
    """Let a KeyboardInterrupt that was handled be over.

    CPython remembers one that went through `exec`, as those do that hit an import of dataclasses,
    and then dies of SIGINT whatever the exit code; the next `exec` makes it forget.
    """
    exec("")


def _end(_number: int, _frame: object) -> None:
    os.write(2, b"error: interrupted\n")
    os._exit(130)
