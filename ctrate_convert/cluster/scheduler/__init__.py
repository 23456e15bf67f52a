"""Ask Slurm and submit to it: its commands, their output as typed rows, limits, resources."""
