"""Show what an augmentation does: `python -m fmbench.preview` writes a picture of it."""
