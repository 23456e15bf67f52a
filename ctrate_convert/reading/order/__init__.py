"""Decide which samples a worker reads in an epoch, and in which order; keep its place."""
