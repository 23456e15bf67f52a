"""Convert a few volumes for real, in every encoding, before a plan estimates anything."""
