"""`hydra/launcher=submitit_slurm`, where Hydra discovers it."""

from fmbench.launch.drive import ExecutorLauncher
from fmbench.launch.submitit import Slurm


class SlurmLauncher(ExecutorLauncher):
    """Jobs of Slurm, submitted by submitit."""

    executor_type = Slurm
