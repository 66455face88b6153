"""Launchers under which one dead run does not end a sweep."""
