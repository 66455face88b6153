"""Searches: study, pruning, the loop, the best run."""
