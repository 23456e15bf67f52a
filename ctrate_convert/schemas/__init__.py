"""Everything the program writes to disk, as frozen, typed records with a schema number."""
