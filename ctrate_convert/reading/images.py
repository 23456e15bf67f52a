"""Give a volume to nibabel, SimpleITK or MONAI; each is imported only when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ctrate_convert.errors import SampleError
from ctrate_convert.formats.affines import REVERSED, Affine, permuted

if TYPE_CHECKING:
    import nibabel
    import SimpleITK

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def to_nibabel(values: NDArray[Any], affine: Affine, name: str) -> nibabel.Nifti1Image:
    """Return an image of ``values`` with their affine.

    Raises:
        SampleError: the affine is not known.
    """
    require_affine(affine, name)
    import nibabel

    image = nibabel.Nifti1Image(values, np.array(affine))
    image.header.set_xyzt_units("mm")
    return image


def to_sitk(values: NDArray[Any], affine: Affine, name: str) -> SimpleITK.Image:
    """Return an image of ``values``; SimpleITK's index has the axes in reverse, its space is LPS.

    Raises:
        SampleError: the affine is not known.
    """
    require_affine(affine, name)
    import SimpleITK

    matrix = _RAS_TO_LPS @ np.array(permuted(affine, REVERSED))
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    image = SimpleITK.GetImageFromArray(values)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((matrix[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(matrix[:3, 3].tolist())
    return image


def to_metatensor(values: NDArray[Any], affine: Affine, name: str) -> Any:
    """Return a MONAI ``MetaTensor`` of ``values`` with a channel axis before them.

    Raises:
        SampleError: the affine is not known.
    """
    require_affine(affine, name)
    import torch
    from monai.data import MetaTensor

    return MetaTensor(torch.from_numpy(values)[None], affine=torch.tensor(affine))


def require_affine(affine: Affine, name: str) -> None:
    """Raise if the affine of the sample ``name`` is not known.

    Raises:
        SampleError: it is not.
    """
    if not affine:
        raise SampleError(
            "this volume's place and orientation are not known",
            where=name,
            expected="a source whose header or metadata entry states an affine",
        )
