"""Launch arrays by submitit: its job script, its payloads, its way of running them; no more.

Four things are done here instead of by submitit:

- Payloads and script get their final names before sbatch, so that a submitter killed right after it
  leaves elements that can start.
- An array of one element is an array too.
- sbatch has a time limit, and an error that says what is known.
- An element checks its payload before it runs it (see `start`).
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from submitit.core.utils import DelayedSubmission
from submitit.slurm.slurm import SlurmExecutor

import ctrate_convert
from ctrate_convert.cluster.scheduler.client import SlurmClient
from ctrate_convert.cluster.scheduler.profile import ClusterProfile
from ctrate_convert.cluster.submissions import ArrayIntent, Resources
from ctrate_convert.errors import SettingsError
from ctrate_convert.store.durable import make_directories

# The element itself decides whether another run makes sense, so submitit's count must not end it.
_REQUEUES = 1_000_000

_PAYLOAD_MODE = 0o600
"""Set explicitly, since with an ACL on the folder the umask counts for nothing."""

_PAYLOAD_LINK = """\
# The payload has its name before the job has its id; a requeued element has a newer one.
submitted={folder}/"${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}_submitted.pkl"
[ -e "$submitted" ] || ln -s "payload-${{SLURM_ARRAY_TASK_ID}}.pkl" "$submitted\""""


class ArrayExecutor(SlurmExecutor):
    """An executor that submits one array and keeps every file of it in ``folder``."""

    def __init__(self, folder: Path, client: SlurmClient, keep: Sequence[str]) -> None:
        super().__init__(folder, max_num_timeout=_REQUEUES)
        self._client = client
        self._keep = tuple(keep)
        self.job_id = ""

    def script(self, elements: int) -> str:
        """Return the job script for an array of ``elements`` elements."""
        self.parameters["map_count"] = elements
        text: str = self._make_submission_file_text(self._submitit_command_str, "")
        return text

    @property
    def _submitit_command_str(self) -> str:
        """The command of an element.

        submitit's own entry point unpickles whatever the payload's name leads to; ours checks it
        first.
        """
        folder = shlex.quote(str(self.folder))
        return f"{self.python} -u -m ctrate_convert.cluster.start {folder}"

    def _internal_process_submissions(
        self, delayed_submissions: list[DelayedSubmission]
    ) -> list[Any]:
        folder = Path(self.folder)
        make_directories(folder)
        for index, delayed in enumerate(delayed_submissions):
            delayed.set_timeout(self.parameters["time"], self.max_num_timeout)
            payload = folder / f"payload-{index}.pkl"
            delayed.dump(payload)
            payload.chmod(_PAYLOAD_MODE)
        script = folder / "submission.sh"
        script.write_text(self.script(len(delayed_submissions)), encoding="utf-8")
        script.chmod(_PAYLOAD_MODE)
        self.job_id = self._client.sbatch(script, self._keep)
        return [
            self.job_class(folder=folder, job_id=f"{self.job_id}_{index}", tasks=[0])
            for index in range(len(delayed_submissions))
        ]


def executor(
    folder: Path,
    profile: ClusterProfile,
    array: ArrayIntent,
    *,
    client: SlurmClient,
    dependency: str | None = None,
) -> ArrayExecutor:
    """Return a submitit executor that is set up for one array.

    Raises:
        SettingsError: a parameter is not one that submitit knows, or the path cannot be used.
    """
    resources = array.resources
    # Slurm replaces % patterns in the paths of logs.
    for bad in ("%", "\n"):
        if bad in str(folder):
            raise SettingsError(
                f"Slurm cannot write logs to a path with {bad!r} in it",
                where=folder,
                next_command="choose another output directory, or: ctrate-convert run OUT",
            )
    # The user's own SBATCH_* variables hold for what the profile leaves open.
    chosen = {
        "SBATCH_ACCOUNT": profile.account,
        "SBATCH_PARTITION": profile.partition,
        "SBATCH_QOS": profile.qos,
    }
    try:
        made = ArrayExecutor(folder, client, [name for name, value in chosen.items() if not value])
    except RuntimeError as error:
        raise SettingsError(
            "no Slurm here: srun is not installed",
            next_command="submit from a login node of the cluster, or: ctrate-convert run OUT",
        ) from error
    exclude = [str(profile.additional_parameters.get("exclude", "")), *resources.exclude]
    additional = {
        "requeue": True,
        **profile.additional_parameters,
        **({"exclude": ",".join(filter(None, exclude))} if any(exclude) else {}),
        **({"dependency": dependency} if dependency else {}),
    }
    optional = {
        "partition": profile.partition,
        "account": profile.account,
        "qos": profile.qos,
        # submitit always asks for the workload key "submitit", which a cluster may not have.
        "wckey": None,
    }
    made.update_parameters(
        job_name=array.job_name,
        time=resources.timeout_min,
        mem=f"{resources.mem_mb}MB",
        cpus_per_task=resources.cpus_per_task,
        array_parallelism=array.parallelism,
        signal_delay_s=warning_s(profile, resources),
        stderr_to_stdout=True,
        # Since Slurm 22.05 srun does not inherit the number of cores from sbatch.
        srun_args=[f"--cpus-per-task={resources.cpus_per_task}"],
        setup=[
            *profile.setup,
            *_import_paths(),
            *_PAYLOAD_LINK.format(folder=shlex.quote(str(folder))).split("\n"),
        ],
        # False drops an option that is set by default, such as requeue.
        additional_parameters={k: v for k, v in additional.items() if v is not False},
        **optional,
    )
    return made


def _import_paths() -> list[str]:
    """Return lines that keep Python from importing from the submitter's working directory.

    Others may be able to write to that directory. If the program runs from a checkout, the elements
    use that checkout.
    """
    lines = ["export PYTHONSAFEPATH=1"]
    home = Path(ctrate_convert.__file__).resolve().parents[1]
    if home.name not in ("site-packages", "dist-packages"):
        lines.append(f'export PYTHONPATH={shlex.quote(str(home))}"${{PYTHONPATH:+:$PYTHONPATH}}"')
    return lines


def warning_s(profile: ClusterProfile, resources: Resources) -> int:
    """Return how many seconds before the time limit an element is warned.

    It is never more than a quarter of the time limit.
    """
    return min(profile.warning_s, resources.timeout_min * 60 // 4)


def submit_array(
    made: ArrayExecutor, function: Callable[..., Any], payloads: Sequence[tuple[Any, ...]]
) -> str:
    """Submit one array, with one element for each payload, and return its job id.

    Raises:
        SubmissionRejected: the scheduler refused it.
        SubmissionUnclear: it may have accepted it.
    """
    # map_array takes one list for each argument, not one tuple for each element.
    made.map_array(function, *zip(*payloads, strict=True))
    return made.job_id
