"""The shape of the house: imports go one way, and some rooms never see torch or Hydra."""

import ast
import re

from commands import CHECKOUT

PACKAGE = CHECKOUT / "fmbench"

#: Top-level imports by module: `record` for `fmbench.record`, `torch` for torch.
IMPORTS: dict[str, set[str]] = {}
for path in PACKAGE.rglob("*.py"):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    names = IMPORTS.setdefault(room, set())
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "fmbench":
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            first, _, rest = node.module.partition(".")
            names.add(rest.partition(".")[0] if first == "fmbench" else first)

#: From the first to the last: each imports only what stands before it.
ORDER = [
    "errors", "streams", "machine", "reference", "parts", "knobs", "identity", "storage",
    "sources", "environment", "config", "overrides", "trust",
    "idx", "synthetic", "data", "splits", "augment", "loader", "models", "cost",
    "device", "schedule", "step", "checkpoint", "restore", "rehearsal", "train", "record",
    "answers", "objectives", "sweep", "schema", "trials", "study", "best", "runfolder", "stop",
    "saver", "experiment", "provenance", "usercode", "progress", "weights", "assembly", "memory",
    "trackers", "attempt", "runner",
    "results", "stats", "grid", "report", "explain", "callbacks", "summary", "cli",
    "predict", "preview", "__main__",
]  # fmt: skip


def test_every_room_has_its_place():
    assert set(IMPORTS) - {"__init__"} == set(ORDER)


def test_imports_go_one_way():
    for place, room in enumerate(ORDER):
        back = IMPORTS[room] & set(ORDER[place + 1 :])
        assert not back, f"{room} imports {back}"


def test_nets_and_training_never_see_hydra_or_the_config():
    for room in ("models", "step", "train", "loader", "augment", "schedule", "device", "cost"):
        assert not IMPORTS[room] & {"hydra", "omegaconf", "config"}, room


def test_results_report_and_grids_never_see_torch():
    for room in (
        *("results", "schema", "report", "record", "storage", "config", "parts", "sweep", "data"),
        *("grid", "trials", "answers", "stats"),
    ):
        assert not IMPORTS[room] & {"torch", "torchvision", "train", "device"}, room


def test_the_map_names_every_room():
    guide = (CHECKOUT / "CONTRIBUTING.md").read_text("utf-8")
    table = "\n".join(line for line in guide.splitlines() if line.startswith("| `"))
    named = set(re.findall(r"`(?:fmbench/)?(\w+)(?:\.py|/)`", table))
    assert set(ORDER) - {"__main__"} <= named


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
    of_checkpoints = found.pop("saver.py")
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
