"""Views in float64, as plain as can be: what the original code computes, written anew with numpy.

Sources, read at the commits that the presets name:

- sizes, order of the steps, crop and padding: ``resize_array`` and ``nii_img_to_tensor`` of
  CT-CLIP's ``scripts/data.py`` (clip after) and ``scripts/data_inference_nii.py`` (clip before);
  ``preprocess_volume`` of CTCLIP_MODERN's ``scripts/preprocess_webdataset.py``;
  ``load_nifti_file`` of HLIP's ``data/ct_rate/process.py``, and ``loader`` of its
  ``src/hlip_test/inference_rad_chestct.py``;
- ``interpolate(mode="trilinear", align_corners=False)`` of float64 tensors: torch's
  ``aten/src/ATen/native/UpSample.h`` and ``cpu/UpSampleKernel.cpp``. Against torch 2.14.1 itself,
  60 random shapes and sizes differed by 1.5e-11 HU at most.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Float64 = NDArray[np.float64]
Three = tuple[float, float, float]


def interpolate(volume: Float64, size: tuple[int, ...]) -> Float64:
    """``F.interpolate(volume, size=size, mode="trilinear", align_corners=False)`` in float64."""
    taps = [_taps(n, m) for n, m in zip(volume.shape, size, strict=True)]
    found = np.zeros(size)
    # The eight corners, each with the product of its three weights.
    for corner in np.ndindex(2, 2, 2):
        index = [tap[0][side] for tap, side in zip(taps, corner, strict=True)]
        weights = [tap[1][side] for tap, side in zip(taps, corner, strict=True)]
        product = weights[0][:, None, None] * weights[1][:, None] * weights[2]
        found += product * volume[np.ix_(*index)]
    return found


def merlin(lps: Array, xy_mm: float, z_mm: float, target: tuple[int, int, int]) -> Float64:
    """Merlin's image, (x, y, z) in 0 to 1 and RAS, of a volume whose axes grow left, back, up.

    ``merlin/data/monai_transforms.py``: Orientation, Spacing (``compute_shape_offset``: the
    distances of the outer voxels, plus 1, rounded; voxel 0 stays; ``padding_mode="border"``),
    ScaleIntensityRange, SpatialPad, CenterSpatialCrop. ``target`` is (224, 224, 160) there. Against
    MONAI 1.6.1 with torch 2.14.1, 63 of 64 grids agreed; the other one's size lay at a tie, which
    MONAI decides by the rounding of its matrices.
    """
    data = monai_spacing(lps[::-1, ::-1].astype(np.float64), (xy_mm, xy_mm, z_mm), (1.5, 1.5, 3.0))
    data = np.clip((data + 1000) / 2000, 0.0, 1.0)
    return hlip_crop(data, target, 0.0)


def monai_spacing(data: Float64, spacing: Three, wanted: Three) -> Float64:
    """MONAI's ``Spacing`` with a diagonal affine, ``padding_mode="border"``, linear."""
    for axis in range(3):
        voxels, step = data.shape[axis], wanted[axis] / spacing[axis]
        size = int(np.round((voxels - 1) * spacing[axis] / wanted[axis] + 1.0))
        data = _at(data, axis, np.arange(size, dtype=np.float64) * step)
    return data


def spectre(lps: Array, xy_mm: float, z_mm: float, target: tuple[int, int, int]) -> Float64:
    """SPECTRE's image before its random crop, (x, y, z) in 0 to 1 and RAS; axes as in `merlin`.

    ``src/spectre/ssl/transforms/siglip_transform.py``: ScaleIntensityRange with clip, Orientation,
    Spacing, ResizeWithPadOrCrop to ``image_size + 2 * max_shift``, which is (512, 512, 320) there.
    Clipped there, but scaled after Spacing: in real numbers that is the same, and a value halfway
    between two integers stays there in float64.
    """
    data = np.clip(lps[::-1, ::-1].astype(np.float64), -1000, 1000)
    data = monai_spacing(data, (xy_mm, xy_mm, z_mm), (0.75, 0.75, 1.5))
    return hlip_crop((data + 1000) / 2000, target, 0.0)


def fvlm(xyz: Array, xy_mm: float, z_mm: float, target: tuple[int, int, int]) -> Float64:
    """fVLM's image without its organ masks, (z, y, x) in 0 to 1; ``target`` is (112, 256, 352).

    ``data/resize.py``: Resized, trilinear, to sizes of 1, 1 and 3 mm. ``data/preprocess.py``:
    Transpose, ScaleIntensityRange with clip, no crop to the organs' box, SpatialPad.
    """
    scale = [
        spacing / wanted
        for spacing, wanted in zip((xy_mm, xy_mm, z_mm), (1.0, 1.0, 3.0), strict=True)
    ]
    height, width, depth = xyz.shape
    size = (int(height * scale[1]), int(width * scale[0]), int(depth * scale[2]))
    data = interpolate(xyz.astype(np.float64), size).transpose(2, 1, 0)
    data = np.clip((data - -1150) / (350 - -1150), 0.0, 1.0)
    pads = []
    for voxels, wanted in zip(data.shape, target, strict=True):
        missing = max(wanted - voxels, 0)
        pads.append((missing // 2, missing - missing // 2))
    return np.pad(data, pads)


def colipri(lps: Array, xy_mm: float, z_mm: float, target: tuple[int, int, int]) -> Float64:
    """COLIPRI's image, (x, y, z) in -1 to 1 and RAS; ``target`` is (192, 192, 192) there.

    TorchIO's ToOrientation, Resample to 2 mm (``get_reference_image``: the extent of the new image
    is rounded down, its centre stays), Clamp, RescaleIntensity, CropOrPad with
    ``padding_mode="minimum"`` (``_get_six_bounds_parameters``: the odd voxel before the middle).
    Of an integer image TorchIO cuts each resampled voxel's fraction; here, and for a float one,
    it stays.
    """
    data = lps[::-1, ::-1].astype(np.float64)
    for axis, spacing in enumerate((xy_mm, xy_mm, z_mm)):
        voxels = data.shape[axis]
        size = int(np.floor(voxels * spacing / 2.0))
        start = (voxels - 1) / 2 * spacing - (size - 1) / 2 * 2.0
        data = _at(data, axis, (start + np.arange(size, dtype=np.float64) * 2.0) / spacing)
    data = np.clip(data, -1000, 1000) / 1000
    lowest = data.min()
    for axis, wanted in enumerate(target):
        differ = wanted - data.shape[axis]
        before, after = math.ceil(abs(differ) / 2), math.floor(abs(differ) / 2)
        if differ > 0:
            pads = [(0, 0)] * 3
            pads[axis] = (before, after)
            data = np.pad(data, pads, constant_values=lowest)
        else:
            data = data.take(np.arange(before, data.shape[axis] - after), axis)
    return data


def _at(data: Float64, axis: int, place: Float64) -> Float64:
    """Linear interpolation along one axis; beyond the outer voxels they are repeated."""
    last = data.shape[axis] - 1
    place = np.clip(place, 0, last)
    low = np.minimum(np.floor(place).astype(int), last)
    high = np.minimum(low + 1, last)
    weight = np.expand_dims(place - low, tuple({0, 1, 2} - {axis}))
    found: Float64 = data.take(low, axis) * (1 - weight) + data.take(high, axis) * weight
    return found


def _taps(voxels: int, resampled: int) -> tuple[tuple[Array, Array], tuple[Float64, Float64]]:
    scale = voxels / resampled
    index, next_, far = [], [], []
    for place in range(resampled):
        source = max(scale * (place + 0.5) - 0.5, 0.0)
        low = min(math.floor(source), voxels - 1)
        index.append(low)
        next_.append(low + (low < voxels - 1))
        far.append(min(max(source - low, 0.0), 1.0))
    weight = np.array(far)
    return (np.array(index), np.array(next_)), (1.0 - weight, weight)


def crop_or_pad(volume: Float64, target: tuple[int, ...], value: float) -> Float64:
    """CT-CLIP's: the crop starts at ``max((n - d) // 2, 0)``, the padding at ``(d - n) // 2``."""
    parts, pads = [], []
    for size, wanted in zip(volume.shape, target, strict=True):
        start = max((size - wanted) // 2, 0)
        end = min(start + wanted, size)
        parts.append(slice(start, end))
        before = (wanted - (end - start)) // 2
        pads.append((before, wanted - (end - start) - before))
    return np.pad(volume[tuple(parts)], pads, constant_values=value)


def hlip_crop(volume: Float64, target: tuple[int, ...], value: float) -> Float64:
    """HLIP's: pad to at least the target, then cut at ``(n - d) // 2``."""
    pads = []
    for size, wanted in zip(volume.shape, target, strict=True):
        missing = max(wanted - size, 0)
        pads.append((missing // 2, missing - missing // 2))
    padded = np.pad(volume, pads, constant_values=value)
    starts = [(size - wanted) // 2 for size, wanted in zip(padded.shape, target, strict=True)]
    return padded[tuple(slice(s, s + d) for s, d in zip(starts, target, strict=True))]


def ctclip(
    xyz: Array, xy_mm: float, z_mm: float, *, clip: str, target: tuple[int, int, int]
) -> Float64:
    """The tensor of CT-CLIP without its channel, (z, x, y), times 1000: Hounsfield units.

    ``xyz`` are Hounsfield units as nibabel gives them. ``target`` is (480, 480, 240) there.
    """
    current, wanted = (z_mm, xy_mm, xy_mm), (1.5, 0.75, 0.75)
    data = xyz.astype(np.float64)
    if clip == "before":
        data = np.clip(data, -1000, 1000)
    data = data.transpose(2, 0, 1)
    factors = [current[i] / wanted[i] for i in range(3)]
    data = interpolate(data, tuple(int(data.shape[i] * factors[i]) for i in range(3)))
    data = data.transpose(1, 2, 0)
    if clip == "after":
        data = np.clip(data, -1000, 1000)
    data = crop_or_pad(data / 1000, target, -1.0)
    return data.transpose(2, 0, 1) * 1000


def modern(xyz: Array, xy_mm: float, z_mm: float, *, target: tuple[int, int, int]) -> Float64:
    """The ``.bin`` of CTCLIP_MODERN, (x, y, z) in [-1, 1], before it is rounded to float16."""
    return ctclip(xyz, xy_mm, z_mm, clip="before", target=target).transpose(1, 2, 0) / 1000


def hlip(zyx: Array, x_mm: float, y_mm: float, z_mm: float, target: tuple[int, ...]) -> Float64:
    """HLIP's input, (z, y, x) in 0 to 1, before its normaliser. ``target`` is (112, 336, 336)."""
    shape, spacing, wanted = zyx.shape, (z_mm, y_mm, x_mm), (3, 1, 1)
    size = tuple(int(shape[i] * spacing[i] / wanted[i]) for i in range(3))
    data = interpolate(zyx.astype(np.float64), size)
    data = np.clip((data - -1150.0) / (350.0 - -1150.0), 0.0, 1.0)
    return hlip_crop(data, target, 0.0)
