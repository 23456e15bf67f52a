"""Give sources back: write them again from what their shards hold."""
