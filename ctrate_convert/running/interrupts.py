"""Ctrl+C and SIGTERM at any moment of a command end it with exit code 130, and without a traceback.

While the program is loading the process just ends, and once it is done its exit code stands. In
between they raise KeyboardInterrupt, so that what is under way is taken back; `stop_on_signals`
takes over where there is more to finish.
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
    """Let a signal end the process from here on: nothing has begun that must be undone."""
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` or `&` in a script wants it
            signal.signal(number, _end)


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """Within the block, a signal raises KeyboardInterrupt."""
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
    os.write(2, b"error: interrupted\n")
    os._exit(130)


def _raise(number: int, frame: FrameType | None) -> None:
    """An import may swallow the exception, or make another one of it: there it is as a kill is."""
    while frame is not None:
        if frame.f_code.co_filename == _IMPORT:
            _end(number, frame)
        frame = frame.f_back
    raise KeyboardInterrupt
