"""The benchmark table: right numbers, nothing hidden."""

import itertools
import json
import os
import re
import statistics
import time

import pytest
from records import PUBLISHED, write
from reports import build, cell, column, printed, sheet_rows, table_cells

from fmbench import report
from fmbench.config.schema import CORRUPTIONS, HARDWARE
from fmbench.records.reader import load_results
from fmbench.records.record import RUNNING
from fmbench.report.table.columns import SHOWN, SPLIT, shown
from fmbench.report.table.describe import HASHES, MOST_DIFFERENCES, differences, model_settings
from fmbench.report.table.rows import plain_rows


def test_seeds_are_grouped_with_mean_and_sample_deviation(tmp_path):
    accuracies = [0.90, 0.91, 0.95]
    for seed, accuracy in enumerate(accuracies):
        seconds = {"train": 8.0 + seed, "evaluate": 1.0, "total": 10.0}
        write(tmp_path / str(seed), seed=seed, test_accuracy=accuracy, seconds=seconds)
    (row,) = report.benchmark_table(load_results(tmp_path)).to_dict("records")
    assert row["n"] == 3
    assert row["test_accuracy"] == pytest.approx(statistics.mean(accuracies))
    assert row["test_accuracy_sd"] == pytest.approx(statistics.stdev(accuracies))
    assert row["seconds_train"] == pytest.approx(9.0)
    assert row["command"] == "python -m fmbench -m model=lenet epochs=3 seed=0,1,2"
    made = build(tmp_path)
    assert cell(made.markdown, "n") == "3"
    assert cell(made.markdown, "test accuracy") == "92.00 ± 2.65"
    # Student's t of two degrees of freedom: 4.303 standard errors on either side.
    assert cell(made.markdown, "95 % interval") == "85.43 to 98.57"


def test_one_seed_has_no_deviation(tmp_path):
    write(tmp_path)
    text = build(tmp_path).markdown
    assert (cell(text, "n"), cell(text, "test accuracy")) == ("1", "90.01")
    assert "95 % interval" not in text.partition("How to read")[0]


#: A value of each column of a recipe other than that of `records.BASE`.
OTHER = {
    "split__name": "holdout", "augmentation": "crop", "optimizer": "adam", "learning_rate": 0.1,
    "batch_size": 8, "epochs": 9, "device": "other",
}  # fmt: skip


def test_columns_come_in_the_order_people_were_promised(tmp_path):
    write(tmp_path / "0")
    write(tmp_path / "1", config={"other": 1}, **OTHER)
    made = build(tmp_path)
    assert table_cells(made.markdown)[0] == [
        *("#", "rank", "model", "test accuracy (%)", "parameters", "training time", "n"),
        *("split", "augmentation", "optimizer", "learning rate", "batch size", "epochs"),
        *("FLOPs", "evaluation time", "total time", "images/s", "peak memory", "device"),
    ]
    assert "\n\nAll rows: data fashion_mnist.\n\n" in made.markdown


def test_what_all_rows_share_is_said_once_in_markdown(tmp_path):
    shared = ("data fashion_mnist; split standard 60,000/0/10,000; augmentation none; optimizer "
              "sgd; learning rate 0.05; {}epochs 3; device AMD EPYC, 2 threads, fp32.")  # fmt: skip
    write(tmp_path / "0")
    alone = build(tmp_path)
    headings = table_cells(alone.markdown)[0]
    assert {*headings}.isdisjoint({"data", "split", "optimizer", "batch size", "device"})
    assert column(alone.markdown, "model") == ["lenet"]
    assert f"\n\nThe row: {shared.format('batch size 64; ')}\n\n" in alone.markdown
    write(tmp_path / "1", batch_size=128, config__batch_size=128)
    both = build(tmp_path)
    assert sorted(column(both.markdown, "batch size")) == ["128", "64"]
    assert column(both.markdown, "model") == ["lenet"] * 2
    assert f"\n\nAll rows: {shared.format('')}\n\n" in both.markdown
    # Files for programs have them all.
    assert both.csv.count(",sgd,") == 2


def test_what_everybody_looks_for_comes_first_and_fits(tmp_path):
    for number, seed in itertools.product(range(3), range(3)):
        accuracy = 0.91 - number / 50 + seed / 1000
        model = f"preact_resnet{18 + number}"
        write(tmp_path / f"{number}{seed}", model=model, seed=seed, test_accuracy=accuracy)
    made = build(tmp_path)
    first = ["#", "rank", "model", "test accuracy (%)", "95 % interval (%)", "parameters"]
    assert table_cells(made.markdown)[0][:7] == [*first, "training time"]
    for width in (None, 100):
        lines = printed(made, width).splitlines()
        row = next(line for line in lines if "preact_resnet18" in line)
        assert "91.10 ± 0.10" in row[:100]
        assert "90.85 to 91.35" in row[:100]
        assert row.index("8.1 s ±") < 90
    assert "evaluation time" in printed(made)
    assert "published" not in printed(made)


def test_best_last_epoch_first_whatever_was_best_on_test(tmp_path):
    write(tmp_path / "0", model="good", test_accuracy=0.92, best_test_accuracy=0.92)
    write(tmp_path / "1", model="lucky", test_accuracy=0.91, best_test_accuracy=0.99)
    write(tmp_path / "2", model="b-tie", test_accuracy=0.915)
    write(tmp_path / "3", model="a-tie", test_accuracy=0.915)
    models = [row["model"] for row in build(tmp_path).sections[0].rows]
    assert models == ["good", "a-tie", "b-tie", "lucky"]


def test_the_same_run_again_counts_once_and_the_newest_counts(tmp_path):
    write(tmp_path / "0", test_accuracy=0.93, started="2026-11-20T12:00:00Z")
    write(tmp_path / "1", test_accuracy=0.91, started="2026-11-20T11:00:00Z")
    write(tmp_path / "2", seed=1, test_accuracy=0.93)
    (section,) = build(tmp_path).sections
    (row,) = section.rows
    assert (row["n"], row["n_repeats"]) == (2, 1)
    assert row["test_accuracy"] == pytest.approx(0.93)
    assert section.summary == "3 of 3 runs completed (repeats of a run, which count once: 1)."


def test_rows_that_look_the_same_say_how_they_differ(tmp_path):
    write(tmp_path / "0", config__optimizer__weight_decay=0.001, test_accuracy=0.93)
    write(tmp_path / "1", test_accuracy=0.92)
    write(tmp_path / "2", scheduler="cosine", config__scheduler={"T_max": 3}, test_accuracy=0.91)
    write(tmp_path / "3", model="resnet18", test_accuracy=0.90)
    models = column(build(tmp_path).markdown, "model")
    assert models == [
        "lenet (scheduler=onecycle, optimizer.weight_decay=0.001)",
        "lenet (scheduler=onecycle, optimizer.weight_decay=0.0005)",
        "lenet (scheduler=cosine, optimizer.weight_decay=0.0005)",
        "resnet18",
    ]


def test_rows_alike_in_all_but_their_hash_show_it(tmp_path):
    write(tmp_path / "0", configuration="aaaaaaaabb", key="1")
    write(tmp_path / "1", configuration="ccccccccdd", key="2", config__threads=2)
    four = {"config__threads": 4, "fingerprint__threads": 4}
    write(tmp_path / "2", configuration="ccccccccdd", key="3", **four)
    models = {*column(build(tmp_path).markdown, "model")}
    assert models == {
        "lenet (threads=2, configuration aaaaaaaa)",
        "lenet (threads=2, configuration cccccccc)",
        "lenet (threads=4, configuration cccccccc)",
    }


def test_synthetic_data_is_never_ranked_with_the_real(tmp_path):
    write(tmp_path / "0", data__name="synthetic", test_accuracy=0.99)
    write(tmp_path / "1", test_accuracy=0.90)
    made = build(tmp_path)
    real, synthetic = made.sections
    assert (real.title, len(real.rows), real.notes) == ("Fashion-MNIST", 1, [])
    assert (synthetic.title, len(synthetic.rows)) == ("Synthetic data", 1)
    warning = "accuracies say nothing about Fashion-MNIST"
    head, _, tail = made.markdown.partition("## Synthetic data")
    assert warning in tail
    assert warning not in head
    assert warning in printed(made)


def test_runs_that_did_not_complete_are_counted_and_listed(tmp_path):
    write(tmp_path / "0")
    write(tmp_path / "1", status="failed", error="Out of\nmemory | 3 GiB", test_accuracy=None)
    write(tmp_path / "2", status="diverged", error="x" * 9_999, test_accuracy=None)
    made = build(tmp_path, tmp_path)
    assert (made.completed, made.failed, made.exit_status) == (1, 2, 0)
    assert "1 of 3 runs completed, 1 failed, 1 diverged." in made.markdown
    listed = "| lenet | 0 | failed | Out of memory &#124; 3 GiB | 2026-11-20 23:00 UTC | 1 |"
    assert listed in made.markdown
    assert max(map(len, made.markdown.splitlines())) < 1_000
    assert "- failed: lenet in" in printed(made)
    (row,) = sheet_rows(tmp_path)
    assert row["n_failed"] == "2"


def test_a_running_record_is_listed_with_its_start_and_not_counted_as_completed(tmp_path):
    write(tmp_path / "0")
    write(tmp_path / "1", seed=1, status=RUNNING, test_accuracy=None)
    made = build(tmp_path, tmp_path)
    assert (made.completed, made.failed) == (1, 1)
    assert "1 of 2 runs completed, 1 still running or killed." in made.markdown
    listed = "| lenet | 1 | running | still running, or killed | 2026-11-20 23:00 UTC | 1 |"
    assert listed in made.markdown
    shown = "running: lenet in 1: still running, or killed; started 2026-11-20 23:00 UTC"
    assert shown in printed(made).replace(os.path.relpath(tmp_path) + "/", "")
    (row,) = sheet_rows(tmp_path)
    assert (row["n"], row["n_failed"], row["n_unfinished"]) == ("1", "0", "1")
    assert cell(made.markdown, "n") == "1 of 2 (1 unfinished)"


GPU = {"device": "NVIDIA H100", "fingerprint__device": "cuda"}
ONE, TWO = (
    {"fingerprint__threads": n, "device": f"AMD EPYC, {n} thread{'s' * (n > 1)}"} for n in (1, 2)
)


@pytest.mark.parametrize(("first", "second", "devices"), [
    # One row: GPU hosts with different processors, threads that the runs chose, an old record.
    (GPU | {"fingerprint__threads": 8}, GPU | {"fingerprint__threads": 64}, ["NVIDIA H100"]),
    (ONE, TWO, ["AMD EPYC, 1 or 2 threads"]),
    ({"fingerprint": {}, "device": None}, {"fingerprint": {}, "device": None}, [None]),
    # Two rows: what may change bits or speed.
    (ONE | {"config__threads": 1}, TWO | {"config__threads": 2},
     ["AMD EPYC, 1 thread", "AMD EPYC, 2 threads"]),
    ({}, {"fingerprint__memory_format": "contiguous"}, ["AMD EPYC, 2 threads"] * 2),
    ({}, {"fingerprint__deterministic": True}, ["AMD EPYC, 2 threads"] * 2),
])  # fmt: skip
def test_which_seeds_are_those_of_one_row(tmp_path, first, second, devices):
    for seed, changes in enumerate((first, second)):
        write(tmp_path / str(seed), seed=seed, **changes)
    rows = build(tmp_path).sections[0].rows
    assert [row["n"] for row in rows] == ([2] if len(devices) == 1 else [1, 1])
    assert sorted(row["device"] or "" for row in rows) == [device or "" for device in devices]


def test_an_undated_repeat_counts_as_the_older(tmp_path):
    write(tmp_path / "0", test_accuracy=0.91)
    write(tmp_path / "1", test_accuracy=0.93, started="once")
    (row,) = build(tmp_path).sections[0].rows
    assert row["test_accuracy"] == 0.91


def test_speed_is_all_images_over_all_seconds(tmp_path):
    for seed, seconds in enumerate((1.0, 9.0)):
        changes = {"seconds__train": seconds, "images_per_second": 7.0, "configuration": "c"}
        write(tmp_path / str(seed), seed=seed, **changes)
    write(tmp_path / "unclocked", seed=2, seconds=None, configuration="c")
    write(tmp_path / "uncounted", seed=3, split__train=None, configuration="c")
    (row,) = report.benchmark_table(load_results(tmp_path)).to_dict("records")
    assert row["images_per_second"] == pytest.approx(2 * 60_000 * 3 / 10.0)
    write(tmp_path / "still", seconds__train=0.0, model="still")
    table = report.benchmark_table(load_results(tmp_path)).set_index("model")
    assert table["images_per_second"].isna().to_dict() == {"lenet": False, "still": True}


def test_best_on_test_stands_only_where_every_seed_has_it(tmp_path):
    write(tmp_path / "0", best_test_accuracy=0.95)
    write(tmp_path / "1", seed=1)
    made = build(tmp_path, tmp_path)
    assert "| best on test" not in made.markdown
    assert sheet_rows(tmp_path)[0]["best_test_accuracy"] == ""
    # Made again with the same result, seed 1 now has it, though its newest run did not look.
    for number, best in ((2, 0.92), (3, 0.93)):
        started = f"2026-11-1{number}T00:00:00Z"
        write(tmp_path / str(number), seed=1, best_test_accuracy=best, started=started)
    assert cell(build(tmp_path).markdown, "best on test") == "94.00"


def test_best_on_test_is_not_taken_from_a_repeat_with_another_result(tmp_path):
    old = "2026-11-19T00:00:00Z"
    write(tmp_path / "0", best_test_accuracy=0.95, test_accuracy=0.92, started=old)
    write(tmp_path / "1")
    assert build(tmp_path).sections[0].rows[0]["best_test_accuracy"] is None


def test_the_split_and_the_model_say_what_was_trained(tmp_path):
    typed = ["model=torchvision", "model.name=resnet34", "+model.width=8", "model.width=16"]
    split = {"split__train": 2_500, "split__validation": 500}
    write(tmp_path, model="torchvision/resnet34", overrides=typed, **split)
    made = build(tmp_path, tmp_path)
    assert cell(made.markdown, "model") == "torchvision/resnet34 width=16"
    assert "; split standard 2,500/500/10,000; " in made.markdown
    assert sheet_rows(tmp_path)[0]["model_settings"] == "width=16"
    settings = ("~model.dropout", "model.name=b", "model.a=x=y", "batch_size=2", "model=resnet18")
    assert model_settings("resnet18", settings) == "~dropout name=b a=x=y"


def test_an_augmentation_says_what_was_typed_about_its_parts(tmp_path):
    """Its option alone would not say it, also where no other row is there to differ from."""
    for number, cutout in enumerate(("{size:8}", "{size:14}", "null")):
        write(
            tmp_path / str(number),
            augmentation="crop_flip",
            overrides=["augmentation=crop_flip", f"augmentation.cutout={cutout}"],
            config__augmentation={"cutout": cutout},
            test_accuracy=0.9 - number / 100,
        )
    made = build(tmp_path, tmp_path)
    assert column(made.markdown, "model") == ["lenet"] * 3
    assert [text.replace("\\", "") for text in column(made.markdown, "augmentation")] == [
        "crop_flip cutout={size:8}", "crop_flip cutout={size:14}", "crop_flip cutout=null"
    ]  # fmt: skip
    first = sheet_rows(tmp_path)[0]
    assert first["augmentation"] == "crop_flip"
    assert first["augmentation_settings"] == "cutout={size:8}"


DRAWN = {"data__name": "synthetic"}


@pytest.mark.parametrize(("records", "rows", "said"), [
    ([{"split__name": "custom"}, {}], 2,
     "mix splits (custom 60,000/0/10,000; standard 60,000/0/10,000)"),
    ([{}, {"split__hash": "77" * 32}], 2, "The split standard 60,000/0/10,000 was drawn in 2 ways"),
    ([{}, {"data__sha256": "88" * 32}], 2, "2 different contents of the data set"),
    ([{**DRAWN, "data__sha256": f"{seed:064}", "split__hash": f"{seed:064}"} for seed in (1, 2)], 2,
     "2 different contents of the data set"),
    ([{}, {"device": "NVIDIA H100"}, {"fingerprint__precision": "bf16"}], 3,
     "not all measured on the same terms (device, precision)"),
    ([{"test_accuracy": 0.91}, {"test_accuracy": 0.9101}], 1,
     "disagree by more than 0.005 points, in rows: 1."),
    ([{"test_accuracy": 0.95}, {"test_accuracy": 0.95004}], 1, None),
])  # fmt: skip
def test_what_sets_rows_or_repeats_apart_is_noted(tmp_path, records, rows, said):
    for number, changes in enumerate(records):
        write(tmp_path / str(number), **changes)
    (section,) = build(tmp_path).sections
    assert len(section.rows) == rows
    assert any(said in note for note in section.notes) if said else section.notes == []


def test_runs_that_stopped_early_are_counted_and_not_said_to_have_validated(tmp_path):
    """`early_stop.after` ends a run that looks at nothing."""
    for seed, stopped in enumerate((5, None, 7)):
        same = {"configuration": "cd" * 32, "epochs": 30}
        write(tmp_path / str(seed), seed=seed, stopped_epoch=stopped, **same)
    assert build(tmp_path).sections[0].notes == [
        "Stopped early, as their config says: 2 of 3 runs of row 1, after 5 to 7 of 30 epochs."
    ]


def test_versions_and_uncommitted_changes_are_noted(tmp_path):
    write(tmp_path / "0")
    assert build(tmp_path).sections[0].notes == []
    write(tmp_path / "1", seed=1, fingerprint__torch="2.14.0", git__dirty=True)
    write(tmp_path / "2", seed=2, fmbench_version="0.2.0", git={"commit": "d" * 40, "dirty": True})
    made = build(tmp_path, tmp_path)
    assert made.sections[0].notes == [
        "The rows come from 2 versions of torch: 2.14.0, 2.15.0.",
        "The rows come from 2 versions of fmbench: 0.1.0, 0.2.0.",
        "The rows come from 2 commits of fmbench: abc123, ddddddd.",
        "Runs made with uncommitted changes to fmbench: 2.",
    ]
    (row,) = sheet_rows(tmp_path)
    assert (row["torch"], row["fmbench_version"]) == ("2.14.0 2.15.0", "0.1.0 0.2.0")
    assert (row["git_commit"], row["git_dirty"]) == (f"abc123 {'d' * 40}", "False True")
    assert (row["data_sha256"], row["split_hash"]) == ("d1" * 32, "5a" * 32)


def test_failures_stand_beside_n_wherever_they_happened(tmp_path):
    nothing = dict.fromkeys(("parameters", "flops", "test_accuracy", "device", "git"))
    early = {"data__sha256": None, "split__hash": None, "fingerprint": {}, "configuration": "e"}
    for seed in (0, 1):
        write(tmp_path / str(seed), seed=seed, config__seed=seed)
    early |= {"status": "failed", "error": "early"}
    other = {"config__seed": 2, "config__test_every": 1, "config__keep_model": True}
    write(tmp_path / "2", **other, **early, **nothing)
    write(tmp_path / "3", status="diverged", error="late", config__seed=3, test_accuracy=None)
    write(tmp_path / "4", config__epochs=9, **early, **nothing)
    # Two rows share the config: the early failure counts for one of them, once.
    write(tmp_path / "5", device="another", test_accuracy=0.5)
    made = build(tmp_path, tmp_path)
    counts = [row["n_failed"] for row in sheet_rows(tmp_path)]
    assert counts == ["2", "0"]
    assert column(made.markdown, "n") == ["2 of 4 (2 failed)", "1"]


def test_a_failure_that_knows_its_device_counts_there(tmp_path):
    write(tmp_path / "0", test_accuracy=0.95)
    write(tmp_path / "1", device="another", test_accuracy=0.5)
    write(tmp_path / "2", device="another", status="failed", error="memory", test_accuracy=None)
    assert [row["n_failed"] for row in build(tmp_path).sections[0].rows] == [0, 1]


def test_two_rows_that_share_an_option_keep_the_difference_inside_it(tmp_path):
    for number, share in enumerate((0.3, 0.4)):
        write(tmp_path / str(number), config__scheduler={"warmup": share, "_target_": "x"})
    write(tmp_path / "2", scheduler="cosine", config__scheduler={"T_max": 3, "_target_": "y"})
    assert {row["differs"] for row in build(tmp_path).sections[0].rows} == {
        "scheduler=onecycle, scheduler.warmup=0.3",
        "scheduler=onecycle, scheduler.warmup=0.4",
        "scheduler=cosine",
    }


def test_of_many_differences_those_that_tell_the_rows_apart_are_said():
    rows = [
        {
            "scheduler": "cosine",
            "loss": "cross_entropy",
            "configuration": "c" * 8,
            "config": json.dumps({"a": config}),
        }
        | dict.fromkeys((*SPLIT, *HARDWARE, *HASHES, "model_settings", "augmentation_settings"))
        | {column.key: None for column in SHOWN}
        for config in (
            {**dict.fromkeys("bcdefghi", 1), "last": 1},
            {**dict.fromkeys("bcdefghi", 2), "last": 1},
            {**dict.fromkeys("bcdefghi", 2), "last": 2},
        )
    ]
    said = differences(rows)
    assert {text.count("=") for text in said} == {MOST_DIFFERENCES}
    assert len(set(said)) == 3
    assert "a.last=2" in said[2]


def test_three_thousand_rows_alike_take_no_longer_than_they_must():
    config = {"optimizer": {f"p{number}": number for number in range(30)}}
    row = dict.fromkeys(("scheduler", "loss", *SPLIT, *HARDWARE, *HASHES))
    row |= dict.fromkeys(("model_settings", "augmentation_settings"))
    row |= {column.key: None for column in SHOWN} | {"configuration": "c" * 8}
    rows = []
    for decay in range(3_000):
        config["optimizer"]["weight_decay"] = decay
        rows.append({**row, "config": json.dumps(config)})
    start = time.perf_counter()
    said = differences(rows)
    assert time.perf_counter() - start < 5
    assert said[-1] == "optimizer.weight_decay=2999"


def test_data_of_an_unknown_name_stands_between_the_real_and_the_synthetic(tmp_path):
    for number, name in enumerate(("synthetic", "yours", "fashion_mnist")):
        write(tmp_path / str(number), data__name=name)
    made = build(tmp_path, tmp_path)
    titles = [section.title for section in made.sections]
    assert titles == ["Fashion-MNIST", "Data: yours", "Synthetic data"]
    names = [row["data"] for row in sheet_rows(tmp_path)]
    assert names == ["fashion_mnist", "yours", "synthetic"]


def test_markdown_numbers_are_flush_right(tmp_path):
    write(tmp_path / "0", **PUBLISHED)
    write(tmp_path / "1", config={"other": 1}, **PUBLISHED, **OTHER)
    headings, rule, row, _ = table_cells(build(tmp_path).markdown)
    left = {"model", "split", "augmentation", "optimizer", "device"}
    assert {text for text, flush in zip(headings, rule, strict=True) if flush == "---"} == left
    assert set(rule) == {"---", "---:"}
    assert row[0] == "1"


def test_each_row_links_to_its_runs(tmp_path):
    write(tmp_path / "a (b) [c]|d" / "1", seed=0)
    composed = tmp_path / "a (b) [c]|d" / "1" / ".hydra" / "config.yaml"
    composed.parent.mkdir()
    composed.write_text("")
    write(tmp_path / "0", seed=1)
    text = build(tmp_path, tmp_path / "out").markdown
    assert (
        r"Row 1: lenet, 90.01 ± 0.00 %. Runs: [../a (b) \[c\]&#124;d/1]"
        "(../a%20%28b%29%20%5Bc%5D%7Cd/1) "
        "([config](../a%20%28b%29%20%5Bc%5D%7Cd/1/.hydra/config.yaml)), "
        "[../0](../0) ([config](../0/result.json))"
    ) in text
    assert "```sh\npython -m fmbench -m model=lenet epochs=3 seed=0,1\n```" in text


@pytest.mark.parametrize("count", ["parameters", "flops"])
def test_runs_of_other_counts_are_no_seeds_of_one_row(tmp_path, count):
    """As of a model whose code was changed before records said so; the same seed is no repeat."""
    write(tmp_path / "0", **{count: 5130})
    write(tmp_path / "1", **{count: 5162})
    write(tmp_path / "2", seed=1, **{count: 5162})
    rows = report.benchmark_table(load_results(tmp_path)).to_dict("records")
    assert sorted((row["n"], row["n_repeats"], row[count]) for row in rows) == [
        (1, 0, 5130), (2, 0, 5162)
    ]  # fmt: skip
    assert sorted(row["differs"] for row in rows) == [f"{count}=5130", f"{count}=5162"]


def labelled(folder, label, accuracies, seconds=8.0, first=0, **changes):
    for n, accuracy in enumerate(accuracies):
        clock = {"train": seconds + n / 10, "evaluate": 0.4, "total": 9.2}
        write(
            folder / f"{label}{n}", seed=first + n, test_accuracy=accuracy, seconds=clock,
            configuration="c" * 32, key=f"{first + n:032x}", config__label=label, **changes,
        )  # fmt: skip


def test_a_label_makes_rows_of_one_configuration(tmp_path):
    labelled(tmp_path, "A", (0.9, 0.91, 0.92))
    labelled(tmp_path, "B", (0.9, 0.91, 0.93), first=3)
    write(tmp_path / "failed", config__label="B", status="failed", error="x", test_accuracy=None,
          configuration="c" * 32, seed=9)  # fmt: skip
    made = build(tmp_path)
    (section,) = made.sections
    assert [(row["label"], row["n"]) for row in section.rows] == [("B", 3), ("A", 3)]
    assert [row["n_failed"] for row in section.rows] == [1, 0]
    assert column(made.markdown, "label") == ["B", "A"]
    assert section.notes[0] == (
        "A/A: rows 1 (B), 2 (A) are one configuration, so that chance alone parts them: they share "
        "a rank, and their training times overlap."
    )


def test_an_aa_test_that_parts_its_rows_says_so(tmp_path):
    labelled(tmp_path, "A", (0.9, 0.9, 0.9001))
    labelled(tmp_path, "B", (0.8, 0.8001, 0.8), seconds=80.0, first=3)
    note = build(tmp_path).sections[0].notes[0]
    assert note.endswith("their ranks differ, and their training times do not overlap.")
    write(tmp_path / "other", model="other", config__label="A")
    assert sum("A/A" in note for note in build(tmp_path).sections[0].notes) == 1


@pytest.mark.parametrize("of_b", [
    {"runs_at_once": 4},
    {"seconds": {"train": 0.0, "evaluate": 0.0, "total": 0.0}},  # it was not measured
])  # fmt: skip
def test_the_times_of_an_aa_test_may_not_compare(tmp_path, of_b):
    labelled(tmp_path, "A", (0.9, 0.91, 0.92), runs_at_once=1)
    for n in range(3):
        write(
            tmp_path / f"B{n}", seed=3 + n, test_accuracy=0.9 + n / 100, configuration="c" * 32,
            key=f"{3 + n:032x}", config__label="B", **{"runs_at_once": 1, **of_b},
        )  # fmt: skip
    note = build(tmp_path).sections[0].notes[0]
    assert note.endswith("they share a rank, and their training times do not compare.")


def test_scores_of_the_test_images_are_columns_where_there_are_any(tmp_path):
    for seed, nll in enumerate((0.2, 0.4)):
        found = {"nll": nll, "ece": 0.01, "worst_class_accuracy": 0.5, "worst_class": 3}
        scores = {"test": found, "validation": {"nll": 9.0}}
        each = {name: [0.1 * seed] * 5 for name in CORRUPTIONS}
        corrupted = {"version": 1, "accuracies": each}
        write(tmp_path / str(seed), seed=seed, scores=scores, corrupted=corrupted)
    frame = load_results(tmp_path)
    assert frame["test_worst_class"].tolist() == [3, 3]
    (row,) = plain_rows(report.benchmark_table(frame))
    assert row["test_nll"] == pytest.approx(0.3)
    assert row["test_nll_sd"] == pytest.approx(0.2 / 2**0.5)
    cells = {column.title: column.cell(row) for column in shown([row])}
    assert cells["NLL"] == "0.3000"
    assert cells["ECE (%)"] == "1.00"
    assert "AURC" not in cells
    assert row["corrupted_accuracy"] == pytest.approx(0.05)
    assert re.search(r"\| *shot noise *\| *5\.00 *\|", build(tmp_path).markdown)
    write(tmp_path / "1", seed=1, corrupted={"version": 1, "accuracies": {"rotate": [0.5] * 5}})
    assert load_results(tmp_path)["corrupted_accuracy"].isna().tolist() == [False, True]
