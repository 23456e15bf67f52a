"""Samples as training code takes them: dictionaries with a whole array or with crops of it."""
