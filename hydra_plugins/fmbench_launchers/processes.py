"""`hydra/launcher=processes`, also called `joblib`, where Hydra discovers it."""

from fmbench.launch.drive import ExecutorLauncher
from fmbench.launch.processes import Processes


class ProcessLauncher(ExecutorLauncher):
    """Several processes of this machine."""

    executor_type = Processes
