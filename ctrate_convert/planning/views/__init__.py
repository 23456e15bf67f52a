"""Plan a dataset of views: what a recipe makes of each sample of another dataset."""
