"""`hydra/launcher=ray`, where Hydra discovers it."""

from fmbench.launch import ray


class RayLauncher(ray.RayLauncher):
    """Tasks of Ray."""
