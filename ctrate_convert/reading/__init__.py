"""Shards out again: a pipeline for training, a decoder for other pipelines, samples by key.

Imports nothing by itself: ``webdataset``, ``blosc2`` and ``torch`` cost up to seconds, and each is
loaded by the one module that needs it.
"""
