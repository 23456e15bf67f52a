"""Judge the state of every task by records, attempts, submissions and what Slurm says."""
