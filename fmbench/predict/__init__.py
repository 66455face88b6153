"""Use a trained model: load it, and classify pictures with it.

`python -m fmbench.predict` is the command, `fmbench.load_model` the way from Python.
"""
