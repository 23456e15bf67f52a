"""What lets a source go, and everything that keeps it."""
