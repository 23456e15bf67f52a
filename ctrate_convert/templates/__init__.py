"""The files that `init` writes; in the checkout they are those of ``config/`` and ``slurm/``."""
