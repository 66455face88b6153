"""Methods of a user's own: the folder of `fmbench new`, and docs/extend.md with the same files."""

import ast
import re
import shlex
from pathlib import Path

import pytest
import yaml
from commands import CHECKOUT, raises_one_line

import fmbench
from fmbench.cli import new
from fmbench.config.checks import CONFIG_DIR
from fmbench.core.errors import ConfigError

PAGE = (CHECKOUT / "docs" / "extend.md").read_text("utf-8")
LINE = re.compile(r"^python -m fmbench --config-dir options (.*)$", re.MULTILINE)
TRAINED = LINE.findall(PAGE)
SMALL = [
    *("data=synthetic", "data.train_size=256", "data.test_size=64", "threads=1"),
    *("epochs=1", "model=lenet5", "scheduler=constant"),
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A new folder, whose package is found first."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "research")
    monkeypatch.setenv("FMBENCH_TRUST", "mine")
    return new.make(Path("research"))


@pytest.mark.slow
@pytest.mark.parametrize("option", TRAINED)
def test_each_command_of_the_page_trains(folder, monkeypatch, option):
    monkeypatch.chdir("research")
    record = fmbench.run([*SMALL, option, "hydra.run.dir=run"], config_dir="options")
    assert (record.status, record.trust) == ("completed", "mine")
    assert record.source is not None
    assert record.choices[option.partition("=")[0]] == option.partition("=")[2]


def test_the_page_shows_the_files_of_the_folder():
    shown = dict(re.findall(r"`([\w/]+\.(?:py|yaml))`:\n\n```\w+\n(.*?)```", PAGE, re.DOTALL))
    there = [file for file in new.TEMPLATE.rglob("*") if file.suffix in (".py", ".yaml")]
    named = {file.relative_to(new.TEMPLATE).as_posix(): file.read_text("utf-8") for file in there}
    assert shown == {
        name: text
        for name, text in named.items()
        if name not in ("mine/__init__.py", "test_mine.py")
    }


def test_the_readme_of_the_folder_has_the_commands_of_the_page():
    text = (new.TEMPLATE / "README.md").read_text("utf-8")
    assert LINE.findall(text) == TRAINED


def test_there_is_an_example_of_each_kind_and_each_is_short():
    options = {file.parent.name: file for file in new.TEMPLATE.glob("options/*/*.yaml")}
    assert [f"{group}={options[group].stem}" for group in dict(map(_pair, TRAINED))] == TRAINED
    assert {group for group, _ in map(_pair, TRAINED)} == options.keys()
    for group, file in options.items():
        option = yaml.safe_load(file.read_text("utf-8"))
        target = option.get("_target_") or option["own"]["_target_"]
        assert target.split(".")[:2] == ["mine", group]
        assert not (CONFIG_DIR / group / file.name).exists()
        tree = ast.parse((new.TEMPLATE / "mine" / f"{group}.py").read_text("utf-8"))
        (made,) = (node for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef)))
        assert made.end_lineno - made.lineno < 15, group


def _pair(text):
    return tuple(text.split("="))


def test_only_an_empty_place_is_filled(folder, tmp_path):
    raises_one_line(lambda: new.make(Path("research")), ConfigError, "research: is not empty")
    Path("file").touch()
    raises_one_line(lambda: new.make(Path("file")), ConfigError, "file: is a file")
    Path("empty").mkdir()
    made = new.make(Path("empty"))
    assert [path.relative_to("empty") for path in made] == [
        path.relative_to("research") for path in folder
    ]
    assert all(path.is_file() for path in made)


def test_the_command_says_where(command, tmp_path):
    status, out, err = command("a b", main=new.main)
    assert (status, err) == (0, "")
    assert f"cd {shlex.quote('a b')} && export FMBENCH_TRUST=mine; README.md has" in out
    status, out, err = command("a b", main=new.main)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
