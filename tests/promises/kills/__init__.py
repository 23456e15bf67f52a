"""Killed at any moment, the same command finishes."""
