"""`hydra/launcher=ray`, where Hydra discovers it."""

from fmbench.launch.drive import ExecutorLauncher
from fmbench.launch.ray import Ray


class RayLauncher(ExecutorLauncher):
    """Tasks of Ray."""

    executor_type = Ray
