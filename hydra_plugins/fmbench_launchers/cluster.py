"""`hydra/launcher=submitit_local` and `submitit_slurm`, where Hydra discovers them."""

from fmbench.launch import submitit


class LocalLauncher(submitit.LocalLauncher):
    """Processes of this machine, started by submitit."""


class SlurmLauncher(submitit.SlurmLauncher):
    """Jobs of Slurm, submitted by submitit."""
