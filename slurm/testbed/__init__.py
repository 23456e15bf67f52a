"""A real, throw-away Slurm cluster in one scratch directory, up in a few seconds.

Munge, slurmctld, several slurmd and, if wanted, slurmdbd with a private MariaDB run from the
distribution's packages on loopback ports. Nothing outside the scratch directory is written,
except memory cgroups (removed again) and, for directories whose path is too long for sockets, one
symbolic link in the temporary directory (removed again).

    with Cluster(tmp_path) as cluster:
        cluster.run("sbatch", "--wrap", "true")
"""

from slurm.testbed.cluster import Cluster
from slurm.testbed.configuration import Settings
from slurm.testbed.errors import TestbedError, TestbedUnavailable
from slurm.testbed.requirements import unavailable_reason
from slurm.testbed.teardown import take_down

__all__ = [
    "Cluster",
    "Settings",
    "TestbedError",
    "TestbedUnavailable",
    "take_down",
    "unavailable_reason",
]
