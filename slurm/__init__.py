"""Slurm tooling for developers and tests; no part of the installed package."""
