"""What holds for the whole tree; `lint-imports` holds the layers."""

import ast
import json
import re

from commands import CHECKOUT, python
from records import write

PACKAGE = CHECKOUT / "fmbench"


#: What one process does, step by step, and what it must not have imported by then.
STEPS = [
    ("import fmbench", "hydra numpy omegaconf pandas torch"),
    ("call('cli.status', '--help')", "hydra numpy omegaconf pandas torch"),
    ("call('cli.status', 'runs')", "hydra numpy omegaconf pandas torch"),
    ("call('report.__main__', '--help')", "hydra numpy omegaconf pandas torch"),
    ("call('cli.main', '--version')", "matplotlib optuna pandas torch torchvision"),
    ("call('cli.main', '--help')", "matplotlib optuna pandas torch torchvision"),
    ("call('cli.main', '--cfg', 'job')", "matplotlib optuna pandas torch torchvision"),
    ("call('preview.__main__', '--help')", "matplotlib pandas torch torchvision"),
    ("call('predict.__main__', '--help')", "matplotlib pandas torch torchvision"),
    ("from fmbench import report", "pandas torch"),
    ("import fmbench.report.second", "matplotlib pandas torch"),
    ("import fmbench.config.checks, fmbench.config.trust", "torch torchvision"),
    ("import fmbench.data.splits, fmbench.models", "torch torchvision"),
    ("import fmbench.records.folder, fmbench.records.reader", "torch torchvision"),
    ("import fmbench.records.trials, fmbench.stats", "torch torchvision"),
    ("import fmbench.report.__main__, fmbench.report.render.html", "torch torchvision"),
    ("made = report.build([Path('runs')], Path('empty'))", "matplotlib optuna torch"),
    ("report.print_tables(made)", "matplotlib optuna torch"),
    ("from fmbench.report.figures import figures", "matplotlib torch"),
    ("made = report.build([Path('with_history')])", "matplotlib torch"),
    ("drawn = figures(made.sections, made.searches)", "matplotlib torch"),
    ("assert next(drawn) and 'matplotlib' in sys.modules", "optuna torch"),
    ("import fmbench.cli, fmbench.runs.run, fmbench.tracking", "mlflow tensorboard"),
]

PROCESS = """
import importlib, json, sys
from pathlib import Path

def call(module, *arguments):
    sys.argv = ["fmbench", *arguments]
    try:
        importlib.import_module("fmbench." + module).main()
    except SystemExit as ended:
        assert not ended.code, ended.code

loaded = []
for step in json.loads(sys.argv[1]):
    exec(step)
    loaded.append(list({name.partition(".")[0] for name in sys.modules}))
Path("loaded.json").write_text(json.dumps(loaded))
"""


def test_nothing_is_imported_before_it_is_used(tmp_path):
    """As a process has it: `lint-imports` follows the imports that stand in the code."""
    write(tmp_path / "runs")
    write(tmp_path / "with_history")
    lines = [json.dumps({"epoch": epoch, "train_loss": 0.5}) for epoch in range(2)]
    (tmp_path / "with_history" / "history.jsonl").write_text("\n".join(lines), "utf-8")
    before = {path.name for path in tmp_path.iterdir()}
    steps = json.dumps([step for step, _ in STEPS])
    done = python("-W", "error", "-c", PROCESS, steps, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    loaded = json.loads((tmp_path / "loaded.json").read_text("utf-8"))
    for (step, heavy), there in zip(STEPS, loaded, strict=True):
        assert not set(heavy.split()) & set(there), step
    assert {path.name for path in tmp_path.iterdir()} - before == {"empty", "loaded.json"}


def test_the_map_names_every_room():
    guide = (CHECKOUT / "CONTRIBUTING.md").read_text("utf-8")
    table = "\n".join(line for line in guide.splitlines() if line.startswith("| `"))
    named = set(re.findall(r"`(?:fmbench/)?(\w+)(?:\.py|/)`", table))
    there = {path.stem for path in PACKAGE.iterdir() if not path.name.startswith("_")}
    assert there - {"results", "schedule"} <= named


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


def test_every_test_that_reliability_names_is_there():
    named = re.findall(
        r"(?:`|::)(test_\w+)`", (CHECKOUT / "docs/reliability.md").read_text("utf-8")
    )
    texts = (path.read_text("utf-8") for path in (CHECKOUT / "tests").rglob("test_*.py"))
    there = re.findall(r"^def (test_\w+)", "\n".join(texts), re.MULTILINE)
    assert len(named) > 50
    assert not set(named) - set(there)


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
