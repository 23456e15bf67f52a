"""Delete source files, under a person's consent and after comparing each with its shard."""
