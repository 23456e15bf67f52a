"""File formats: npy, CSV tables, tar and array encodings, without plans or shards on disk."""
