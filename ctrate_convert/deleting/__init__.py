"""Deleting: consent, compare the source with its shard, let the source go, keep the journal."""
