"""The typed records that are written to disk as JSON: frozen, each with a schema number."""
