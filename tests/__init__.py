"""Every promise of the program, tried on real files and real processes."""
