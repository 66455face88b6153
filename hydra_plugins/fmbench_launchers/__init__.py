"""The launchers that Hydra discovers; their logic is in `fmbench.launch`."""
