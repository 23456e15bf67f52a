"""``python -m ctrate_convert`` is the ``ctrate-convert`` command."""

from __future__ import annotations

from typing import NoReturn

from ctrate_convert.running import interrupts


def main() -> NoReturn:
    """Run the command line and exit with an `ExitCode`."""
    interrupts.end_at_once()  # before the imports, which take most of the first second
    from ctrate_convert.cli import main as run_command_line

    try:
        run_command_line()
    finally:
        interrupts.ignore()


if __name__ == "__main__":
    main()
