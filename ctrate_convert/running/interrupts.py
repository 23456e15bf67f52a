"""End a command at Ctrl+C or SIGTERM with exit code 130 and no traceback, at any moment.

While the program is loading, the process just ends. Once the program is done, its exit code stands.
In between, the signals raise KeyboardInterrupt, so that work under way is undone; `stop_on_signals`
takes over if there is more to finish.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_IMPORT = "<frozen importlib._bootstrap>"


def end_at_once() -> None:
    """Make signals end the process from here on: nothing has begun that would have to be undone."""
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # set by `nohup`, or `&` in a script
            signal.signal(number, _end)


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """Make signals raise KeyboardInterrupt within the block."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, _raise)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore() -> None:
    """Ignore signals from here on, so that the exit code stands."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _end(_number: int, _frame: FrameType | None) -> None:
    # Not print or sys.exit: the signal may have come in the middle of either, or of an import.
    os.write(2, b"error: interrupted\n")
    os._exit(130)


def _raise(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt; during an import end the process instead, as a kill would.

    An import may swallow the exception, or turn it into another one.
    """
    # An import further out counts too: the code at hand runs inside it, and so would the exception.
    while frame is not None:
        if frame.f_code.co_filename == _IMPORT:
            _end(number, frame)
        frame = frame.f_back
    raise KeyboardInterrupt
