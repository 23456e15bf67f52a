"""The CSV tables and the lists of volumes. Rows stay on disk: only their places are in memory."""

from ctrate_convert.formats.tables.lists import read_keys, read_volume_list
from ctrate_convert.formats.tables.table import Table, Tables, read_tables

__all__ = ["Table", "Tables", "read_keys", "read_tables", "read_volume_list"]
