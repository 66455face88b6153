"""Searches in the report: what is a row, what is counted, what is said, shown and drawn."""

import os
import re

import pytest
from records import write
from reports import build, printed
from searches import put, search, sweep, trial, two_objectives

from fmbench import report
from fmbench.records.reader import read_results
from fmbench.report.table.search import ranking

HOSTILE = "a|b\n# <script>x</script> `c` $y$ [l](https://e.example) \x1b[31m{}%"


# --- rows and counts --------------------------------------------------------------------------


def test_of_a_search_the_tested_trial_is_the_row(tmp_path):
    made = build(sweep(tmp_path))
    (section,) = made.sections
    (row,) = section.rows
    assert (row["test_accuracy"], row["batch_size"], row["n"]) == (0.887, 64, 1)
    assert section.summary == (
        "2 of 4 runs completed (in the table: 1; trials, see Search: 1), 1 failed, 1 pruned."
    )
    assert [run["status"] for run in section.unfinished] == ["failed"]
    assert (made.completed, made.pruned, made.failed, made.exit_status) == (2, 1, 1, 0)
    assert "trials, see Search: 1" in made.markdown
    assert "trials, see Search: 1" in printed(made)
    assert made.csv.count("\n") == 2


def test_a_trial_that_no_search_tells_of_is_counted_too(tmp_path):
    sweep(tmp_path)
    (tmp_path / "search.json").unlink()
    made = build(tmp_path)
    (section,) = made.sections
    assert section.summary == (
        "2 of 4 runs completed (in the table: 1; without a test accuracy, so no row here: 1), "
        "1 failed, 1 pruned."
    )
    # What failed stands before what a search gave up.
    assert [run["status"] for run in section.unfinished] == ["failed", "pruned"]
    assert "| pruned | stopped by the pruner |" in made.markdown


def test_trials_without_any_row(tmp_path):
    untested = {"test_accuracy": None, "validation_accuracy": 0.5}
    write(tmp_path / "0", **untested)
    write(tmp_path / "3", batch_size=512, **untested)
    write(tmp_path / "1", status="pruned", data__name="synthetic", **untested)
    real, synthetic = build(put(tmp_path)).sections
    assert real.summary == "2 of 2 runs completed (trials, see Search: 2)."
    assert synthetic.summary == "0 of 1 runs completed, 1 pruned."
    assert (real.rows, synthetic.rows, synthetic.unfinished) == ([], [], [])


def test_runs_that_did_not_complete_are_counted_by_their_kinds_and_are_no_seeds(tmp_path):
    write(tmp_path / "0")
    write(tmp_path / "1", seed=1, status="pruned", test_accuracy=0.99)
    others = ("pruned", "failed", "diverged", "interrupted", "running")
    for seed, status in enumerate(others, 2):
        write(tmp_path / str(seed), seed=seed, status=status, test_accuracy=None)
    made = build(tmp_path)
    (section,) = made.sections
    (row,) = section.rows
    kinds = ("n", "n_failed", "n_pruned", "n_interrupted", "n_unfinished")
    assert [row[kind] for kind in kinds] == [1, 2, 2, 1, 1]
    assert row["test_accuracy"] == 0.9001
    assert "| 1 of 7 (2 failed, 1 interrupted, 2 pruned, 1 unfinished) |" in made.markdown
    assert section.summary == (
        "1 of 7 runs completed, 1 failed, 1 diverged, 1 interrupted, 2 pruned, "
        "1 still running or killed."
    )
    assert (made.completed, made.pruned, made.failed) == (1, 2, 4)


def test_the_counts_of_a_section_add_up(tmp_path):
    """Each run once: of all, and of those that completed."""
    folder = sweep(tmp_path)
    write(folder / "8", started="2026-11-20T23:30:00Z")
    write(folder / "9", started="2026-11-20T23:40:00Z")
    write(folder / "10", seed=5, status="interrupted", test_accuracy=None)
    write(folder / "11", seed=6, status="running", test_accuracy=None)
    (section,) = build(folder).sections
    all_of, in_brackets, others = re.fullmatch(
        r"(\d+ of \d+) runs completed \((.*)\), (.*)\.", section.summary
    ).groups()
    completed, total = map(int, all_of.split(" of "))
    numbers = [sum(map(int, re.findall(r"\d+", part))) for part in (in_brackets, others)]
    assert (completed, total - completed) == tuple(numbers)


def test_a_completed_run_needs_one_of_the_two_accuracies(tmp_path):
    write(tmp_path / "0", test_accuracy=None)
    write(tmp_path / "1", test_accuracy=None, validation_accuracy=0.8)
    results = read_results(tmp_path)
    assert [str(problem.path.parent.name) for problem in results.problems] == ["0"]
    assert results.problems[0].reason == "completed, and lacks test_accuracy"
    assert results.frame["validation_accuracy"].tolist() == [0.8]


def test_an_untested_seed_does_not_dilute_a_row(tmp_path):
    write(tmp_path / "0", test_accuracy=0.9, validation_accuracy=0.95)
    write(tmp_path / "1", seed=1, test_accuracy=None, validation_accuracy=0.5)
    (row,) = build(tmp_path).sections[0].rows
    assert (row["n"], row["seeds"], row["validation_accuracy"]) == (1, (0,), 0.95)


def test_a_broken_search_costs_itself_alone(tmp_path):
    sweep(tmp_path, study=7)
    made = build(tmp_path)
    assert made.searches == ()
    (problem,) = made.problems
    assert (problem.path.name, problem.reason) == (
        "search.json",
        "study: Expected `str`, got `int`",
    )
    assert made.exit_status == 4
    assert len(made.sections[0].rows) == 1


# --- what is said -----------------------------------------------------------------------------


def test_the_paragraph_says_what_became_of_the_search(tmp_path):
    made = build(sweep(tmp_path))
    (part,) = made.searches
    assert part.title == "Search: lr_batch"
    assert part.sentences == [
        (
            "TPESampler, pruner median, looked for the highest validation accuracy: "
            "2 of 5 trials completed, 1 pruned, 1 failed, 1 not begun."
        ),
        "Training took 30.0 s in all.",
        (
            "Best is trial 0 (batch_size=64, optimizer.lr=0.01): validation accuracy 90.00 %, "
            "test accuracy 88.70 %."
        ),
        (
            "It was chosen by its validation accuracy, which is therefore likely too high; the "
            "test set had no part in the choice."
        ),
    ]
    for sentence in part.sentences:
        assert sentence in printed(made)
    assert "Importances: optimizer.lr 0.80, batch_size 0.20." in printed(made)
    assert "## Search: lr\\_batch" not in made.markdown  # an underscore inside a word is harmless
    assert "## Search: lr_batch" in made.markdown


@pytest.mark.parametrize(
    ("remove", "said"),
    [("result.json", "its run is not in this report"), ("", "not evaluated on the test set")],
)
def test_a_best_trial_without_a_test_accuracy_says_why(tmp_path, remove, said):
    sweep(tmp_path)
    write(tmp_path / "0", batch_size=64, validation_accuracy=0.9, test_accuracy=None)
    if remove:
        (tmp_path / "0" / remove).unlink()
    sentences = build(tmp_path).searches[0].sentences
    assert sentences[-2].endswith("validation accuracy 90.00 %.")
    assert said in sentences[-1]


def test_the_best_trials_come_best_first_and_five_at_most(tmp_path):
    accuracies = [0.5, 0.9, 0.7, 0.9, 0.6, 0.8, 0.4]
    trials = [trial(n, values=[value]) for n, value in enumerate(accuracies)]
    made = build(put(tmp_path, trials=trials, best=[1]))
    table = made.searches[0].tables[0]
    assert [row[:2] for row in table.rows] == [
        *(("1", "90.00"), ("3", "90.00"), ("5", "80.00"), ("2", "70.00"), ("4", "60.00"))
    ]
    smallest = search(
        objectives=[{"name": "train_seconds", "direction": "minimize"}], trials=trials, best=[6]
    )
    assert [one.number for one in ranking(smallest)] == [6, 0, 4, 2, 5, 1, 3]


def test_the_tables_of_a_search(tmp_path):
    text = build(sweep(tmp_path)).markdown
    assert (
        "### Best trials\n\n"
        "| trial | validation accuracy (%) | test accuracy (%) | batch_size | optimizer.lr |"
        " training |\n| ---: | ---: | ---: | --- | --- | ---: |\n"
        "| 0 | 90.00 | 88.70 | 64 | 0.01 | 12.5 s |\n| 3 | 80.00 | - | 512 | 0.00123 | 12.5 s |"
    ) in text
    assert "| optimizer.lr | 0.80 |\n| batch_size | 0.20 |" in text
    assert "### Trials that failed" in text
    assert "| 2 | batch_size=64, optimizer.lr=0.01 | no memory |" in text


def test_several_objectives_give_a_front(tmp_path):
    part = build(put(tmp_path, **two_objectives())).searches[0]
    assert part.sentences[0] == (
        "TPESampler, no pruner, looked for the highest validation accuracy and the lowest "
        "parameters: 4 of 4 trials completed."
    )
    assert part.sentences[2].startswith("3 trials are on the Pareto front")
    table = part.tables[0]
    assert (table.title, table.headings[2]) == ("Pareto front", "parameters")
    assert [row[:3] for row in table.rows] == [
        *(("0", "90.00", "10,000,000"), ("3", "85.00", "300,000"), ("1", "80.00", "60,000"))
    ]
    assert part.tables[1].title == "Importances for validation accuracy"


def test_where_nothing_completed_there_is_no_best(tmp_path):
    states = [trial(n, state="failed", values=None, error="e") for n in range(12)]
    changes = {"trials": states, "best": [], "importances": None}
    made = build(put(tmp_path, **changes), tmp_path)
    part = made.searches[0]
    assert part.sentences[-1] == "There is no best trial."
    (table,) = part.tables
    assert table.title == "Trials that failed (the first 10 of 12)"
    assert len(table.rows) == 10
    assert (tmp_path / "benchmark.md").is_file()


def test_another_drivers_trials_are_found_by_their_absolute_folders(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    write(there / "0", validation_accuracy=0.9, test_accuracy=0.88)
    link = tmp_path / "link"
    link.symlink_to(there, target_is_directory=True)
    put(here, trials=[trial(0, folder=str(there / "0"))])
    made = report.build([here, link])
    assert "test accuracy 88.00 %" in made.markdown


@pytest.mark.slow
def test_names_and_values_of_a_search_do_no_harm(tmp_path):
    names = {HOSTILE: HOSTILE, "x" * 500: "y" * 500, "b": None, "c": True}
    trials = [
        trial(0, parameters=names),
        trial(1, parameters=names, state="failed", values=None, error=HOSTILE * 50),
    ]
    changes = {"trials": trials, "importances": {HOSTILE: 1.0}, "sampler": HOSTILE}
    made = build(put(tmp_path, study=HOSTILE, pruner=HOSTILE, **changes), tmp_path)
    for text in (made.markdown, printed(made)):
        assert "\x1b" not in text
        assert "x" * 61 not in text
        assert "y" * 61 not in text
    assert "<script>" not in made.markdown
    assert not re.search(r"(?<!\\)\]\(http", made.markdown)
    assert "null | true |" in made.markdown
    tables = re.findall(r"(?:^\|.*\n)+", made.markdown, re.MULTILINE)
    for table in tables:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1
    assert (tmp_path / "figures" / "search.png").is_file()


@pytest.mark.slow
def test_each_search_has_a_picture_beside_the_page(tmp_path):
    sweep(tmp_path / "a")
    put(tmp_path / "b", study="other")
    made = build(tmp_path, tmp_path / "out")
    assert [path.name for path in made.written] == [
        *(f"benchmark.{kind}" for kind in ("md", "html", "csv", "json", "tex")),
        "figures",
    ]
    assert [figure.name for figure in made.figures] == ["search", "search_2"]
    text = (tmp_path / "out" / "benchmark.md").read_text("utf-8")
    assert (
        "![History, response surface, slices, importances: validation accuracy of the "
        "trials; best 90.00 % in trial 0; 2 of 5 trials completed, 1 pruned, 1 failed, 1 not begun"
        "](figures/search.png)"
    ) in text
    assert text.index("/search.png)") < text.index("## Search: other") < text.index("search_2.png")
    assert "search.png" not in build(tmp_path).markdown  # nothing was written


@pytest.mark.slow
def test_searches_of_one_name_are_told_apart_by_their_folders(tmp_path):
    for place in ("a/x", "a/y", "b/y"):
        sweep(tmp_path / place)
    put(tmp_path / "c", study="other")
    made = build(tmp_path, tmp_path / "out")
    places = [os.path.relpath(tmp_path / place) for place in ("a/x", "a/y", "b/y")]
    titles = [f"Search: lr_batch ({place})" for place in places] + ["Search: other"]
    assert [part.title for part in made.searches] == titles
    assert [figure.title for figure in made.figures if figure.name.startswith("search")] == titles
    for title in titles:
        assert f"## {title}\n" in made.markdown
        assert made.html.count(f">{title}</a>") == made.html.count(f">{title}</h2>") == 1


@pytest.mark.parametrize(("other", "said"), [("one", False), ("two", True), (None, False)])
def test_trials_of_changed_code_are_told(tmp_path, other, said):
    put(tmp_path)
    write(tmp_path / "0", source="one")
    write(tmp_path / "3", batch_size=512, source=other)
    (part,) = build(tmp_path).searches
    assert ("of 2 different codes" in " ".join(part.sentences)) is said


@pytest.mark.parametrize("flips", [True, False])
def test_a_search_says_that_mirrors_were_evaluated_too(tmp_path, flips):
    put(tmp_path)
    write(tmp_path / "0", config__evaluation={"flips": flips})
    (part,) = build(tmp_path).searches
    assert ("with its mirror (evaluation.flips=true)." in " ".join(part.sentences)) is flips
