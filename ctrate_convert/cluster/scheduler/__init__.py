"""Ask Slurm and submit to it: commands, their output as typed rows, limits, resources."""
