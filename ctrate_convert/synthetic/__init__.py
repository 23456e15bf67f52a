"""A small CT-RATE of synthetic patients, for the demo, the tests and the benchmarks."""

from ctrate_convert.synthetic.clinical_tables import METADATA_COLUMNS
from ctrate_convert.synthetic.dataset import (
    NIFTI_KINDS,
    NPZ_KINDS,
    Fault,
    Kind,
    Layout,
    SyntheticCtRate,
    write_synthetic_ctrate,
)
from ctrate_convert.synthetic.phantom import chest_phantom

__all__ = [
    "METADATA_COLUMNS",
    "NIFTI_KINDS",
    "NPZ_KINDS",
    "Fault",
    "Kind",
    "Layout",
    "SyntheticCtRate",
    "chest_phantom",
    "write_synthetic_ctrate",
]
