"""Every call that can fail, made to fail: ``python -m tests.promises.faults -h``."""
