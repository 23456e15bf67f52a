"""Fixtures of the tests of deletion."""

from tests.unit.deleting.one_source import scene
from tests.unit.deleting.two_volumes import ct

__all__ = ["ct", "scene"]
