"""Read shards: a pipeline for training, a decoder for other pipelines, samples by key.

This package imports nothing by itself: ``webdataset``, ``blosc2`` and ``torch`` take up to seconds
to import, and only the module that needs one imports it.
"""
