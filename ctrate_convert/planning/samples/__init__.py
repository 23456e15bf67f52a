"""From volumes and tables to the lines of ``samples.jsonl``: in chunks, in worker processes."""
