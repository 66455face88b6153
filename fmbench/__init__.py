"""fmbench: the sweep and benchmark harness for Fashion-MNIST classifiers."""

__version__ = "0.1.0"
