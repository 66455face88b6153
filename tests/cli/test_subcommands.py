"""`fmbench SUBCOMMAND` does what `python -m fmbench.SUBCOMMAND` does, and nothing of Hydra."""

from importlib import import_module, metadata

import pytest
from records import write

from fmbench.__main__ import SUBCOMMANDS, main

pytestmark = pytest.mark.usefixtures("no_pictures")

#: A command, its exit status, and a part of what it says.
TABLE = [
    (["report", "--help"], 0, "usage: python -m fmbench.report"),
    (["report", "runs"], 0, "2 of 2 runs completed."),
    (["report", "nowhere"], 2, "fmbench.report: nowhere is not a folder"),
    (["compare", "--help"], 0, "usage: python -m fmbench.report compare"),
    (["compare", "1", "2", "runs"], 0, "A: lenet, batch size 10"),
    (["compare", "1", "9", "runs"], 2, "fmbench.report: "),
    (["preview", "--help"], 0, "usage: python -m fmbench.preview"),
    (["preview", "data=synthetic", "--images", "1", "--draws", "1"], 0, "preview.png"),
    (["preview", "seed=0,1"], 2, "fmbench.preview: seed=0,1: a picture shows one run's images"),
    (["predict", "--help"], 0, "usage: python -m fmbench.predict"),
    (["predict", "nowhere", "a.png"], 2, "fmbench.predict: nowhere is not a folder"),
]


@pytest.mark.parametrize(("words", "status", "part"), TABLE, ids=[" ".join(t[0]) for t in TABLE])
def test_a_subcommand_is_its_module(command, tmp_path, words, status, part):
    write(tmp_path / "runs" / "a", batch_size=10)
    write(tmp_path / "runs" / "b", batch_size=20)
    said = command(*words, main=main)
    assert said[0] == status, said
    assert part in said[1] + said[2]
    module = import_module(SUBCOMMANDS[words[0]])
    rest = words if words[0] == "compare" else words[1:]
    assert command(*rest, main=module.main) == said


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_help_names_every_subcommand(command, name):
    assert f"\n  {name} " in command("--help", main=main)[1]


@pytest.mark.parametrize(("words", "said"), [
    (["outputs"], "outputs: is no KEY=VALUE, as epochs=3 is"),
    (["epochs=3", "report"], "report: is no KEY=VALUE"),
    (["Report"], "Report: is no KEY=VALUE"),
    (["train"], "train: is no KEY=VALUE"),
])  # fmt: skip
def test_another_word_is_refused_in_one_line(command, tmp_path, words, said):
    status, out, err = command(*words, main=main)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert said in err
    assert "report, compare, preview, predict" in err
    assert list(tmp_path.iterdir()) == []


def test_scripts_start_the_same():
    scripts = {s.name: s.value for s in metadata.entry_points(group="console_scripts")}
    assert scripts["fmbench"] == "fmbench.__main__:main"
    for name in ("report", "preview", "predict"):
        assert scripts[f"fmbench-{name}"] == f"{SUBCOMMANDS[name]}:main"
