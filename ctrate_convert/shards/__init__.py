"""Convert samples into one shard, read the shard back, publish it and write its record."""
