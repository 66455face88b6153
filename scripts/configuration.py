"""Write docs/configuration.md, the reference of the config's keys, from `fmbench.config.schema`.

python scripts/configuration.py
"""

from collections.abc import Iterator
from pathlib import Path

from fmbench.config import schema

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"

START = """\
# The keys of a config

Written by `python scripts/configuration.py` from `fmbench/config/schema.py`, which is also what
fmbench goes by. The other keys are those of the option that is chosen from each group
(`model.depth`, `scheduler.warmup`); the file of the option in `conf/` lists and explains them, and
`--cfg job` prints all that a run would have.

Decides:

- *the result*: what is computed. It is part of a run's identity: runs with another value are
  another row of the table. Runs that differ in the seed alone are one row.
- *the hardware*: where and how it is computed. It is recorded, and such runs are another row too.
- *what is kept*: what is evaluated and left in the folder; runs that differ in it share a row.
- *no part of the run*: the sweep, trackers, where files are. No record keeps it.

"May change" are keys that may have another value when an interrupted run or search is resumed.

| key | default | meaning | decides | may change |
| --- | --- | --- | --- | --- |
"""

ROLES = {
    "result": "the result",
    "hardware": "the hardware",
    "kept": "what is kept",
    "around": "no part of the run",
}


def page() -> str:
    """The text of the page."""
    return START + "".join(f"{line}\n" for line in _rows())


def _rows() -> Iterator[str]:
    defaults = schema.defaults()
    for name, key in schema.KEYS.items():
        if name in defaults or key.example:
            default = f"`{schema.as_yaml(defaults[name])}`" if name in defaults else ""
            allowed = f": {_bounds(key)}" if _bounds(key) else ""
            change = "yes" if key.resumes else "no"
            yield (f"| `{name}` | {default} | {key.help}{allowed} | {ROLES[key.role]} | {change} |")


def _bounds(key: schema.Key) -> str:
    least, most = key.least, key.most
    if least is not None and most is not None:
        return f"{least:,} to {most:,}"
    if least is not None and key.below is not None:
        return f"at least {least}, below {key.below}"
    return "" if least is None else f"{least} or more"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
