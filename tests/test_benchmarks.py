"""The benchmarks run and compare like with like; what they measure is no test's business."""

import importlib
import json
import re

import pytest
import torch
from commands import CHECKOUT

FOLDER = CHECKOUT / "benchmarks"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py") if "__main__" in path.read_text("utf-8"))


@pytest.fixture
def augment(monkeypatch):
    monkeypatch.syspath_prepend(CHECKOUT)
    return importlib.import_module("benchmarks.augment")


def test_each_script_has_one_command_in_the_readme_and_opens_with_it():
    page = (FOLDER / "README.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `(\w+)\.py` \|.*\| `(.*)` \|$", page, re.MULTILINE))
    assert sorted(rows) == SCRIPTS
    for name, command in rows.items():
        assert command == f"python -m benchmarks.{name}"
        assert f"\n    {command}" in (FOLDER / f"{name}.py").read_text("utf-8")


def test_augment_measures_every_case_and_keeps_the_numbers(augment, tmp_path, capsys):
    small = ["--images=300", "--subset=20", "--repeats=2", "--batch-size=10"]
    augment.main([*small, f"--json={tmp_path / 'a.json'}"])
    found = json.loads((tmp_path / "a.json").read_text("utf-8"))
    assert found["threads"] == 1
    out = capsys.readouterr().out
    assert "300 images of random pixels (20 for torchvision)" in out
    options = [path.stem for path in (CHECKOUT / "conf" / "augmentation").glob("*.yaml")]
    for name in ["bare copy", *(f"fmbench, {option}" for option in options)]:
        assert name in out
        assert found["results"][name]["count"] == 2
    over = found["results"]["fmbench, crop_flip: over torchvision"]
    assert over["median"] > 0


@pytest.mark.parametrize("name", ["fmbench, crop_flip", "torchvision, crop_flip"])
def test_augment_goes_through_every_image_once(augment, name):
    images, labels = torch.zeros(30, 28, 28, dtype=torch.uint8), torch.arange(30)
    batches = list(augment.loaders(images, labels, batch_size=7, subset=30)[name](0))
    assert [len(pixels) for pixels, _ in batches] == [7, 7, 7, 7, 2]
    assert sorted(torch.cat([labels for _, labels in batches]).tolist()) == list(range(30))
    chosen = augment.contenders(images, labels, batch_size=7, subset=20)
    assert chosen[name]() == (20 if "torchvision" in name else 30)
    assert chosen["bare copy"]() == 30


def test_augment_compares_like_with_like(augment):
    """Without parts, both ways make the same floats of the same image."""
    images = torch.randint(0, 256, (9, 28, 28), dtype=torch.uint8)
    chosen = augment.loaders(images, torch.arange(9), batch_size=4, subset=9)
    floats = []
    for name in ("fmbench, none", "torchvision, none"):
        batches = list(chosen[name](0))
        order = torch.cat([labels for _, labels in batches]).argsort()
        floats.append(torch.cat([pixels for pixels, _ in batches])[order])
    torch.testing.assert_close(*floats)
