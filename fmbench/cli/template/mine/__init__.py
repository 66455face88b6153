"""Methods of my own for fmbench: a module for each kind, an option for each in `options/`."""
