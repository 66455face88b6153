"""Write the table of docs/configuration.md, of the config's keys, from `fmbench.config.schema`.

python scripts/configuration.py
"""

from pathlib import Path

from fmbench.config import schema
from fmbench.config.keys import Key

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"
HEAD = "| --- | --- | --- | --- | --- |\n"

ROLES = {
    "result": "the result",
    "hardware": "the hardware",
    "kept": "what is kept",
    "sweep": "no part of the run",
    "around": "no part of the run",
}


def page() -> str:
    """The text of the page, with the words above the table that it has now."""
    words, _, _ = PAGE.read_text("utf-8").partition(HEAD)
    rows, defaults = [], schema.defaults()
    for name, key in schema.KEYS.items():
        if name in defaults or key.example:
            default = f"`{schema.as_yaml(defaults[name])}`" if name in defaults else ""
            meaning = ": ".join(filter(None, [key.help, _bounds(key)]))
            change = "yes" if key.resumes else "no"
            rows.append(f"| `{name}` | {default} | {meaning} | {ROLES[key.role]} | {change} |\n")
    return "".join([words, HEAD, *rows])


def _bounds(key: Key) -> str:
    if key.least is None:
        return ""
    if key.below is not None:
        return f"at least {key.least}, below {key.below}"
    return f"{key.least:,} or more" if key.most is None else f"{key.least:,} to {key.most:,}"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
