"""The command, its callbacks and what it says."""
