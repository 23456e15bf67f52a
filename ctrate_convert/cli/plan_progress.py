"""Show the progress of planning: volumes found, headers read, volumes probed; and the time left."""

from __future__ import annotations

from ctrate_convert.cli.bar import Bar


class PlanProgress(Bar):
    """The bar of planning."""

    def __init__(self) -> None:
        super().__init__("plan", "looking for volumes", transient=True)

    def __call__(self, done: int, total: int) -> None:
        """Show how many volumes were found, while ``total`` is 0, or how many headers were read."""
        facts = f"{done:,}/{total:,} headers read" if total else f"{done:,} volumes found"
        self.update(done, total, facts)

    def probed(self, done: int, total: int) -> None:
        """Show how many volumes were converted for the probe."""
        self.update(done, total, f"{done:,}/{total:,} volumes probed")
