"""Other looks at the runs: some of them, in other groups, by another metric, in another order."""

import json
import statistics

import pytest
from records import write

from fmbench import report
from fmbench.core.errors import ConfigError
from fmbench.records.reader import load_results
from fmbench.report.__main__ import main
from fmbench.report.table.view import View, chosen


@pytest.fixture
def runs(tmp_path):
    """Two models at two batch sizes, two seeds each, one of them failed, one on a GPU."""
    folder = tmp_path / "runs"
    number = 0
    for model, base in (("lenet", 0.90), ("resnet18", 0.93)):
        for batch_size in (64, 256):
            for seed in (0, 1):
                seconds = {"train": 10.0 + number, "evaluate": 1.0, "total": 12.0 + number}
                write(
                    folder / str(number), model=model, batch_size=batch_size, seed=seed,
                    config__batch_size=batch_size, seconds=seconds,
                    config__model__width=8 if model == "lenet" else None,
                    config__optimizer__weight_decay=0.1 / batch_size,
                    test_accuracy=base - batch_size / 1e5 + seed / 1e4,
                    validation_accuracy=0.5 + batch_size / 1e3,
                )  # fmt: skip
                number += 1
    write(folder / "failed", model="lenet", status="failed", test_accuracy=None, error="why")
    return folder


def numbers(folder, condition):
    return sorted(
        path.rpartition("/")[2] for path in chosen(load_results(folder), condition)["folder"]
    )


@pytest.mark.parametrize(("condition", "expected"), [
    ("", ["0", "1", "2", "3", "4", "5", "6", "7", "failed"]),
    ("model=lenet", ["0", "1", "2", "3", "failed"]),
    ("model=lenet batch_size=64 status=completed", ["0", "1"]),
    ("batch_size=64,256 model=res*", ["4", "5", "6", "7"]),
    ("model!=lenet seed=0", ["4", "6"]),
    ("batch_size>64 seed<1", ["2", "6"]),
    ("batch_size>=256.0 seed<=0 net=lenet", ["2"]),
    ("test_accuracy>0.9", ["4", "5", "6", "7"]),
    ("optimizer.weight_decay<0.001 seed=1", ["3", "7"]),
    ("model.width=8 batch_size=256", ["2", "3"]),
    ("optimizer.lr=5e-2 lr=0.05 model=lenet seed=1", ["1", "3"]),
    ("data.split=standard seed=0 batch_size=256", ["2", "6"]),
    ("status=failed", ["failed"]),
    ("git_dirty=false batch_size=256 seed=1", ["3", "7"]),
    ("device='AMD EPYC, 2 threads' seed=1", []),
    ("device='AMD EPYC*' seed=1 batch_size=64", ["1", "5"]),
    ("model=LeNet", []),
    ("model=resnet18 model.width=8", []),  # a key that other runs have is no mistake
    ("batch_size=many", []),
])  # fmt: skip
def test_conditions_choose_runs(runs, condition, expected):
    assert numbers(runs, condition) == expected


@pytest.fixture
def nested(tmp_path):
    """Runs whose configs hold lists, objects and null."""
    folder = tmp_path / "nested"
    parts = {"crop": {"padding": 4}, "cutout": None}
    scheduler = {"milestones": [6, 13], "phases": [[1, 2], [3, 4]]}
    write(folder / "a", config__scheduler=scheduler, config__augmentation=parts)
    parts = {"crop": None, "cutout": {"size": 8, "probability": 1.0}}
    write(folder / "b", model="b", config__scheduler__milestones=[5], config__augmentation=parts)
    write(folder / "c", model="c", deviations=["epochs=7"])
    return folder


@pytest.mark.parametrize(("condition", "expected"), [
    ("scheduler.milestones=[6,13]", ["a"]),
    ("'scheduler.milestones=[6, 13]'", ["a"]),
    ("scheduler.milestones=[5],[6,13]", ["a", "b"]),
    ("scheduler.phases=[[1,2],[3,4]]", ["a"]),
    ("scheduler.phases=[[1,2],[3,5]],null", ["b", "c"]),
    ("scheduler.milestones!=[5]", ["a", "c"]),
    ("scheduler.milestones=*13*", ["a"]),
    ("scheduler.milestones>5", []),
    ("augmentation.crop=null", ["b", "c"]),
    ("augmentation.crop!=null", ["a"]),
    ("augmentation.cutout={size:8,probability:1.0}", ["b"]),
    ("deviations=epochs=7", ["c"]),
    ("experiment=null model=b,c", ["b", "c"]),
])  # fmt: skip
def test_conditions_on_lists_and_on_nothing(nested, condition, expected):
    assert numbers(nested, condition) == expected


@pytest.mark.parametrize(("key", "differs"), [
    ("scheduler.milestones", ["[5]", "unset", "[6,13]"]),
    ("augmentation.cutout", ["{size:8,probability:1.0}", "unset", "null"]),
    ("deviations", ["epochs=7", "unset"]),
])  # fmt: skip
def test_groups_by_lists_and_by_nothing(nested, key, differs):
    rows = report.build([nested], view=View(group_by=(key,))).rows
    assert sorted(row["differs"] for row in rows) == sorted(f"{key}={one}" for one in differs)


def test_a_key_that_is_null_in_all_runs_is_one_that_they_have(tmp_path):
    write(tmp_path / "a", config__threads=None)
    assert numbers(tmp_path, "threads=2") == ["a"]  # the column, of what was measured
    write(tmp_path / "a", config__sampler=None)
    assert numbers(tmp_path, "sampler=null") == ["a"]
    assert numbers(tmp_path, "sampler=x") == []


@pytest.mark.slow
def test_the_keys_that_there_are_can_be_used(runs):
    with pytest.raises(ConfigError) as raised:
        numbers(runs, "colour=red")
    listed = str(raised.value).partition("there are ")[2].partition(", and ")[0].split(", ")
    for key in listed:
        numbers(runs, f"{key}=null")


def test_a_filtered_report_counts_the_runs_that_it_is_of(runs):
    made = report.build([runs], view=View(condition="model=lenet"))
    (section,) = made.sections
    assert section.summary.startswith("4 of 5 runs completed")
    assert made.view.notes == ["Only runs with model=lenet."]
    assert "> **Only runs with model=lenet.**" in made.markdown


def test_grouped_rows_are_of_all_runs_that_share_the_keys(runs):
    made = report.build([runs], view=View(group_by=("batch_size",)))
    (section,) = made.sections
    assert [row["batch_size"] for row in section.rows] == [64, 256]
    first = section.rows[0]
    accuracies = [0.90 - 0.00064, 0.9001 - 0.00064, 0.93 - 0.00064, 0.9301 - 0.00064]
    assert first["n"] == 4
    assert first["test_accuracy"] == pytest.approx(statistics.mean(accuracies))
    assert first["test_accuracy_sd"] == pytest.approx(statistics.stdev(accuracies))
    # What they do not share is left out rather than taken from one of them.
    assert (first["model"], first["command"], first["rank"]) == (None, None, None)
    assert first["learning_rate"] == 0.05
    assert first["n_failed"] == 1
    assert "A row is all runs with the same batch_size" in made.markdown
    assert "```sh" not in made.markdown


def test_times_of_several_machines_have_no_mean(runs):
    write(runs / "gpu", model="lenet", device="NVIDIA H100", fingerprint__device="cuda")
    made = report.build([runs], view=View(group_by=("model",)))
    times = {row["model"]: row["seconds_train"] for row in made.sections[0].rows}
    assert times == {"lenet": None, "resnet18": pytest.approx(15.5)}


def test_a_key_that_no_column_shows_is_named_in_the_row(runs):
    made = report.build([runs], view=View(group_by=("model", "optimizer.weight_decay")))
    models = [made.sections[0].columns[1].cell(row) for row in made.sections[0].rows]
    assert models[0] == "resnet18 (optimizer.weight_decay=0.0015625)"
    assert len(set(models)) == 4


def test_another_metric_orders_the_rows_and_has_the_spread(runs):
    view = View(metric="seconds_train", condition="batch_size=64")
    (section,) = report.build([runs], view=view).sections
    assert [row["model"] for row in section.rows] == ["lenet", "resnet18"]
    headings = [column.heading for column in section.columns]
    place = headings.index("training time")
    assert headings[place - 1] == "model"
    assert headings.count("training time") == 1
    assert "rank" not in headings
    assert section.columns[place].cell(section.rows[0]) == "10.5 s ± 0.71 s"
    assert section.columns[place + 1].cell(section.rows[0]) == "4.1 s to 16.9 s"


@pytest.mark.slow
def test_rows_come_in_any_order(runs):
    def order(sort):
        (section,) = report.build([runs], view=View(sort=sort)).sections
        return [(row["model"], row["batch_size"]) for row in section.rows]

    lenet, resnet = [("lenet", 64), ("lenet", 256)], [("resnet18", 64), ("resnet18", 256)]
    assert order("training_time") == [*lenet, *resnet]
    assert order("seconds_train:desc") == [*resnet[::-1], *lenet[::-1]]
    assert order("validation accuracy") == [resnet[1], lenet[1], resnet[0], lenet[0]]
    assert order("net:desc") == [*resnet, *lenet]
    assert order("parameters") == [*resnet, *lenet]  # all alike: by test accuracy
    assert order("published")[0] in (*lenet, *resnet)  # nobody has any
    made = report.build([runs], view=View(sort="parameters:desc"))
    assert made.view.notes == ["Ordered by parameters, the most first."]
    assert [row["number"] for row in made.sections[0].rows] == [1, 2, 3, 4]


@pytest.mark.parametrize(("view", "said"), [
    (View("lenet"), "filter: 'lenet' is no condition such as"),
    (View("colour=red"), "filter: no run has 'colour'; there are"),
    (View("model.depth=3"), "filter: no run has 'model.depth'"),
    (View("batch_size>many"), "compares with no number"),
    (View("model='lenet"), "No closing quotation"),
    (View("config=x"), "filter: no run has 'config'"),
    (View(metric="beauty"), "metric: 'beauty' is none; there are test_accuracy"),
    (View(sort="beauty"), "sort: 'beauty' is no column"),
    (View(sort="net:up"), "sort: 'net:up' is no column"),
    (View(sort=""), "sort: '' is no column"),
    (View(sort="#"), "sort: '#' is no column"),
    (View(sort="number"), "sort: 'number' is no column"),
    (View(sort="best on test"), "chosen on the test set, so it orders nothing"),
    (View(sort="best_test_accuracy:asc"), "chosen on the test set, so it orders nothing"),
    (View(sort="unsuspected images"), "chosen on the test set, so it orders nothing"),
    (View(group_by=("colour",)), "group-by: no run has 'colour'"),
])  # fmt: skip
def test_a_view_that_cannot_be_is_said(runs, view, said):
    with pytest.raises(ConfigError) as raised:
        report.build([runs], view=view)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_look_writes_nothing_unless_it_is_said_where(runs, tmp_path, ended, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = ended(main, runs, "--filter", "model=lenet", "--sort", "parameters")
    assert (status, err) == (0, "")
    assert "A view of the runs: nothing was written" in out
    assert "resnet18" not in out
    assert list(tmp_path.iterdir()) == [runs]
    status, out, err = ended(main, runs, "--group-by", "model", "--output", "out")
    assert status == 0
    content = json.loads((tmp_path / "out" / "benchmark.json").read_text("utf-8"))
    assert [row["model"] for row in content["rows"]] == ["resnet18", "lenet"]
    assert content["notes"][0].startswith("A row is all runs with the same model")


def test_no_run_of_such_conditions_is_said(runs, ended):
    status, out, _ = ended(main, runs, "--filter", "model=vgg")
    assert (status, out.splitlines()[-1]) == (0, "No completed run with model=vgg.")
    assert ended(main, runs, "--group-by", "model, batch_size")[0] == 0


def test_json_holds_what_the_csv_holds_and_the_rest(runs, tmp_path):
    write(runs / "bad")
    (runs / "bad" / "result.json").write_text('{"schema": 99}')
    made = report.build([runs], tmp_path / "out")
    content = json.loads((tmp_path / "out" / "benchmark.json").read_text("utf-8"))
    assert content["schema"] == 1
    assert len(content["rows"]) == 4
    row = content["rows"][0]
    assert row["test_accuracy"] == made.table["test_accuracy"][0]
    assert (row["seeds"], row["rank"], row["published_accuracy"]) == ([0, 1], 1, None)
    assert len(row["folders"]) == 2
    assert set(made.table.columns) - {"config"} == set(row)
    assert [run["status"] for run in content["not_completed"]] == ["failed"]
    assert content["not_completed"][0]["started"] == "2026-11-20T23:00:00+00:00"
    assert "newer than this fmbench reads" in content["unreadable"][0]["reason"]


def test_json_is_json_where_a_loss_is_missing(tmp_path):
    write(tmp_path / "0", test_loss=None)

    def refuse(constant):
        raise AssertionError(constant)

    content = json.loads(report.build([tmp_path]).json, parse_constant=refuse)
    assert content["rows"][0]["test_loss"] is None
    assert content["rows"][0]["model"] == "lenet"


def test_runs_chosen_by_their_test_accuracy_have_no_statistics(runs):
    made = report.build([runs], view=View(condition="test_accuracy>0.89"))
    for row in made.sections[0].rows:
        assert (row["rank"], row["test_accuracy_low"]) == (None, None)
    assert "chosen by what they reached on the test set" in made.markdown
    plain = report.build([runs], view=View(condition="validation_accuracy>0.5"))
    assert plain.sections[0].rows[0]["rank"] == 1
    assert plain.sections[0].rows[0]["test_accuracy_low"] is not None


def test_one_run_on_two_machines_is_two_of_a_group(tmp_path):
    write(tmp_path / "0", test_accuracy=0.90)
    write(tmp_path / "1", test_accuracy=0.92, device="NVIDIA H100", fingerprint__device="cuda")
    made = report.build([tmp_path], view=View(group_by=("model",)))
    (row,) = made.sections[0].rows
    assert (row["n"], row["n_repeats"]) == (2, 0)
    assert row["test_accuracy"] == pytest.approx(0.91)
    assert row["peak_memory"] is None
    assert "were not all measured on the same terms (device, threads)" in made.markdown
    # Nor is it a repetition of one thing.
    assert row["test_accuracy_low"] is None


def test_a_mean_over_test_sets_is_said_to_mean_nothing(tmp_path):
    write(tmp_path / "0")
    write(tmp_path / "1", data__sha256="aa" * 32)
    made = report.build([tmp_path], view=View(group_by=("model",)))
    assert "so that the mean says nothing of either: 1." in made.markdown


def test_values_of_other_types_are_not_mixed_up(tmp_path):
    for number, value in enumerate((True, 1, "1", 10**400)):
        write(tmp_path / str(number), model=f"n{number}", config__optimizer__flag=value)
    write(tmp_path / "none")
    assert numbers(tmp_path, "optimizer.flag=true") == ["0"]
    assert numbers(tmp_path, "optimizer.flag=1") == ["1", "2"]
    assert numbers(tmp_path, "optimizer.flag>0") == ["0", "1", "2"]
    assert numbers(tmp_path, "optimizer.flag!=1 model=n*") == ["0", "3"]
    view = View(group_by=("optimizer.flag",))
    models = [row["differs"] for row in report.build([tmp_path], view=view).sections[0].rows]
    assert "optimizer.flag=true" in models
    assert "optimizer.flag=1" in models
    assert "optimizer.flag=unset" in models


def test_trials_count_where_the_metric_is_what_they_have(tmp_path):
    for seed, value in enumerate((0.7, 0.8, 0.9)):
        test = 0.85 if value == 0.9 else None
        write(tmp_path / str(seed), seed=seed, validation_accuracy=value, test_accuracy=test)
    made = report.build([tmp_path], tmp_path / "out", view=View(metric="validation_accuracy"))
    (row,) = made.sections[0].rows
    assert (row["n"], row["validation_accuracy"]) == (3, pytest.approx(0.8))
    assert row["test_accuracy"] is None  # of one of three it would be another mean
    assert made.sections[0].summary == "3 of 3 runs completed."


def test_an_interval_of_shares_stays_one(tmp_path):
    for seed, value in enumerate((0.97, 0.99, 0.999)):
        write(tmp_path / str(seed), seed=seed, test_accuracy=value)
    (row,) = report.build([tmp_path]).sections[0].rows
    assert row["test_accuracy_high"] == 1.0
