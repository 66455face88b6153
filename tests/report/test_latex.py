"""The LaTeX tables: their structure, escapes, and that LaTeX takes them where it is installed."""

import re
import shutil
import subprocess

import pytest
from records import write
from reports import build, write_hostile

from fmbench.report.render.latex import escape


def rows_of(text: str) -> list[list[str]]:
    """The cells of the first table's rows, its heading first."""
    inside = text.partition("\\toprule\n")[2].partition("\\bottomrule")[0]
    lines = [line for line in inside.splitlines() if line != "\\midrule"]
    assert all(line.endswith(" \\\\") for line in lines)
    return [re.split(r"(?<!\\) & ", line.removesuffix(" \\\\")) for line in lines]


@pytest.fixture
def runs(tmp_path):
    for model, mean in (("resnet_18", 0.930), ("resnet_20", 0.9295), ("lenet", 0.9)):
        for seed in range(3):
            accuracy = mean + 0.001 * (seed - 1)
            write(tmp_path / f"{model}{seed}", model=model, seed=seed, test_accuracy=accuracy)
    return tmp_path


def test_a_table_of_booktabs_with_the_best_and_their_ties_in_bold(runs):
    text = build(runs, runs).tex
    assert (runs / "benchmark.tex").read_text(encoding="utf-8") == text
    heading, *rows = rows_of(text)
    assert heading[:4] == ["rank", "model", r"test accuracy (\%)", r"95 \% interval (\%)"]
    assert {len(row) for row in rows} == {len(heading)}
    assert rf"\begin{{tabular}}{{rl{'r' * (len(heading) - 2)}}}" in text
    assert [row[1] for row in rows] == [r"resnet\_18", r"resnet\_20", "lenet"]
    bold = [row[2].startswith(r"\textbf{") for row in rows]
    assert bold == [row[0] == "1" for row in rows] == [True, True, False]
    assert rows[0][2] == r"\textbf{93.00 $\pm$ 0.10}"
    assert "batch size" not in heading  # all rows share it


def test_one_row_has_no_bold(tmp_path):
    write(tmp_path)
    assert r"\textbf" not in build(tmp_path).tex


@pytest.mark.parametrize(("value", "text"), [
    ("a_b & 50 % #1 $x$ {y}", r"a\_b \& 50 \% \#1 \$x\$ \{y\}"),
    (r"\input{x}", r"\textbackslash{}input\{x\}"),
    ("[5mm] *", "{[}5mm{]} {*}"),
    ("a--b ~ ^", r"a-{}-b \textasciitilde{} \textasciicircum{}"),
    ("< > | ` \"", r"\textless{} \textgreater{} \textbar{} \textasciigrave{} ''"),
    ("Ärger ± 漢", r"Ärger $\pm$ \texttt{U+6F22}"),
    ("Łódź, Çž őåøßæœı", "Łódź, Çž őåøßæœı"),
    ("3 \u00d7 3", r"3 $\times$ 3"),
    # The default font encoding has nothing for these.
    ("ðÞđ", r"\texttt{U+00F0}\texttt{U+00DE}\texttt{U+0111}"),
    ("ŋħŧŀ", r"\texttt{U+014B}\texttt{U+0127}\texttt{U+0167}\texttt{U+0140}"),
    ("¨", r"\texttt{U+00A8}"),
    ("ąę", r"\texttt{U+0105}\texttt{U+0119}"),
])  # fmt: skip
def test_names_are_text(value, text):
    assert escape(value) == text


def test_hostile_names_keep_the_structure(tmp_path):
    write_hostile(tmp_path)
    text = build(tmp_path).tex
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}")
    heading, *rows = rows_of(text)
    assert {len(row) for row in rows} == {len(heading)}
    commands = {*re.findall(r"\\([a-zA-Z]+)", text)}
    assert commands <= {
        *("begin", "end", "centering", "caption", "label", "toprule", "midrule", "bottomrule"),
        *("usepackage", "textbf", "texttt", "textbackslash", "textasciicircum", "pm"),
        *("textasciitilde", "textless", "textgreater", "textbar", "textasciigrave"),
    }


def test_each_table_has_a_label_of_its_own(tmp_path):
    for place, name in enumerate(("my-data", "my data", "漢字", "語", "my-data-2")):
        write(tmp_path / str(place), data__name=name)
    labels = re.findall(r"\\label\{tab:(.*)\}", build(tmp_path).tex)
    assert sorted(labels) == ["data", "data-2", "my-data", "my-data-2", "my-data-2-2"]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_takes_it(tmp_path):
    write_hostile(tmp_path / "runs")
    (tmp_path / "table.tex").write_text(build(tmp_path / "runs").tex, encoding="utf-8")
    paper = (
        r"\documentclass{article}\usepackage{booktabs}\begin{document}\input{table}\end{document}"
    )
    (tmp_path / "paper.tex").write_text(paper)
    made = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stdout[-2000:]
