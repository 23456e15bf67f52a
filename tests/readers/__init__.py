"""Other readers, as they are: each reads what was converted, by the lines in docs/reading.md."""
