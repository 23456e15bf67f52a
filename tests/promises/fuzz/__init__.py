"""Fuzz: damaged volumes, tables, dataset directories. ``python -m tests.promises.fuzz -h``.

Whatever is changed, and however: nothing is deleted that no shard holds, nothing outside the data
folder, no published shard is touched, and every command ends with a documented exit code.
"""
