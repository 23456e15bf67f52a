"""``python -m ctrate_convert`` is the ``ctrate-convert`` command."""

from ctrate_convert.cli import main

if __name__ == "__main__":
    main()
