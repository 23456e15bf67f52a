"""CT-RATE chest CT volumes to WebDataset shards, without being able to lose a scan."""

__version__ = "0.1.0"
