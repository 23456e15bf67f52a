"""Fixtures of the tests of deletion."""

from tests.deleting.one_source import scene

__all__ = ["scene"]
