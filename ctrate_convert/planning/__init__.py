"""Decide which volume goes into which shard, and estimate what the conversion will cost."""
