"""How the testbed ends jobs that outgrow their memory, and what Slurm then tells.

Observed with Slurm 22.05, for a batch job whose own process outgrows `--mem` (batch) and for one
whose `srun` step does and whose script ends with that step's exit code (step):

    limits    case   job                  .batch                .0
    cgroup    batch  OUT_OF_MEMORY 0:125  OUT_OF_MEMORY 0:125
    cgroup    step   FAILED 1:0           FAILED 1:0            OUT_OF_MEMORY 0:125
    polling   batch  FAILED 0:9           CANCELLED by UID 0:9
    polling   step   FAILED 9:0           FAILED 9:0            CANCELLED by UID 0:9

`cgroup` is how clusters do it: the kernel kills, and some record of the job, perhaps only that of
a step, says OUT_OF_MEMORY. In the case `batch` the job says so even if its script goes on and
succeeds; in the case `step` a script that does is a COMPLETED job with one step OUT_OF_MEMORY.

`polling` looks at resident memory once a second and kills the step. No record says
OUT_OF_MEMORY: squeue gives the reason JobLaunchFailure (batch) or NonZeroExitCode (step), MaxRSS
lies above the request, and the job's standard error holds `exceeded memory limit` with both
numbers. A job that allocates and ends within a second gets away with it.
"""

import contextlib
import secrets
from pathlib import Path

from slurm.testbed.configuration import MemoryLimits
from slurm.testbed.errors import TestbedUnavailable

MOUNTS = Path("/proc/self/mounts")


def memory_cgroup(mounts: Path = MOUNTS) -> Path | None:
    """The memory hierarchy of version 1 control groups if we may make groups there, else None.

    Version 2 is left alone: there Slurm asks the system's service manager for a scope of its own,
    and that would reach outside the scratch directory.
    """
    for line in mounts.read_text().splitlines():
        _, mount_point, kind, options, *_ = line.split()
        if kind == "cgroup" and "memory" in options.split(","):
            path = Path(mount_point)
            # Slurm derives the path from the common parent of all hierarchies.
            return path if path.name == "memory" and may_make_groups(path) else None
    return None


def may_make_groups(hierarchy: Path) -> bool:
    """Whether a group can be made there and its memory limited; tried, since root may not."""
    trial = hierarchy / f"slurm_testbed_trial_{secrets.token_hex(4)}"
    try:
        trial.mkdir()
    except OSError:
        return False
    try:
        (trial / "memory.limit_in_bytes").write_text(str(64 << 20))
    except OSError:
        return False
    finally:
        trial.rmdir()
    return True


def decide(wanted: MemoryLimits, hierarchy: Path | None) -> MemoryLimits:
    """What to use here: `auto` is `cgroup` where permitted and `polling` elsewhere."""
    if wanted == "auto":
        return "cgroup" if hierarchy else "polling"
    if wanted == "cgroup" and hierarchy is None:
        raise TestbedUnavailable(
            "memory limits by cgroup need a writable version 1 memory hierarchy; "
            "memory_limits='polling' works everywhere"
        )
    return wanted


def cgroup_conf(hierarchy: Path) -> str:
    """Text of cgroup.conf: memory is limited, swap does not help, nothing else is touched."""
    lines = [
        "CgroupPlugin=cgroup/v1",
        f"CgroupMountpoint={hierarchy.parent}",
        "ConstrainRAMSpace=yes",
        "AllowedRAMSpace=100",
    ]
    if (hierarchy / "memory.memsw.limit_in_bytes").exists():
        lines += ["ConstrainSwapSpace=yes", "AllowedSwapSpace=0"]
    return "\n".join(lines) + "\n"


def cgroup_directories(hierarchy: Path, nodes: tuple[str, ...]) -> tuple[str, ...]:
    """The groups that the cluster's daemons make, by the names of its nodes."""
    return tuple(str(hierarchy / f"slurm_{node}") for node in nodes)


def remove_cgroup(group: Path) -> bool:
    """Remove an emptied group with its subgroups; False while something still lives in it."""
    subgroups = [path for path in group.rglob("*") if path.is_dir()] if group.is_dir() else []
    try:
        for path in [*sorted(subgroups, reverse=True), group]:
            with contextlib.suppress(FileNotFoundError):
                path.rmdir()
    except OSError:
        return False
    return True
