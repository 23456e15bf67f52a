"""The state of every task, from records, attempts, submissions and what Slurm says."""
