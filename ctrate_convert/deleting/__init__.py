"""Delete a source file, after comparing it with its shard and under a person's consent."""
