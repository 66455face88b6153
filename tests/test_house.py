"""What holds for the whole tree; `lint-imports` holds the layers."""

import ast
import re

from commands import CHECKOUT, python

PACKAGE = CHECKOUT / "fmbench"


def test_records_statistics_and_reports_load_no_torch():
    """As a process has it: `lint-imports` follows the imports that stand in the code."""
    modules = (
        *("config.checks", "config.trust", "records.reader", "records.folder", "records.trials"),
        *("stats", "report.__main__", "report.render.html"),
    )
    code = "; ".join(f"import fmbench.{name}" for name in modules)
    code += "; import sys; print({'torch', 'torchvision'} & set(sys.modules))"
    assert python("-c", code, cwd=CHECKOUT).stdout == "set()\n"


def test_the_map_names_every_room():
    guide = (CHECKOUT / "CONTRIBUTING.md").read_text("utf-8")
    table = "\n".join(line for line in guide.splitlines() if line.startswith("| `"))
    named = set(re.findall(r"`(?:fmbench/)?(\w+)(?:\.py|/)`", table))
    there = {path.stem for path in PACKAGE.iterdir() if not path.name.startswith("_")}
    assert there - {"schedule"} <= named


def test_nobody_is_advised_to_delete_what_fmbench_did_not_write():
    advice = re.compile(r"; (remove|delete)\b|\b(or|and) (remove|delete) ")
    found = {}
    for path in [*PACKAGE.rglob("*.py"), *(CHECKOUT / "hydra_plugins").rglob("*.py")]:
        texts = (
            node.value
            for node in ast.walk(ast.parse(path.read_text("utf-8")))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        )
        found[path.name] = [text for text in texts if advice.search(text) and "\n" not in text]
    # A checkpoint opens with fmbench's own mark and has the SHA-256 of what was written.
    of_checkpoints = found.pop("checkpointing.py")
    assert len(of_checkpoints) == 2
    assert not any(found.values()), found


def test_every_promise_of_security_has_its_tests():
    """What docs/security.md names is there, and each promise of SECURITY.md stands in a row."""
    table = (CHECKOUT / "docs/security.md").read_text("utf-8")
    named = set(re.findall(r"`([\w/]+\.py)::(test_\w+)`", table))
    there = {
        (file, name)
        for file in {file for file, _ in named}
        for name in re.findall(
            r"^def (test_\w+)", (CHECKOUT / "tests" / file).read_text("utf-8"), re.MULTILINE
        )
    }
    assert len(named) > 50
    assert not named - there
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| ")][2:]
    assert {len(row) for row in rows} == {5}
    assert all("::test_" in tests for *_, tests in rows)
    shown = {number for *_, numbers, _ in rows for number in numbers.split(", ")}
    promises = re.findall(
        r"^(\d+)\. \*\*", (CHECKOUT / "SECURITY.md").read_text("utf-8"), re.MULTILINE
    )
    assert shown == set(promises)
