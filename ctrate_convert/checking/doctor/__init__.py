"""Try how storage behaves, and tell what the program will do about it."""
