"""The version, and the oldest Python that it runs on."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - pip reads the version here, with any Python
    raise SystemExit(f"fmbench needs Python 3.11 or newer; this is {sys.version.split()[0]}")

__version__ = "0.1.0"
