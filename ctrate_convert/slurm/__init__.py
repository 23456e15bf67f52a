"""The Slurm half: submit a plan, watch it, relaunch what failed. Conversion knows nothing of it."""
