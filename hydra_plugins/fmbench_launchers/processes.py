"""`hydra/launcher=joblib`, where Hydra discovers it."""

from fmbench.launch import processes


class ProcessLauncher(processes.ProcessLauncher):
    """Several processes of this machine."""
