"""Submit a plan to Slurm, watch its tasks, and relaunch those that failed."""
