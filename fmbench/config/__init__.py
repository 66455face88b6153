"""Configs: the keys and their meaning, checks, overrides, what a config may build."""
