"""`fmbench new DIR`: a folder with a method of each kind that can be one's own."""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from fmbench.core.console import Parser, printed, run_command, say, typed_path
from fmbench.core.errors import ConfigError
from fmbench.core.files import storage_error, write_whole

PROGRAM = "fmbench new"

#: What the folder is a copy of; docs/extend.md shows the same files.
TEMPLATE = Path(__file__).parent / "template"

DESCRIPTION = """\
Make a folder for methods of your own: a small Python package with a model, an optimizer, a
schedule, a loss, a transform of images and an average of weights, an option for each, a
test, and a README with the commands."""

EXAMPLES = """\
examples:
  fmbench new research && cd research
  FMBENCH_TRUST=mine python -m fmbench --config-dir options optimizer=sign_sgd

exit status:
  0  made                             2  DIR has something in it, or a wrong option
  5  it could not be written
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Make the folder, then exit with the status that `--help` explains."""
    run_command(PROGRAM, lambda: _new(_parser().parse_args(argv).folder), typed=argv is None)


def make(folder: Path) -> list[Path]:
    """Copy the template into a folder that is not there, or empty; returns the files, sorted.

    Raises:
        ConfigError: something is there.
        StorageError: a file could not be written.
    """
    made = []
    try:
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"{folder}: is a file; give a folder that is not there, or empty")
        if folder.exists() and any(folder.iterdir()):
            raise ConfigError(f"{folder}: is not empty; give a folder that is not there, or empty")
        for source in sorted(TEMPLATE.rglob("*")):
            if source.is_file() and "__pycache__" not in source.parts:
                made.append(folder / source.relative_to(TEMPLATE))
                made[-1].parent.mkdir(parents=True, exist_ok=True)
                write_whole(made[-1], source.read_bytes())
    except OSError as error:
        raise storage_error(folder, error) from error
    return made


def _new(folder: Path) -> int:
    make(folder)
    there = shlex.quote(str(folder))
    begin = f"cd {there} && export FMBENCH_TRUST=mine"
    return printed(PROGRAM, lambda: say(f"{folder}: {begin}; README.md has the commands"))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(PROGRAM, DESCRIPTION, EXAMPLES)
    text = "a folder that is not there, or empty"
    parser.add_argument("folder", type=typed_path, metavar="DIR", help=text)
    return parser
