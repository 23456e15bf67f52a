"""Sources come back from their shards."""
