"""What developers ask of the source: who imports whom, and how large it is."""
