"""The wheel: it must work in a folder that has nothing of the checkout. And what pip installs."""

import re
import runpy
import shlex
import subprocess
import sys
import tomllib
import venv
import zipfile
from itertools import chain
from pathlib import Path

import pytest
from commands import CHECKOUT, TINY, python, records
from packaging.requirements import Requirement

from fmbench import __version__
from fmbench.core import errors

PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))["project"]

#: What PyPI has under the name that this project had: another tool, of others.
STRANGER = "fmbench"


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory) -> Path:
    """A folder with the wheel's content, as an installer would lay it out."""
    pytest.importorskip("hatchling", reason="the build backend, of the extra test")
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
    assert [path.name for path in unpacked.glob("*.dist-info")] == [
        f"fmbench_harness-{__version__}.dist-info"
    ]
    for source in (CHECKOUT / "conf").rglob("*.yaml"):
        packed = unpacked / "fmbench" / "conf" / source.relative_to(CHECKOUT / "conf")
        assert packed.read_bytes() == source.read_bytes()
    for name in ("page.html.j2", "page.css", "page.js"):
        assert (unpacked / "fmbench" / "report" / "render" / name).is_file()
    tops = {path.name for path in unpacked.iterdir() if not path.name.endswith(".dist-info")}
    assert tops == {"fmbench", "hydra_plugins"}
    assert not (unpacked / "hydra_plugins" / "__init__.py").exists()  # others' plugins live there
    (metadata,) = unpacked.glob("*.dist-info")
    scripts = (metadata / "entry_points.txt").read_text()
    assert "fmbench = fmbench.__main__:main" in scripts
    assert "fmbench-preview = fmbench.preview.__main__:main" in scripts
    assert "fmbench-predict = fmbench.predict.__main__:main" in scripts
    assert "fmbench-report = fmbench.report.__main__:main" in scripts


def test_extras_that_name_the_project_name_it_as_it_is_called():
    extras = PROJECT["optional-dependencies"]
    named = {Requirement(text).name for texts in extras.values() for text in texts}
    assert PROJECT["name"] in named
    assert STRANGER not in {PROJECT["name"], *named}


def test_messages_name_the_packages_that_the_extras_have():
    extras = PROJECT["optional-dependencies"]
    assert set(errors.PACKAGES) == set(extras) - {"test", "dev"}
    for extra, packages in errors.PACKAGES.items():
        assert list(packages) == extras[extra]
        command = errors.installs(extra)
        assert shlex.split(command) == ["pip", "install", *packages]


def test_no_line_tells_people_to_install_what_a_stranger_has_published():
    folders = ("fmbench", "hydra_plugins", "conf", "docs", "tests", "scripts", "benchmarks", ".ci")
    files = [path for folder in folders for path in (CHECKOUT / folder).rglob("*")]
    files += CHECKOUT.glob("*.*")
    kinds = {".py", ".md", ".yaml", ".toml", ".txt", ".j2", ".js", ""}
    old = re.compile(rf"{STRANGER}\[\w|(pip|uv) (install|add) [^\n&;]*['\" ]{STRANGER}(?![-\w])")
    for path in files:
        if path.suffix in kinds and path.is_file():
            found = old.search(path.read_text("utf-8"))
            assert found is None, f"{path}: {found and found.group()}"


def empty_wheel(folder: Path, requirement: Requirement) -> None:
    """A wheel with nothing in it, which satisfies a requirement in pip's eyes."""
    lowest = [one.version for one in requirement.specifier if one.operator in (">=", "==")]
    name, version = requirement.name, [*lowest, "1"][0]
    stem = f"{re.sub('[-_.]+', '_', name)}-{version}"
    about = {
        "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
        for file, text in about.items():
            wheel.writestr(f"{stem}.dist-info/{file}", text)


@pytest.mark.slow
def test_a_fresh_environment_with_the_tests_extra_has_nothing_of_the_strangers(unpacked, tmp_path):
    """pip installs the wheel for real; what it depends on are empty wheels, a stranger's beside."""
    extras = PROJECT["optional-dependencies"]
    for text in (*PROJECT["dependencies"], *chain(*extras.values()), STRANGER):
        if not text.startswith(PROJECT["name"]):
            empty_wheel(tmp_path, Requirement(text))
    (wheel,) = unpacked.parent.glob("*.whl")
    venv.create(tmp_path / "venv")
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", tmp_path / "venv" / "bin" / "python", "install",
         "--no-index", "--find-links", tmp_path, "--no-cache-dir", f"{wheel}[test]"],
        check=True,
    )  # fmt: skip
    found = (tmp_path / "venv").glob("lib/python*/site-packages/*.dist-info")
    names = {path.name.partition("-")[0] for path in found}
    assert {"fmbench_harness", "pytest", "cloudpickle", "psycopg"} <= names
    assert STRANGER not in names


def test_an_older_python_is_told_what_it_lacks(monkeypatch):
    """By pip too, which reads the version out of this file before it looks at constraints."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))
    version = project["tool"]["hatch"]["version"]
    assert version == {"source": "code", "path": "fmbench/_version.py"}
    assert PROJECT["requires-python"] == ">=3.11"
    monkeypatch.setattr(sys, "version_info", (3, 10, 13))
    monkeypatch.setattr(sys, "version", "3.10.13 (main)")
    with pytest.raises(SystemExit) as raised:
        runpy.run_path(str(CHECKOUT / version["path"]))
    assert str(raised.value) == "fmbench needs Python 3.11 or newer; this is 3.10.13"


def test_constraints_hold_names_and_versions_only():
    lines = (CHECKOUT / "constraints.txt").read_text("utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(line.count("==") == 1 and "/" not in line and "@" not in line for line in pins)
    assert any(line.startswith("torch==") for line in pins)
