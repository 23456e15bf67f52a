"""The callable that submitit pickles: it names the work, which only the node imports.

The login node submits without loading what converts, compares and deletes.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Literal

from submitit.core.utils import DelayedSubmission


@dataclass(frozen=True)
class Payload:
    """A call of ``work`` in one of this folder's modules; its arguments are plain values."""

    module: Literal["element", "check_element", "finalise"]

    def __call__(self, *arguments: Any) -> dict[str, Any]:
        """Do the work on the node, and return what submitit keeps as the result."""
        module = importlib.import_module(f"{__package__}.{self.module}")
        done: dict[str, Any] = module.work(*arguments)
        return done

    def checkpoint(self, *arguments: Any) -> DelayedSubmission:
        """Return this call for the next run; the files tell that run what is left."""
        return DelayedSubmission(self, *arguments)
