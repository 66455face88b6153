"""What a run is told: the keys and what they mean, checks, overrides, what a config may start."""
