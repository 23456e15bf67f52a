"""Make synthetic chest voxels with the values and the noise of a CT, but of no real patient."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

AIR_HU = -1000
_TISSUE_HU, _LUNG_HU, _BONE_HU, _HEART_HU, _FAT_HU = 40, -850, 600, 70, -90

# HU value, centre and half axes in the unit cube (rows, columns, slices), painted in this order.
_ORGANS = (
    (_FAT_HU, (0.50, 0.50, 0.5), (0.36, 0.44, 2.0)),
    (_TISSUE_HU, (0.50, 0.50, 0.5), (0.33, 0.41, 2.0)),
    (_LUNG_HU, (0.47, 0.31, 0.5), (0.24, 0.15, 0.55)),
    (_LUNG_HU, (0.47, 0.69, 0.5), (0.24, 0.15, 0.55)),
    (_HEART_HU, (0.44, 0.55, 0.4), (0.12, 0.11, 0.30)),
    (_BONE_HU, (0.74, 0.50, 0.5), (0.06, 0.05, 2.0)),
    (_BONE_HU, (0.20, 0.50, 0.5), (0.02, 0.05, 0.4)),
)
_TISSUE_NOISE_HU, _AIR_NOISE_HU = 14.0, 5.0


def chest_phantom(
    shape: tuple[int, int, int], rng: np.random.Generator, padding_hu: int = -1024
) -> NDArray[np.int16]:
    """Return a chest in HU, rows × columns × slices: body, lungs, heart, spine and noise.

    Voxels outside the scanner's round field of view are ``padding_hu``. Each call with the same
    generator gives another patient, whose organs are moved and scaled a little.
    """
    rows, columns, slices = shape
    y = ((np.arange(rows, dtype=np.float32) + 0.5) / rows)[:, None]
    x = ((np.arange(columns, dtype=np.float32) + 0.5) / columns)[None, :]
    outside = (y - 0.5) ** 2 + (x - 0.5) ** 2 > 0.25
    moves = rng.uniform(-0.02, 0.02, (len(_ORGANS), 2)).astype(np.float32)
    scales = rng.uniform(0.92, 1.08, len(_ORGANS)).astype(np.float32)

    volume = np.empty(shape, np.int16)
    for number in range(slices):  # slice by slice, so that a full-size volume needs little memory
        z = (number + 0.5) / slices
        image = np.full((rows, columns), AIR_HU, np.float32)
        for (value, centre, axes), move, scale in zip(_ORGANS, moves, scales, strict=True):
            left = 1.0 - ((z - centre[2]) / axes[2]) ** 2
            if left > 0:
                across_y = (y - centre[0] - move[0]) / (axes[0] * scale)
                across_x = (x - centre[1] - move[1]) / (axes[1] * scale)
                image[across_y**2 + across_x**2 < left] = value
        noise = rng.standard_normal((rows, columns), np.float32)
        image += noise * np.where(image > AIR_HU, _TISSUE_NOISE_HU, _AIR_NOISE_HU)
        np.maximum(np.rint(image), -1024, out=image)  # scanners report no lower value
        image[outside] = padding_hu
        volume[:, :, number] = image
    return volume
