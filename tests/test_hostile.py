"""Nothing hostile in a record gets out of a report."""

import csv
import os
import re
import subprocess

import pytest
from records import write
from reports import HOSTILE, build, printed, table_cells, write_hostile

from fmbench.report import columns, escape


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
    tags = set(re.findall("<[^>]*>", prose))
    assert tags == {
        *("<details>", "<summary>", "</summary>", "</details>"),
    }
    assert prose.count("</details>") == len(made.sections)
    assert "://" not in prose
    assert not re.search(r"@\w|(?<!&)#\d|www\.", prose)
    # Of a picture what stands in for it is left.
    ours = re.sub(r"!\[((?:\\.|[^\]\\])*)\]\(figures/[\w-]+\.png\)", r"\1", prose)
    ours = re.sub(r"\[[\w./-]+\]\([\w./-]+\)|\*\*", "", ours)
    assert not re.search(r"(?<!\\)(\\\\)*[`*\[\]~$]", ours)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u202e\u2028]", text)


def test_no_value_ends_the_code_block(tmp_path):
    write(tmp_path, model="x\n```\n<b>", overrides=["a=`````", "b=\n```\n<script>"])
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
    nets = {row[heading.index("model")].removeprefix("'") for row in rows}
    assert {escape.one_line(value) for value in HOSTILE} <= nets


def test_hostile_values_do_not_act_in_a_terminal(tmp_path):
    write_hostile(tmp_path)
    made = build(tmp_path)
    for text in (printed(made), printed(made, width=400)):
        assert "[red]x[/red] [/]" in text
        assert "\x1b" not in text
        assert r"\x1b[31mred" in text
        assert "\u202e" not in text


def test_one_line_cuts_and_keeps_printable_text():
    assert escape.one_line("a  b\n c") == "a b c"
    assert escape.one_line("abcdef", 3) == "abc..."
    assert escape.markdown("fashion_mnist") == "fashion_mnist"


# Controls, format marks, separators, private use, surrogates.
UNSEEN = ["\x07", "\x9b", "\u200b", "\ufeff", "\u061c", "\u00ad", "\U000e0041", "\ue000", "\ud800"]


@pytest.mark.parametrize("character", UNSEEN, ids=ascii)
def test_characters_that_are_not_seen_are_spelled_out(character):
    said = escape.one_line(f"a{character}b")
    assert said.isprintable()
    assert said.encode("ascii").decode("unicode_escape") == f"a{character}b"
    assert escape.shell_word(f"a{character}b").isprintable()
    assert escape.one_line("a\u2028b\u2029c") == "a b c"


def test_the_shell_gets_back_what_was_spelled_out():
    value = "a\u200b\U000e0041\ue000'\\ b"
    told = f'printf %s "$1" {escape.shell_word(value)}'.replace('"$1" ', "")
    environment = {"LC_ALL": "C.UTF-8", "PATH": os.environ["PATH"]}
    echoed = subprocess.run(["bash", "-c", told], capture_output=True, check=True, env=environment)
    assert echoed.stdout.decode() == value


@pytest.mark.parametrize(
    "value", ["=1", " =1", "\u00a0+1", "\uff1d1", "\uff0b1", "\uff0d1", "\uff201"]
)
def test_no_value_is_a_formula(value):
    assert escape.spreadsheet(value).startswith("'")
