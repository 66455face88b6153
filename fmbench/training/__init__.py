"""Device, step, trainer, checkpoint, cost and weights; nothing of configs and folders."""
