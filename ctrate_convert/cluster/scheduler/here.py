"""Tell which Slurm job this process belongs to."""

from __future__ import annotations

from collections.abc import Mapping


def scheduler_facts(environment: Mapping[str, str]) -> dict[str, str]:
    """Return this process's Slurm job in the form that attempts keep; empty outside of Slurm."""
    job = environment.get("SLURM_JOB_ID")
    if not job:
        return {}
    names = {
        "array_job_id": "SLURM_ARRAY_JOB_ID",
        "array_task_id": "SLURM_ARRAY_TASK_ID",
        "restart_count": "SLURM_RESTART_COUNT",
        "node": "SLURMD_NODENAME",
    }
    facts = {name: environment.get(variable, "") for name, variable in names.items()}
    return (
        {"kind": "slurm", "job_id": job} | facts | {"restart_count": facts["restart_count"] or "0"}
    )
