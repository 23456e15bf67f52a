"""The dataset directory on disk: durable files, locks, plans, records, journals, manifest."""
