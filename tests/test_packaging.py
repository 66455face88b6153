"""The wheel: it must work in a folder that has nothing of the checkout."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from commands import CHECKOUT, TINY, python, records

from fmbench import config as configuration


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory) -> Path:
    """A folder with the wheel's content, as an installer would lay it out."""
    pytest.importorskip("hatchling", reason="the build backend, of the extra fmbench[test]")
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder],
        cwd=CHECKOUT,
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.mark.slow
def test_wheel_runs_elsewhere_with_its_own_conf(unpacked, tmp_path):
    done = python(
        "-m", "fmbench", *TINY, "epochs=1", cwd=tmp_path, environment={"PYTHONPATH": str(unpacked)}
    )
    assert done.returncode == 0, done.stderr
    (record,) = records(tmp_path)
    assert record["git"] is None  # no checkout, no commit


def test_wheel_holds_all_options_and_nothing_of_the_checkout(unpacked):
    for source in (CHECKOUT / "conf").rglob("*.yaml"):
        packed = unpacked / "fmbench" / "conf" / source.relative_to(CHECKOUT / "conf")
        assert packed.read_bytes() == source.read_bytes()
    for name in ("page.html.j2", "page.css", "page.js"):
        assert (unpacked / "fmbench" / "report" / "page" / name).is_file()
    tops = {path.name for path in unpacked.iterdir() if not path.name.endswith(".dist-info")}
    assert tops == {"fmbench", "hydra_plugins"}
    assert not (unpacked / "hydra_plugins" / "__init__.py").exists()  # others' plugins live there
    (metadata,) = unpacked.glob("*.dist-info")
    scripts = (metadata / "entry_points.txt").read_text()
    assert "fmbench = fmbench.__main__:main" in scripts
    assert "fmbench-preview = fmbench.preview:main" in scripts
    assert "fmbench-predict = fmbench.predict:main" in scripts
    assert "fmbench-report = fmbench.report.__main__:main" in scripts


def test_checkout_uses_the_conf_that_stands_beside_the_package():
    assert Path(configuration.CONFIG_DIR) == CHECKOUT / "conf"


def test_constraints_hold_names_and_versions_only():
    lines = (CHECKOUT / "constraints.txt").read_text("utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(line.count("==") == 1 and "/" not in line and "@" not in line for line in pins)
    assert any(line.startswith("torch==") for line in pins)


def test_folders_of_runs_are_kept_empty():
    ignored = (CHECKOUT / ".gitignore").read_text("utf-8")
    assert "/outputs/*" in ignored
    assert (CHECKOUT / "multirun" / ".gitkeep").is_file()
    hooks = yaml.safe_load((CHECKOUT / ".pre-commit-config.yaml").read_text("utf-8"))
    assert {hook["id"] for hook in hooks["repos"][0]["hooks"]} >= {"ruff-check", "mypy"}
