"""The sources of volumes: one class for each kind of file."""
