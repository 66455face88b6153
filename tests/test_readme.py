"""The README's commands must be commands: each is taken apart and composed, or checked, here."""

import importlib
import re
import shlex
from functools import lru_cache

import hydra
import pytest
import yaml
from commands import CHECKOUT
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser

from fmbench.config import augmentation, schema
from fmbench.config import checks as configuration
from fmbench.predict.__main__ import _parser as predict_parser
from fmbench.preview import __main__ as preview
from fmbench.report.__main__ import _compare_parser as compare_parser
from fmbench.report.__main__ import _parser as report_parser
from fmbench.report.table.view import View, check

README = (CHECKOUT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
PAGES = [README, *(path.read_text("utf-8") for path in CHECKOUT.glob("docs/**/*.md"))]


def commands(prefix):
    """All uses of a command in code blocks and between backticks, as lists of arguments."""
    found = set()
    for page in PAGES:
        code = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
        code += re.findall(r"`([^`\n]+)`", page)
        for line in "\n".join(code).replace("\\\n", " ").splitlines():
            for part in line.split("&&"):
                if part.strip().startswith(prefix):
                    found.add(part.strip().removesuffix("&"))
    return [shlex.split(line.removeprefix(prefix), comments=True) for line in sorted(found)]


OTHERS = ([".predict"], [".preview"], [".report"])
RUNS = [
    arguments
    for arguments in commands("python -m fmbench")
    if arguments[:1] not in OTHERS and "--config-dir" not in arguments
]
PREVIEWS = commands("python -m fmbench.preview")


@pytest.fixture
def loader():
    configuration.register()
    with hydra.initialize_config_dir(str(configuration.CONFIG_DIR)):
        yield GlobalHydra.instance().config_loader()


def test_it_opens_with_what_it_is_a_picture_and_two_commands():
    picture = README.index("](docs/images/")
    assert README.startswith("# fmbench\n\nThe sweep and benchmark harness")
    assert picture < README.index("```sh")
    first, second = BLOCKS[:2]
    for block in (first, second):
        assert block.count("\n") == 1
        assert block.startswith("python3 -m venv .venv && . .venv/bin/activate && pip install -c ")
    assert first.rstrip().endswith("epochs=3 evaluation.every=1")
    assert "data=synthetic" in first
    assert second.rstrip().endswith("python -m pytest")


def test_ci_runs_the_first_two_blocks():
    script = (CHECKOUT / ".ci" / "run").read_text("utf-8")
    assert "readme_block 1" in script
    assert "readme_block 2" in script


@pytest.mark.parametrize("arguments", RUNS, ids=" ".join)
def test_runs_compose(loader, arguments):
    overrides = [argument for argument in arguments if argument not in ("-m", "--help", "--plan")]
    assert not any(argument.startswith("-") for argument in overrides)
    parsed = OverridesParser.create(config_loader=loader).parse_overrides(overrides)
    assert "-m" in arguments or not any(override.is_sweep_override() for override in parsed)
    for place in (0, -1):  # the first and the last run of a sweep
        texts = []
        for override in parsed:
            if override.is_discrete_sweep():
                value = list(override.sweep_string_iterator())[place]
                texts.append(f"{override.get_key_element()}={value}")
            elif not override.is_sweep_override():
                texts.append(override.input_line)
        check_composed(tuple(texts))


@lru_cache  # the runs of a command without a sweep are one
def check_composed(overrides):
    configuration.check(configuration.resolve(hydra.compose("config", list(overrides))))


def test_there_are_commands_to_check():
    assert len(RUNS) >= 6
    assert ["model=densenet", "data.split=custom"] in RUNS
    assert ["augmentation=crop_flip_cutout"] in PREVIEWS


@pytest.mark.parametrize("arguments", commands("python -m fmbench.report"), ids=" ".join)
def test_reports_parse(arguments):
    if arguments[:1] == ["compare"]:
        compare_parser().parse_args(arguments[1:])
        return
    said = report_parser().parse_args(arguments)
    check(View(said.filter, tuple(filter(None, said.group_by.split(","))), said.metric, said.sort))


@pytest.mark.parametrize("arguments", PREVIEWS, ids=" ".join)
def test_previews_compose(arguments):
    parsed = preview._arguments(arguments)
    config, _ = preview.compose(parsed.overrides, parsed.config_dir)
    configuration.check(config)


@pytest.mark.parametrize("arguments", commands("python -m fmbench.predict"), ids=" ".join)
def test_predictions_parse_and_follow_a_run_that_keeps_its_model_there(arguments):
    folder = predict_parser().parse_args(arguments).run_folder
    assert any({"keep_model=true", f"hydra.run.dir={folder}"} <= set(run) for run in RUNS)


def test_groups_and_options_named_are_those_there_are():
    rows = dict(re.findall(r"^\| `([\w.]+)` \| (.*) \|$", README, re.MULTILINE))
    for group in (*configuration.GROUPS, "logger"):
        named = set(re.findall(r"`(\w+)`", rows[group]))
        # `--help` names all of them.
        assert named <= {path.stem for path in (CHECKOUT / "conf" / group).glob("*.yaml")}, group


def test_the_parts_of_an_augmentation_and_their_numbers_are_those_there_are():
    section = README.partition("### Augmentation")[2].partition("\n### ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| .* \| (.*) ?\|$", section, re.MULTILINE))
    assert list(rows) == list(vars(augmentation.Parts()))
    for name, cell in rows.items():
        if name in ("alternating_flip", "own"):  # without numbers
            assert not cell
            continue
        numbers = "\n".join(re.findall(r"`([^`]*)`", cell))
        assert augmentation.read({name: yaml.safe_load(numbers)}) == augmentation.read(
            {name: {}}
        ), name
        assert len(yaml.safe_load(numbers)) == len(
            vars(getattr(augmentation.read({name: {}}), name))
        )


def test_experiments_are_named():
    table = "\n".join(re.findall(r"^\| `experiment=\w+` .*", README, re.MULTILINE))
    named = set(re.findall(r"`experiment=(\w+)`", table))
    assert named == {path.stem for path in (CHECKOUT / "conf" / "experiment").glob("*.yaml")}


def test_experiments_stand_with_their_published_figures():
    for path in (CHECKOUT / "conf" / "experiment").glob("*.yaml"):
        said = yaml.safe_load(path.read_text("utf-8"))
        (row,) = re.findall(rf"^\| `experiment={path.stem}` (.*)", README, re.MULTILINE)
        assert f"{said['epochs']} epochs of batch {said['batch_size']} " in row
        accuracy, seconds = (said["reference"][name] for name in ("accuracy", "seconds"))
        if seconds is not None:
            value, unit = re.search(r"(?:about )?([\d.]+) (min|h), GTX", row).groups()
            assert float(value) == round(seconds / {"min": 60, "h": 3600}[unit], unit == "h")
        assert ("curves only" if accuracy is None else f"{accuracy:.2%}".replace("%", " %")) in row


def test_ready_sweeps_are_named():
    (row,) = re.findall(r"^\| `sweep` .*", README, re.MULTILINE)
    for path in (CHECKOUT / "conf" / "sweep").glob("*.yaml"):
        assert f"`{path.stem}`" in row


def test_links_and_pictures_are_there():
    for page in [CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
            if not target.startswith("http"):
                assert (CHECKOUT / target).is_file(), target


def test_the_reference_of_the_keys_is_what_the_program_goes_by(monkeypatch):
    monkeypatch.syspath_prepend(str(CHECKOUT / "scripts"))
    page = importlib.import_module("configuration")
    assert page.PAGE.read_text("utf-8") == page.page(), "run python scripts/configuration.py"
    assert set(schema.defaults()) > {"epochs", "evaluation.every", "sweep.trials"}
    for name in schema.defaults():
        assert f"| `{name}` |" in page.page()
