"""The typed records that are stored as JSON: frozen, each file with a schema number."""
