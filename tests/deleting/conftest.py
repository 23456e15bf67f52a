"""Fixtures of the tests of deletion."""

from tests.deleting.one_source import scene
from tests.deleting.two_volumes import ct

__all__ = ["ct", "scene"]
