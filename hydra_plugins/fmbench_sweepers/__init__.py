"""Hydra's sweepers where the stock ones fall short."""
