"""Where the runs of a sweep run: this machine's processes, Slurm, Ray."""
