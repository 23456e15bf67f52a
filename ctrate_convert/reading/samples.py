"""Read a sample's other parts from its shard: the JSON, the text, the labels."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctrate_convert.errors import SampleError
from ctrate_convert.formats.members import LABEL_NAMES
from ctrate_convert.formats.npy_header import small_array
from ctrate_convert.reading.index import StoredSample
from ctrate_convert.reading.shard_file import ShardFile


def read_json(file: ShardFile, sample: StoredSample) -> dict[str, Any]:
    """Return the JSON member's fields, which ``docs/shards.md`` lists."""
    return parse_json(file.member(sample.json), file, sample)


def parse_json(data: bytes, file: ShardFile, sample: StoredSample) -> dict[str, Any]:
    """Return the fields of a JSON member with these bytes.

    Raises:
        DamageError: they are no JSON object.
    """
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise file.shard.damage(f"{sample.json.name} is no JSON: {error}") from error
    if not isinstance(fields, dict):
        raise file.shard.damage(f"{sample.json.name} holds no JSON object")
    return fields


def read_source_extra(file: ShardFile, sample: StoredSample) -> dict[str, Any]:
    """Return the source's other entries by name; an empty dictionary for shards without that field.

    Raises:
        DamageError: the shard does not hold what its record says.
        EnvironmentProblem: it cannot be read.
    """
    found: dict[str, Any] = {}
    try:
        for entry in read_json(file, sample).get("source_extra", []):
            name = entry["name"].removesuffix(".npy")
            value = _extra_value(entry)
            if entry["name"] or value:  # an empty zip comment is no entry
                # ``a`` and ``a.npy`` may both be there: the second one keeps its whole name.
                found[entry["name"] if name in found else name] = value
    except (ValueError, KeyError, TypeError, AttributeError, SampleError) as error:
        raise file.shard.damage(
            f"{sample.json.name} has a damaged source_extra: {error}"
        ) from error
    return found


def _extra_value(entry: dict[str, Any]) -> Any:
    if entry["json"]:
        return json.loads(entry["json"])
    content = base64.b64decode(entry["base64"], validate=True)
    if not entry["header_base64"]:
        return content
    header = base64.b64decode(entry["header_base64"], validate=True)
    return small_array(header + content)


def read_report(file: ShardFile, sample: StoredSample) -> str:
    """Return the report: findings, line end, impressions."""
    try:
        return file.member(sample.report).decode()
    except UnicodeDecodeError as error:
        raise file.shard.damage(f"{sample.report.name} is no UTF-8: {error}") from error


def read_labels(file: ShardFile, sample: StoredSample) -> NDArray[np.float32]:
    """Return the labels, float32, (18,), in the order of the label table; writable."""
    data = file.member(sample.labels)
    size_bytes = len(LABEL_NAMES) * 4
    if len(data) < size_bytes:
        raise file.shard.damage(f"{sample.labels.name} is too short for 18 labels")
    # Take the last bytes: in the layout webdataset an npy header precedes the labels.
    return np.frombuffer(data[-size_bytes:], "<f4").astype(np.float32)
