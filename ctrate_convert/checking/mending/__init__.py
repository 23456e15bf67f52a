"""Rebuild damaged records and plans; convert the samples of damaged shards once more."""
