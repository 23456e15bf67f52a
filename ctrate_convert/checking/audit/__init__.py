"""Account for every source that is gone: where its sample is, and who allowed the deletion."""
