"""The way that this project replaces: load, cast, tar; nothing checked, nothing synced.

Written anew from its description, in its own idiom; only so that both ways can be run side by
side.
"""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np


def convert(sources: list[Path], tar_path: Path) -> None:
    """One shard of the original's four members a sample: .bin, .json, .txt, .labels."""
    with tarfile.open(tar_path, "w") as tar:
        for index, source in enumerate(sources):
            with np.load(source) as archive:
                volume = archive["data"]
            original_shape = volume.shape
            volume = volume.astype(np.float16)
            key = f"{0:06d}_{index:06d}"
            fields = {
                "study_id": source.stem,
                "RescaleSlope": 1.0,
                "RescaleIntercept": -1024.0,
                "XYSpacing": "[0.75, 0.75]",
                "ZSpacing": 1.5,
                "original_shape": list(original_shape),
                "volume_shape": list(volume.shape),
                "volume_dtype": str(volume.dtype),
            }
            add(tar, f"{key}.bin", volume.tobytes())
            add(tar, f"{key}.json", json.dumps(fields).encode())
            add(tar, f"{key}.txt", b"Findings.\nImpressions.")
            add(tar, f"{key}.labels", np.zeros(18, np.float32).tobytes())


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """One member, from memory."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
