"""The former place of `fmbench.records.reader`."""

from fmbench.records.reader import load_results, read_history, read_results

__all__ = ["load_results", "read_history", "read_results"]
