"""The plan records: which sample goes into which shard and task, with every setting, frozen."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from ctrate_convert.errors import SettingsError
from ctrate_convert.store.records.base import Encoding as Encoding
from ctrate_convert.store.records.base import Key, Record, RelativePath, Sha256, SizeBytes
from ctrate_convert.store.records.geometry import Axes, Geometry
from ctrate_convert.store.records.recipe import Recipe
from ctrate_convert.store.records.view import ViewFacts
from ctrate_convert.store.records.volume_list import VolumeList

DType = Literal["auto", "float16", "int16"]
Layout = Literal["webdataset", "ctclip"]
SourceKind = Literal["npz", "nifti", "shard"]
SourceChoice = Literal["auto", "npz", "nifti"]
ChunkShape = Literal["cube", "slab"]
ExclusionReason = Literal[
    "no_report",
    "no_labels",
    "no_metadata",
    "no_volume",
    "on_exclusion_list",
    "not_on_keep_list",
    "duplicate_volume",
    "conflicting_rows",
    "bad_name",
    "no_view",
]


def _numpy_dtype(text: str) -> str:
    if not re.fullmatch(r"[<>|=][A-Za-z?][0-9]{0,9}(\[[0-9A-Za-z]{1,20}\])?", text):
        raise ValueError("not as numpy writes a data type")
    import numpy as np  # here, since `status` and others look at plans without any array

    try:
        np.dtype(text)
    except TypeError as error:
        raise ValueError(str(error)) from error
    return text


NumpyDtype = Annotated[str, AfterValidator(_numpy_dtype)]
"""A data type as ``numpy.dtype.str`` gives it, such as ``<i2``."""


class PlanSettings(Record):
    """All settings of a plan. Paths are absolute; lists keep the order given.

    The field descriptions are the help texts of the options with the same names.

    Raises:
        SettingsError: two settings do not go together.
    """

    data_folder: str = Field(description="Folder with the volumes, at any depth.")
    source: SourceChoice = Field(
        default="auto",
        description="What volumes are: npz, or nifti (.nii.gz, .nii). auto: whichever lies in the "
        "data folder, if not both.",
    )
    reports_file: str = Field(description="CSV with the four report columns.")
    meta_file: str = Field(description="CSV with the 44 metadata columns.")
    labels_file: str = Field(description="CSV with the 18 labels.")
    exclude_file: tuple[str, ...] = Field(
        default=(),
        description="List of volumes to leave out, such as no_chest_train.txt; may be repeated.",
    )
    keep_file: tuple[str, ...] = Field(
        default=(),
        description="List of the volumes to plan, and no others; may be repeated. --exclude_file "
        "wins over it.",
    )
    array_key: str | None = Field(
        default=None, description="The array to take, where an NPZ has several."
    )
    samples_per_shard: int = Field(default=100, ge=1, description="Samples in one shard.")
    shard_size_gb: float | None = Field(
        default=None,
        gt=0,
        description="Fill shards up to this size (GiB) instead of counting samples.",
    )
    shards_per_task: int = Field(
        default=1, ge=1, description="Shards that one array task converts."
    )
    shuffle_seed: int | None = Field(
        default=None, description="Shuffle; without it, by patient number."
    )
    test_mode: bool = Field(default=False, description="Only the first 100 samples.")
    limit: int | None = Field(
        default=None,
        ge=1,
        description="At most so many samples; the next plan takes those that follow.",
    )
    dtype: DType = Field(
        default="auto", description="auto: integers stay integers, floats become float16."
    )
    layout: Layout = Field(
        default="webdataset",
        description="ctclip: the original's four members, .bin .json .txt .labels (float16).",
    )
    encoding: Encoding = Field(default="npy", description="How the array is stored.")
    chunk_shape: ChunkShape = Field(
        default="cube",
        description="Of b2nd: cube for crops, slab for reading whole planes.",
    )
    step: float | None = Field(
        default=None,
        gt=0,
        description="Of --dtype int16 with float sources: what one unit stands for "
        "(HU/1000: 0.001).",
    )
    max_error: float | None = Field(
        default=None,
        ge=0,
        description="Largest error of any voxel, in the source's unit; past it the sample fails. "
        "Without it: 2^-10 of the spread between the 0.1 and the 99.9 percentile, and for "
        "voxels outside them what the stored type costs.",
    )
    delete_source_files: bool = False
    """A proposal: wherever the plan is carried out, a person is asked before the first deletion."""
    discard_members: tuple[str, ...] = ()
    """Names of source entries that may be lost; a proposal like `delete_source_files`."""
    trash: str | None = None
    """The absolute path to which sources are moved instead of being deleted."""
    view: Recipe | None = None
    """Of a plan of views: the recipe; ``data_folder`` is the dataset that they are made from."""
    assume_axes: Axes = ""
    """Of a plan of views: the axes of volumes whose shards do not tell them."""
    probe: int | None = Field(
        default=None,
        ge=0,
        description="Volumes to try every encoding on before anything is promised; 0: none. "
        "Without it: a few seconds' worth.",
    )

    @model_validator(mode="after")
    def _refuse_what_does_not_go_together(self) -> Self:
        if self.layout == "ctclip" and self.dtype == "auto":
            # The readers of that layout expect float16. A validator that runs before could
            # set it without this trick, but would cost the strict parsing of JSON.
            object.__setattr__(self, "dtype", "float16")
            given = {*self.__pydantic_fields_set__, "dtype"}
            object.__setattr__(self, "__pydantic_fields_set__", given)
        if self.layout == "ctclip" and self.dtype == "int16":
            raise SettingsError(
                "--layout ctclip stores float16: its readers expect nothing else",
                seen="--dtype int16",
                expected="--dtype float16, or --layout webdataset",
            )
        if self.layout == "ctclip" and self.encoding != "npy":
            raise SettingsError(
                "--layout ctclip stores raw elements: its readers expect nothing else",
                seen=f"--encoding {self.encoding}",
                expected="--encoding npy, or --layout webdataset",
            )
        if self.view is not None:
            _refuse_beside_a_view(self)
        if self.trash and not self.delete_source_files:
            raise SettingsError(
                "--trash tells where sources go that are deleted, and none is to be",
                expected="--delete_source_files too",
            )
        if self.array_key and self.source == "nifti":
            raise SettingsError(
                "--array_key names an array of an NPZ; a NIfTI file holds one volume",
                seen=f"--source nifti --array_key {self.array_key}",
                expected="--source nifti alone",
            )
        if self.step and self.dtype != "int16":
            raise SettingsError("--step goes with --dtype int16", seen=f"--dtype {self.dtype}")
        return self

    @property
    def view_words(self) -> str:
        """What is made of what, for people; empty unless the plan is one of views."""
        return f"views {self.view.title} of {self.data_folder}" if self.view else ""


def _refuse_beside_a_view(settings: PlanSettings) -> None:
    """Raise if a plan of views has settings that only a conversion has.

    Raises:
        SettingsError: it has.
    """
    recipe = settings.view
    given = settings.model_fields_set - {*_OF_VIEWS}
    other = [
        name
        for name in sorted(given)
        if getattr(settings, name) != PlanSettings.model_fields[name].default
        and getattr(settings, name) != ""
    ]
    if other and not (other == ["dtype"] and settings.layout == "ctclip"):
        raise SettingsError(
            "a view takes its samples, tables and shards from its dataset",
            seen=", ".join(f"--{name}" for name in other),
            expected="none of that beside --view, nor in --config",
            next_command="ctrate-convert plan --help",
        )
    fits = recipe is None or (recipe.output, recipe.axes) == ("float16", "xyz")
    if settings.layout == "ctclip" and not fits:
        raise SettingsError(
            "--layout ctclip is float16 with the axes xyz: its readers expect nothing else",
            seen=f"--view {recipe.name}: {recipe.output}, {recipe.axes}" if recipe else None,
            expected="--view ctclip-modern, or --layout webdataset",
        )


_OF_VIEWS = (
    "view", "data_folder", "encoding", "chunk_shape", "layout", "shards_per_task", "test_mode",
    "limit", "assume_axes", "probe",
)  # fmt: skip
"""The settings of a plan of views."""


class ArrayHeader(Record):
    """The header of a volume's array, read before its data.

    ``extra_bytes`` is the size that the source's other entries add to the sample's JSON.
    ``left_out`` names the parts of the source that no shard will hold. ``scaling`` is (slope,
    intercept): the header says that a stored element times the one plus the other is the voxel's
    value. ``geometry`` is what the file itself says, without the tables. Of a view, all this is
    the view's, and ``view`` tells what it was made from.
    """

    array_key: str
    dtype: NumpyDtype
    shape: tuple[int, ...]
    fortran_order: bool
    compression: Literal["stored", "deflated"]
    extra_bytes: SizeBytes = 0
    left_out: tuple[str, ...] = ()
    kind: SourceKind = "npz"
    scaling: tuple[float, float] = (1.0, 0.0)
    geometry: Geometry | None = None
    view: ViewFacts | None = None


class PlannedSample(Record):
    """One line of ``samples.jsonl``: a sample with its rows of the tables, verbatim.

    ``header`` is None if it could not be read when the plan was made; converting then gives the
    reason.
    """

    key: Key
    volume_name: str
    source: RelativePath
    source_size_bytes: SizeBytes
    source_mtime_ns: int
    header: ArrayHeader | None
    report: dict[str, str]
    labels: dict[str, int]
    metadata: dict[str, str]


class ExcludedSample(Record):
    """One line of ``excluded.jsonl``: a volume or table row that is not converted, and why."""

    # Not `Key`, nor `RelativePath` below: what is excluded may have any name, and its source may
    # lie in an earlier plan's data folder.
    key: str
    reason: ExclusionReason
    detail: str
    source: str | None
    source_size_bytes: SizeBytes = 0


class PlannedShard(Record):
    """A planned shard: the place of its lines in ``samples.jsonl`` and its estimated sizes."""

    index: int = Field(ge=0)
    task: int = Field(ge=0)
    samples: int = Field(ge=1)
    lines_offset: SizeBytes
    lines_size_bytes: int = Field(ge=1)
    lines_sha256: Sha256
    source_bytes: int
    estimated_output_bytes: int
    estimated_scratch_bytes: int

    @property
    def name(self) -> str:
        """The shard's file name."""
        return shard_name(self.index)


class PlanEstimate(Record):
    """The sizes that the plan expects, in bytes, from headers, file sizes and the probe.

    ``output_bytes`` is exact for the encoding npy. For the others the probe predicts it; without a
    probe it assumes that nothing can be compressed.
    """

    source_bytes: int
    output_bytes: int
    largest_volume_bytes: int
    peak_extra_bytes: int


class ProbeRow(Record):
    """One way to store the arrays, tried on the probed volumes and scaled up to the plan.

    ``failure`` tells why ``failed_volumes`` of the probed volumes cannot be stored this way; empty
    if all can. ``max_error_hu`` is the largest error over all probed voxels, ``max_integer_error``
    that over the voxels of integer sources. ``cpu_s`` is for the whole plan, including the re-read.
    ``scratch_bytes`` is what one worker needs beside its shard. ``advised`` marks the row that
    `prediction` would choose.
    """

    encoding: Encoding
    dtype: DType
    step: float | None
    failed_volumes: int
    failure: str
    output_bytes: int
    scratch_bytes: int
    max_error_hu: float
    max_integer_error: float
    cpu_s: float
    chosen: bool
    advised: bool = False


class Probe(Record):
    """The results of converting a few volumes before anything else.

    ``volume_bytes`` is the size of the whole plan's arrays in their sources' types, the base of
    MB/s. ``intensities`` counts the probed volumes by the intensity scale that their voxels show.
    """

    volumes: int
    unreadable: int
    integer_volumes: int
    volume_bytes: int
    intensities: dict[str, int]
    rows: tuple[ProbeRow, ...]

    @property
    def chosen(self) -> ProbeRow:
        """The row of the plan's own settings."""
        return next(row for row in self.rows if row.chosen)


class Plan(Record):
    """``plan.json``: one generation of the plan. Later generations add shards and tasks.

    ``retries`` are samples that failed in an earlier generation and are tried again in this one;
    each replaces one failed outcome. ``repairs`` are samples that are converted again, each with
    the number of the damaged shard whose copy the new one supersedes. A generation consists of
    repairs only, or has none. ``excluded`` counts exclusions by reason; the newest generation's
    list is valid for the whole dataset. ``lists`` are the lists of volumes in the order of reading;
    plans of earlier versions did not record them.
    """

    schema_number: Literal[1] = 1
    plan_id: Sha256
    generation: int = Field(ge=0)
    created: str
    program_version: str
    settings: PlanSettings
    table_sha256: dict[str, Sha256]
    lists: tuple[VolumeList, ...] = ()
    samples: int
    samples_sha256: Sha256
    retries: tuple[Key, ...] = ()
    repairs: dict[Key, int] = Field(default_factory=dict)
    excluded: dict[str, int]
    excluded_sha256: Sha256
    shards: tuple[PlannedShard, ...]
    estimate: PlanEstimate
    probe: Probe | None = None

    @property
    def tasks(self) -> tuple[int, ...]:
        """The numbers of this generation's tasks, in order."""
        return tuple(dict.fromkeys(shard.task for shard in self.shards))

    def content_id(self) -> str:
        """Return the hash of the stored plan without its id; an unchanged plan has that id."""
        return self.stored_sha256(without="plan_id")


def shard_name(index: int) -> str:
    """Return the file name of a shard: ``shard-000123.tar`` for 123."""
    return f"shard-{index:06d}.tar"


def shard_number(name: str) -> int:
    """Return the number of a shard: 123 for ``shard-000123.tar``."""
    return int(name.removeprefix("shard-").removesuffix(".tar"))
