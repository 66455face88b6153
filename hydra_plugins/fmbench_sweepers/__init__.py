"""The sweepers that Hydra discovers; their logic is in `fmbench.search`."""
