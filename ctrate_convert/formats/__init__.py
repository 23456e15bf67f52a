"""File formats: NPZ, npy, CSV tables, tar. No module here knows of plans or shards on disk."""
