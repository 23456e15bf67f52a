"""Run conversions and deletions in worker processes on this machine."""
