"""The benchmark table and its outputs: right numbers, nothing hidden, nothing hostile gets out."""

import csv
import io
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
from records import PUBLISHED, write
from rich.console import Console

from fmbench import report
from fmbench.errors import StorageError
from fmbench.record import RUNNING
from fmbench.report import columns, escape, formats
from fmbench.report.__main__ import main
from fmbench.report.columns import METRICS, SHOWN, SPLIT
from fmbench.report.command import command, model_settings
from fmbench.report.differs import HARDWARE, HASHES, MOST_DIFFERENCES, differences
from fmbench.report.terminal import print_sections
from fmbench.results import load_results

# Each would do harm somewhere if it came out as it is.
HOSTILE = [
    "a|b",
    "a\nb | c",
    "| --- |\n|x|",
    "`code` ``` `",
    "<script>alert(1)</script>",
    "<!-- ",
    "[click](https://evil.example)",
    "![x](http://evil.example/x.png)",
    "https://evil.example www.evil.example a@evil.example @bob #1",
    "*bold* _em_ __strong__ ~~gone~~ $x$",
    "=cmd()",
    "+1",
    "-1",
    "@sum",
    "\tx",
    "\rx",
    "\\|",
    "\\",
    "[red]x[/red] [/]",
    "\x1b[31mred\x1b[0m",
    "&lt;b&gt;",
    "\u202eevil\u2028x",
    "</details>",
    "é漢字",
]


def build(folder: Path, output: Path | None = None) -> report.Report:
    return report.build([folder], output)


def table_cells(markdown: str) -> list[list[str]]:
    """The rows of the first Markdown table, header and rule included."""
    lines = markdown[markdown.index("| # | net |") :].split("\n\n", maxsplit=1)[0].split("\n")
    # A bar ends a cell unless a backslash stands before it.
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def cell(markdown: str, heading: str, row: int = 0) -> str:
    """What stands below a heading of the first Markdown table, `row` lines down."""
    headings, _, *rows = table_cells(markdown)
    return rows[row][[text.partition(" (")[0] for text in headings].index(heading)]


def printed(made: report.Report, width: int | None = None) -> str:
    """What a terminal of some width shows, or what a pipe gets."""
    file = io.StringIO()
    terminal = {"force_terminal": True, "color_system": None, "width": width} if width else {}
    print_sections(made.sections, made.problems, Console(file=file, **terminal))
    return file.getvalue()


# --- the table --------------------------------------------------------------------------------


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


def test_columns_come_in_the_order_people_were_promised(tmp_path):
    write(tmp_path)
    assert table_cells(build(tmp_path).markdown)[0] == [
        *("#", "net", "data", "split", "augmentation", "optimizer", "learning rate", "batch size"),
        *("epochs", "n", "test accuracy (last epoch, %)", "best on test (optimistic, %)"),
        *("parameters", "FLOPs", "training time", "evaluation time", "total time", "images/s"),
        *("peak memory", "device"),
    ]


def test_best_last_epoch_first_whatever_was_best_on_test(tmp_path):
    write(tmp_path / "0", model="good", test_accuracy=0.92, best_test_accuracy=0.92)
    write(tmp_path / "1", model="lucky", test_accuracy=0.91, best_test_accuracy=0.99)
    write(tmp_path / "2", model="b-tie", test_accuracy=0.915)
    write(tmp_path / "3", model="a-tie", test_accuracy=0.915)
    nets = [row["model"] for row in build(tmp_path).sections[0].rows]
    assert nets == ["good", "a-tie", "b-tie", "lucky"]


def test_the_same_run_again_counts_once_and_the_newest_counts(tmp_path):
    write(tmp_path / "0", test_accuracy=0.93, started="2026-11-20T12:00:00Z")
    write(tmp_path / "1", test_accuracy=0.91, started="2026-11-20T11:00:00Z")
    write(tmp_path / "2", seed=1, test_accuracy=0.93)
    (section,) = build(tmp_path).sections
    (row,) = section.rows
    assert (row["n"], row["n_repeats"]) == (2, 1)
    assert row["test_accuracy"] == pytest.approx(0.93)
    assert section.summary == "3 of 3 runs completed (repeats of a run, which count once: 1)."


def test_devices_and_precisions_are_rows_of_their_own(tmp_path):
    write(tmp_path / "0")
    write(tmp_path / "1", device="NVIDIA H100")
    write(tmp_path / "2", fingerprint__precision="bf16")
    made = build(tmp_path)
    devices = {cells[-1] for cells in table_cells(made.markdown)[2:]}
    assert devices == {
        *("AMD EPYC, 2 threads, fp32", "NVIDIA H100, fp32", "AMD EPYC, 2 threads, bf16")
    }
    assert "not all measured on the same terms (device, precision)" in made.markdown


def test_rows_that_look_the_same_say_how_they_differ(tmp_path):
    write(tmp_path / "0", config__optimizer__weight_decay=0.001, test_accuracy=0.93)
    write(tmp_path / "1", test_accuracy=0.92)
    write(tmp_path / "2", scheduler="cosine", config__scheduler={"T_max": 3}, test_accuracy=0.91)
    write(tmp_path / "3", model="resnet18", test_accuracy=0.90)
    nets = [cells[1] for cells in table_cells(build(tmp_path).markdown)[2:]]
    assert nets == [
        "lenet (scheduler=onecycle, optimizer.weight_decay=0.001)",
        "lenet (scheduler=onecycle, optimizer.weight_decay=0.0005)",
        "lenet (scheduler=cosine, optimizer.weight_decay=0.0005)",
        "resnet18",
    ]


def test_rows_alike_in_all_but_their_hash_show_it(tmp_path):
    write(tmp_path / "0", configuration="aaaaaaaabb", key="1")
    write(tmp_path / "1", configuration="ccccccccdd", key="2")
    write(tmp_path / "2", configuration="ccccccccdd", key="3", fingerprint__threads=4)
    nets = {cells[1] for cells in table_cells(build(tmp_path).markdown)[2:]}
    assert nets == {
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


def test_mixed_splits_are_noted(tmp_path):
    write(tmp_path / "0")
    assert "mix splits" not in build(tmp_path).markdown
    write(tmp_path / "1", split__name="custom")
    said = "mix splits (custom 60,000/0/10,000; standard 60,000/0/10,000)"
    assert said in build(tmp_path).markdown


def test_runs_that_did_not_complete_are_counted_and_listed(tmp_path):
    write(tmp_path / "0")
    write(tmp_path / "1", status="failed", error="Out of\nmemory | 3 GiB", test_accuracy=None)
    write(tmp_path / "2", status="diverged", error="x" * 9_999, test_accuracy=None)
    made = build(tmp_path, tmp_path)
    assert (made.completed, made.failed, made.exit_status) == (1, 2, 0)
    assert "1 of 3 runs completed." in made.markdown
    assert (
        "| lenet | 0 | failed | Out of memory &#124; 3 GiB | 2026-11-20 23:00 UTC | 1 |"
        in made.markdown
    )
    assert max(map(len, made.markdown.splitlines())) < 1_000
    assert "- failed: lenet in" in printed(made)
    (row,) = sheet_rows(tmp_path)
    assert row["n_failed"] == "2"


def test_a_running_record_is_listed_with_its_start_and_not_counted_as_completed(tmp_path):
    write(tmp_path / "0")
    write(tmp_path / "1", seed=1, status=RUNNING, test_accuracy=None)
    made = build(tmp_path, tmp_path)
    assert (made.completed, made.failed) == (1, 1)
    assert "1 of 2 runs completed (still running, or killed: 1)." in made.markdown
    listed = "| lenet | 1 | running | still running, or killed | 2026-11-20 23:00 UTC | 1 |"
    assert listed in made.markdown
    shown = "running: lenet in 1: still running, or killed; started 2026-11-20 23:00 UTC"
    assert shown in printed(made).replace(os.path.relpath(tmp_path) + "/", "")
    (row,) = sheet_rows(tmp_path)
    assert (row["n"], row["n_failed"], row["n_unfinished"]) == ("1", "0", "1")
    assert cell(made.markdown, "n") == "1 of 2 (1 unfinished)"


def test_seeds_on_gpu_hosts_with_different_processors_are_one_row(tmp_path):
    for seed, threads in enumerate((8, 64)):
        hardware = {"fingerprint__device": "cuda", "fingerprint__threads": threads}
        write(tmp_path / f"gpu-{seed}", device="NVIDIA H100", seed=seed, **hardware)
        write(tmp_path / f"cpu-{seed}", seed=seed, fingerprint__threads=threads)
    rows = report.benchmark_table(load_results(tmp_path)).to_dict("records")
    assert sorted(row["n"] for row in rows if row["device"] == "NVIDIA H100") == [2]
    assert sorted(row["n"] for row in rows if row["device"] != "NVIDIA H100") == [1, 1]


@pytest.mark.parametrize(
    ("field", "other"), [("memory_format", "contiguous"), ("deterministic", True)]
)
def test_what_may_change_bits_or_speed_makes_a_row(tmp_path, field, other):
    write(tmp_path / "0")
    write(tmp_path / "1", seed=1, **{f"fingerprint__{field}": other})
    rows = build(tmp_path).sections[0].rows
    assert [row["n"] for row in rows] == [1, 1]
    assert {row["differs"].partition("=")[0] for row in rows} == {field}


def test_completed_runs_without_a_fingerprint_are_kept_and_grouped(tmp_path):
    for seed in (0, 1):
        write(tmp_path / str(seed), seed=seed, fingerprint=None, device=None)
    (row,) = build(tmp_path).sections[0].rows
    assert (row["n"], row["device"]) == (2, None)


def test_an_undated_repeat_counts_as_the_older(tmp_path):
    write(tmp_path / "0", test_accuracy=0.91)
    write(tmp_path / "1", test_accuracy=0.93, started=None)
    (row,) = build(tmp_path).sections[0].rows
    assert row["test_accuracy"] == 0.91


def test_repeats_are_summed_over_rows(tmp_path):
    for number, batch_size in enumerate((64, 64, 256, 256, 256)):
        write(tmp_path / str(number), batch_size=batch_size)
    (section,) = build(tmp_path).sections
    assert section.summary == "5 of 5 runs completed (repeats of a run, which count once: 3)."


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
    assert cell(made.markdown, "best on test") == "-"
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


def test_the_split_and_the_net_say_what_was_trained(tmp_path):
    write(
        tmp_path,
        model="torchvision/resnet34",
        overrides=["model=torchvision", "model.name=resnet34", "+model.width=8", "model.width=16"],
        split__train=2_500,
        split__validation=500,
    )
    made = build(tmp_path, tmp_path)
    row = table_cells(made.markdown)[2]
    assert (row[1], row[3]) == ("torchvision/resnet34 width=16", "standard 2,500/500/10,000")
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
    rows = table_cells(made.markdown)[2:5]
    assert [row[1] for row in rows] == ["lenet"] * 3
    assert [row[4].replace("\\", "") for row in rows] == [
        "crop_flip cutout={size:8}", "crop_flip cutout={size:14}", "crop_flip cutout=null"
    ]  # fmt: skip
    first = sheet_rows(tmp_path)[0]
    assert first["augmentation"] == "crop_flip"
    assert first["augmentation_settings"] == "cutout={size:8}"


def test_several_draws_of_a_split_and_several_data_are_noted(tmp_path):
    write(tmp_path / "0")
    write(tmp_path / "1", split__hash="77" * 32)
    (section,) = build(tmp_path).sections
    (note,) = section.notes
    assert {row["differs"] for row in section.rows} == {
        *("split_hash=5a5a5a5a", "split_hash=77777777")
    }
    assert "The split standard 60,000/0/10,000 was drawn in 2 ways" in note
    write(tmp_path / "2", data__sha256="88" * 32)
    assert "2 different contents of the data set" in build(tmp_path).markdown


def test_several_drawings_of_the_synthetic_data_are_noted(tmp_path):
    for seed in (1, 2):
        changes = {"data__name": "synthetic", "data__sha256": f"{seed:064}"}
        write(tmp_path / str(seed), split__hash=f"{seed:064}", **changes)
    _, note = build(tmp_path).sections[0].notes
    assert "2 different drawings" in note


def test_versions_and_uncommitted_changes_are_noted(tmp_path):
    write(tmp_path / "0")
    assert build(tmp_path).sections[0].notes == []
    write(tmp_path / "1", seed=1, fingerprint__torch="2.14.0", git__dirty=True)
    write(tmp_path / "2", seed=2, fmbench_version="0.2.0", git={"commit": "d" * 40, "dirty": True})
    made = build(tmp_path, tmp_path)
    assert made.sections[0].notes == [
        "The rows come from torch 2.14.0 and 2.15.0.",
        "The rows come from fmbench 0.1.0 and 0.2.0.",
        "The rows come from 2 commits of fmbench: abc123 and ddddddd.",
        "2 runs were made with uncommitted changes to fmbench.",
    ]
    (row,) = sheet_rows(tmp_path)
    assert (row["torch"], row["fmbench_version"]) == ("2.14.0 2.15.0", "0.1.0 0.2.0")
    assert (row["git_commit"], row["git_dirty"]) == (f"abc123 {'d' * 40}", "False True")
    assert (row["data_sha256"], row["split_hash"]) == ("d1" * 32, "5a" * 32)


def test_repeats_that_disagree_are_noted(tmp_path):
    write(tmp_path / "0", model="agrees", test_accuracy=0.95)
    write(tmp_path / "1", model="agrees", test_accuracy=0.95004)
    assert build(tmp_path).sections[0].notes == []
    write(tmp_path / "2", test_accuracy=0.91)
    write(tmp_path / "3", test_accuracy=0.9101)
    (note,) = build(tmp_path).sections[0].notes
    assert note.endswith("disagree by more than 0.005 points: row 2.")


def test_failures_stand_beside_n_wherever_they_happened(tmp_path):
    nothing = dict.fromkeys(("parameters", "flops", "test_accuracy", "device", "git"))
    early = {"data__sha256": None, "split__hash": None, "fingerprint": {}, "configuration": "e"}
    for seed in (0, 1):
        write(tmp_path / str(seed), seed=seed, config__seed=seed)
    write(
        tmp_path / "2",
        status="failed",
        error="early",
        config__seed=2,
        config__test_every=1,
        config__keep_model=True,
        **early,
        **nothing,
    )
    write(tmp_path / "3", status="diverged", error="late", config__seed=3, test_accuracy=None)
    write(tmp_path / "4", status="failed", error="other", config__epochs=9, **early, **nothing)
    # Two rows share the config: the early failure counts for one of them, once.
    write(tmp_path / "5", device="another", test_accuracy=0.5)
    made = build(tmp_path, tmp_path)
    counts = [row["n_failed"] for row in sheet_rows(tmp_path)]
    assert counts == ["2", "0"]
    assert [cells[9] for cells in table_cells(made.markdown)[2:]] == ["2 of 4 (2 failed)", "1"]


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
        {"scheduler": "cosine", "configuration": "c" * 8, "config": json.dumps({"a": config})}
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
    row = dict.fromkeys(("scheduler", *SPLIT, *HARDWARE, *HASHES))
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
    write(tmp_path / "lost", data=None, choices={"data": 3}, status="failed", test_accuracy=None)
    made = build(tmp_path, tmp_path)
    titles = [section.title for section in made.sections]
    assert titles == ["Fashion-MNIST", "Data: unknown", "Data: yours", "Synthetic data"]
    names = [row["data"] for row in sheet_rows(tmp_path)]
    assert names == ["fashion_mnist", "yours", "synthetic"]


def test_markdown_numbers_are_flush_right(tmp_path):
    write(tmp_path, **PUBLISHED)
    headings, rule, row = table_cells(build(tmp_path).markdown)
    left = {"net", "data", "split", "augmentation", "optimizer", "device"}
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


# --- published figures ------------------------------------------------------------------------


def published_row(folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """The published columns of a table of one row: as people read them, and as CSV has them."""
    heading, _, *rows = table_cells(build(folder, folder).markdown)
    (row,), (raw,) = rows, sheet_rows(folder)
    return dict(zip(heading, (cell.replace("\\", "") for cell in row), strict=True)), raw


def test_published_figures_stand_beside_ours_with_the_difference(tmp_path):
    write(tmp_path / "0", best_test_accuracy=0.9035, test_accuracy=0.9, **PUBLISHED)
    write(tmp_path / "1", seed=1, best_test_accuracy=0.9045, test_accuracy=0.9, **PUBLISHED)
    shown, raw = published_row(tmp_path)
    assert shown["published (%)"] == "89.70, best epoch on test"
    assert shown["difference (points)"] == "+0.70"  # the best epochs', 90.40 in the mean
    assert shown["published time"] == "18 min 29 s, GTX 1070"
    assert float(raw["difference"]) == pytest.approx(0.007)
    assert raw["difference_of"] == "best epoch on test"
    assert raw["published_parameters"] == "61706"
    assert "Published in a project (best epoch on test)." in build(tmp_path).markdown


def test_a_last_epoch_compared_with_a_best_on_test_says_so(tmp_path):
    write(tmp_path / "0", test_accuracy=0.9, best_test_accuracy=0.95, **PUBLISHED)
    write(tmp_path / "1", seed=1, test_accuracy=0.9, **PUBLISHED)  # this one did not look
    assert published_row(tmp_path)[0]["difference (points)"] == "+0.30, last epoch"


@pytest.mark.parametrize(
    ("protocol", "accuracy"),
    [("last epoch", "89.70, last epoch"), ("not stated", "89.70, protocol not stated")],
)
def test_other_protocols_are_compared_with_the_last_epoch(tmp_path, protocol, accuracy):
    reference = {**PUBLISHED["reference"], "protocol": protocol}
    write(
        tmp_path,
        test_accuracy=0.89,
        best_test_accuracy=0.95,
        **{**PUBLISHED, "reference": reference},
    )
    shown, raw = published_row(tmp_path)
    assert shown["published (%)"] == accuracy
    assert shown["difference (points)"] == "-0.70"
    assert raw["difference_of"] == "last epoch"
    said = accuracy.partition(", ")[2]
    assert f"Published in a project ({said})." in build(tmp_path).markdown


def test_the_best_of_fewer_looks_is_not_compared_with_the_best_of_all(tmp_path):
    changes = {**PUBLISHED, "config__test_every": 10}
    write(tmp_path, test_accuracy=0.9, best_test_accuracy=0.95, **changes)
    assert published_row(tmp_path)[0]["difference (points)"] == "+0.30, last epoch"


def test_of_two_experiments_with_one_recipe_the_one_it_is_published_under_counts(tmp_path):
    write(tmp_path / "0", started="2026-11-20T10:00:00Z", **PUBLISHED)
    other = {**PUBLISHED, "experiment": "other", "deviations": ["model=lenet"]}
    write(tmp_path / "1", seed=1, started="2026-11-20T11:00:00Z", **other)
    shown, raw = published_row(tmp_path)
    assert raw["experiment"] == "lenet"
    assert shown["difference (points)"] == "+0.31, last epoch"


def test_where_nothing_was_published_no_recipe_was_changed(tmp_path):
    reference = {**PUBLISHED["reference"], "accuracy": None}
    write(tmp_path, **{**PUBLISHED, "reference": reference, "deviations": ["epochs=3"]})
    heading = table_cells(build(tmp_path, tmp_path).markdown)[0]
    assert "difference (points)" not in heading
    (raw,) = sheet_rows(tmp_path)
    assert (raw["experiment"], raw["deviations"]) == ("lenet", "epochs=3")


def test_a_time_that_is_about_so_much_says_so(tmp_path):
    reference = {**PUBLISHED["reference"], "seconds": 144_000, "approximate": True}
    write(tmp_path, **{**PUBLISHED, "reference": reference})
    assert published_row(tmp_path)[0]["published time"] == "about 40 h 00 min, GTX 1070"


def test_a_row_with_options_of_the_users_says_where_they_are_to_be_put(tmp_path):
    write(tmp_path, config_dir=True)
    assert (
        "python -m fmbench --config-dir DIR model=lenet epochs=3 seed=0" in build(tmp_path).markdown
    )


def test_a_changed_recipe_has_no_difference(tmp_path):
    write(tmp_path, **{**PUBLISHED, "deviations": ["epochs=3"]})
    shown, raw = published_row(tmp_path)
    assert shown["difference (points)"] == "recipe changed"
    assert (raw["difference"], raw["deviations"]) == ("", "epochs=3")
    assert "Otherwise than published: epochs=3." in build(tmp_path).markdown


def test_a_reference_without_an_accuracy_has_no_difference(tmp_path):
    reference = {**PUBLISHED["reference"], "accuracy": None, "seconds": None}
    write(tmp_path / "0", **{**PUBLISHED, "reference": reference})
    write(tmp_path / "1", model="other", **PUBLISHED)
    heading, _, *rows = table_cells(build(tmp_path).markdown)
    (row,) = (row for row in rows if row[1] == "lenet")
    assert {row[heading.index(name)] for name in ("published (%)", "published time")} == {"-"}
    assert row[heading.index("difference (points)")] == "-"


def test_published_figures_are_about_the_real_data(tmp_path):
    write(tmp_path, data__name="synthetic", **PUBLISHED)
    assert "published" not in table_cells(build(tmp_path).markdown)[0]


def test_a_repeat_typed_without_its_experiment_keeps_the_published_figures(tmp_path):
    write(tmp_path / "0", started="2026-11-20T10:00:00Z", **PUBLISHED)
    write(tmp_path / "1", started="2026-11-20T11:00:00Z")
    assert published_row(tmp_path)[0]["published (%)"] == "89.70, best epoch on test"


# --- formats ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (formats.percent(0.90164), "90.16"),
        (METRICS["test_accuracy"].with_spread(0.9016, 0.0012), "90.16 ± 0.12"),
        (METRICS["test_accuracy"].interval(0.9, 0.9123), "90.00 to 91.23"),
        (formats.percent(None), "-"),
        (formats.count(61706), "61,706"),
        (formats.number(1e-05), "1e-05"),
        (formats.rate(22_222.2), "22,222"),
        (formats.rate(99.96), "100"),
        (formats.rate(41.25), "41.2"),
        (formats.rate(None), "-"),
        (formats.split("custom", 30_000, 0, 40_000), "custom 30,000/0/40,000"),
        (formats.split("custom", None, None, None), "custom"),
        (formats.seeds(3, 0, 0), "3"),
        (formats.seeds(3, 1, 2), "3 of 6 (1 failed, 2 unfinished)"),
        (formats.flops(833_040), "0.83 M"),
        (formats.flops(1_113_000_000), "1.11 G"),
        (formats.flops(7), "7"),
        (formats.duration(0.42), "0.42 s"),
        (formats.duration(8.06), "8.1 s"),
        (formats.duration(59.96), "1 min 00 s"),
        (formats.duration(1109), "18 min 29 s"),
        (formats.duration(3599.7), "1 h 00 min"),
        (formats.duration(7_380), "2 h 03 min"),
    ],
)
def test_formats(text, expected):
    assert text == expected


def test_a_command_survives_the_shell():
    words = ["model=a b", "x='y'", "+z=$(reboot) `id`"]
    assert shlex.split(command(tuple(words), [0]))[3:] == [*words, "seed=0"]
    assert command(("seed=4", "model=lenet"), [4]) == "python -m fmbench model=lenet seed=4"
    line = command(("a=b'\n```\n\\n",), [])
    assert "\n" not in line
    told = f'set -- {line.removeprefix("python -m fmbench")}; printf %s "$1"'
    echoed = subprocess.run(["bash", "-c", told], capture_output=True, check=True).stdout
    assert echoed.decode() == "a=b'\n```\n\\n"


# --- hostile values ---------------------------------------------------------------------------


def write_hostile(folder: Path) -> None:
    for number, value in enumerate(HOSTILE):
        names = dict.fromkeys(("model", "augmentation", "optimizer", "device"), value)
        write(
            folder / str(number), split__name=value, overrides=[value], config={value: 1}, **names,
            experiment=value, deviations=[value] * (number % 2),
            reference={"accuracy": 0.9, "protocol": value, "source": value, "device": value,
                       "seconds": 9},
        )  # fmt: skip
        write(folder / f"failed-{number}", status="failed", error=value, model=value)
        write(folder / f"data-{number}", data__name=value)


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
    ours = re.sub(r"\[[\w./-]+\]\([\w./-]+\)|\*\*", "", prose)
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


# --- the terminal -----------------------------------------------------------------------------


def test_a_pipe_gets_every_column_and_whole_lines(tmp_path):
    for number in range(30):
        write(tmp_path / str(number), model=f"net-{number}", **PUBLISHED)
        write(tmp_path / f"x{number}", status="failed", error="why " * 50, test_accuracy=None)
    text = printed(build(tmp_path))
    heading = next(line for line in text.splitlines() if line.startswith(" #  net"))
    (section,) = build(tmp_path).sections
    assert re.split("  +", heading.strip()) == [
        column.title for column in columns.shown(section.rows)
    ]
    row = next(line for line in text.splitlines() if "  net-7 " in line)
    assert row.endswith("AMD EPYC, 2 threads, fp32")
    assert row.index("AMD") == heading.index("device")
    assert text.count("failed: ") == 30


@pytest.mark.parametrize("width", [60, 80, 120, 250])
def test_a_terminal_gets_what_fits_and_is_told_the_rest(tmp_path, width):
    for batch_size in (64, 256):
        write(
            tmp_path / str(batch_size), batch_size=batch_size, test_accuracy=0.9 + batch_size / 1e4
        )
    text = printed(build(tmp_path), width)
    assert max(map(len, text.splitlines())) <= width
    assert "92.56" in text
    words = " ".join(text.split())
    if width < 250:
        assert "All rows: data fashion_mnist; split standard" in words
    if width == 60:
        assert "In benchmark.md, or in a wider window: " in words
        assert "FLOPs." in words or "FLOPs;" in words


def styled(made: report.Report, width: int) -> list[str]:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, color_system="standard", width=width)
    print_sections(made.sections, made.problems, console)
    return file.getvalue().splitlines()


def test_the_best_row_is_highlighted_and_no_other(tmp_path):
    write(tmp_path / "0", model="best", test_accuracy=0.95)
    bold_green = "\x1b[1;32m"
    assert not [line for line in styled(build(tmp_path), 200) if bold_green in line]
    write(tmp_path / "1", model="second", test_accuracy=0.9)
    (line,) = (line for line in styled(build(tmp_path), 200) if bold_green in line)
    assert "best" in line


def test_a_column_without_any_value_is_not_shown_in_a_terminal(tmp_path):
    write(tmp_path / "0")
    assert "best" not in printed(build(tmp_path), 250)
    write(tmp_path / "1", model="other", best_test_accuracy=0.95)
    assert "best" in printed(build(tmp_path), 250)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_what_tells_rows_apart_outlasts_what_was_measured(tmp_path, width):
    for number, device in enumerate(("AMD EPYC 9B14 96-Core Processor, 2 threads", "NVIDIA H100")):
        for batch_size in (64, 256):
            folder = tmp_path / f"{number}-{batch_size}"
            write(folder, device=device, batch_size=batch_size, test_accuracy=0.9)
    text = printed(build(tmp_path), width)
    table = text[: text.index("All rows: ")]
    assert max(map(len, text.splitlines())) <= width
    assert width > 60 or "wider window: " in text
    for word in ("NVIDIA", "EPYC", " 64 ", " 256 ", "90.00"):
        assert table.count(word) == (4 if word == "90.00" else 2)


def test_a_column_that_leaves_the_rows_distinct_goes_before_one_that_does_not(tmp_path):
    for number, precision in enumerate(("fp32", "bf16")):
        write(tmp_path / f"{number}", fingerprint__precision=precision)
        changes = {"model": "resnet18", "split__name": "custom"}
        write(tmp_path / f"x{number}", fingerprint__precision=precision, **changes)
    text = printed(build(tmp_path), 45)
    assert "bf16" in text
    assert "In benchmark.md, or in a wider window: split" in " ".join(text.split())


def test_a_terminal_shows_fifty_rows_and_a_pipe_all(tmp_path):
    for number in range(53):
        write(tmp_path / str(number), model=f"net-{number}")
    made = build(tmp_path)
    text = printed(made, 250)
    assert (text.count("net-"), "And 3 more rows: see benchmark.md." in text) == (50, True)
    text = printed(made)
    assert (text.count("net-"), "more rows" in text) == (53, False)


# --- files and the command --------------------------------------------------------------------


def test_files_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    write(tmp_path / "0")
    build(tmp_path, tmp_path)
    before = (tmp_path / "benchmark.md").read_bytes()
    write(tmp_path / "1", model="resnet18")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match=r"benchmark\.md: cannot be written: No space left"):
        build(tmp_path, tmp_path)
    assert (tmp_path / "benchmark.md").read_bytes() == before
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"0", "1", *(f"benchmark.{kind}" for kind in ("md", "html", "csv", "json"))}


def sheet_rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "benchmark.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return stop.value.code, out, err


def test_the_command_prints_and_writes(tmp_path, capsys):
    write(tmp_path / "runs" / "0")
    status, out, err = run(capsys, tmp_path / "runs", "--output", tmp_path / "new" / "place")
    assert (status, err) == (0, "")
    assert "90.01" in out
    assert f"Written: {tmp_path / 'new' / 'place' / 'benchmark.md'}, " in out
    assert "../../runs" not in out


def test_unreadable_records_give_status_4_and_the_rest_is_written(tmp_path, capsys):
    write(tmp_path / "0")
    write(tmp_path / "1", schema=2)
    status, out, _ = run(capsys, tmp_path, "--output", tmp_path)
    assert status == 4
    assert "schema 2 is newer" in out
    text = (tmp_path / "benchmark.md").read_text(encoding="utf-8")
    assert "| 1/result.json | schema 2 is newer" in text


def test_a_folder_that_does_not_exist_gives_status_2_and_one_line(tmp_path, capsys):
    status, out, err = run(capsys, tmp_path / "gone")
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert "gone is not a folder" in err
    assert run(capsys, "--nonsense")[0] == 2


def test_an_output_that_cannot_be_gives_status_5_and_one_line(tmp_path, capsys):
    write(tmp_path / "0")
    (tmp_path / "file").write_text("")
    status, _, err = run(capsys, tmp_path, "--output", tmp_path / "file")
    assert status == 5
    assert err.count("\n") == 1


def test_no_completed_run_says_how_to_make_one_and_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, _ = run(capsys)
    assert status == 0
    assert "No completed run below outputs or multirun" in out
    assert "python -m fmbench data=synthetic" in out
    write(tmp_path / "outputs" / "0", status="failed", error="why", test_accuracy=None)
    write(tmp_path / "outputs" / "1", schema=2)
    status, out, _ = run(capsys)
    assert status == 4
    assert "why" in out
    assert "0 of 1 runs completed." in out
    assert [path.name for path in tmp_path.iterdir()] == ["outputs"]


def test_default_folders_are_those_that_exist(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "multirun" / "sweep" / "0")
    status, _, _ = run(capsys)
    assert status == 0
    assert (tmp_path / "benchmark.md").exists()


def test_a_reader_that_stops_early_does_no_harm(tmp_path):
    for number in range(300):
        write(tmp_path / str(number), model=f"net-{number}")
    line = f"{sys.executable} -m fmbench.report {tmp_path} --output {tmp_path} | head -1"
    ended = subprocess.run(["bash", "-c", line], capture_output=True, check=True)
    assert (ended.stdout, ended.stderr) == (b"Fashion-MNIST\n", b"")
    write(tmp_path / "newer", schema=2)
    line = f"set -o pipefail; {line}"
    assert subprocess.run(["bash", "-c", line], capture_output=True, check=False).returncode == 4


@pytest.mark.parametrize(
    ("output", "said"),
    [("> /dev/full", "cannot be written: No space left on device"), (">&-", "is closed")],
)
def test_an_output_that_takes_nothing_gives_status_5_and_one_line(tmp_path, output, said):
    write(tmp_path / "0")
    line = f"{sys.executable} -m fmbench.report {tmp_path} --output {tmp_path} {output}"
    ended = subprocess.run(["bash", "-c", line], capture_output=True, check=False, text=True)
    assert ended.returncode == 5
    assert ended.stderr.count("\n") == 1
    assert said in ended.stderr
    assert (tmp_path / "benchmark.md").exists()


def test_the_report_does_not_import_torch_and_help_not_even_pandas(tmp_path):
    write(tmp_path)
    code = (
        "import sys, pathlib, fmbench.report\n"
        "assert 'pandas' not in sys.modules\n"
        f"made = fmbench.report.build([pathlib.Path({str(tmp_path)!r})], None)\n"
        "fmbench.report.print_tables(made)\n"
        "assert made.completed == 1\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_csv_holds_raw_numbers(tmp_path):
    write(tmp_path / "0", flops=None)
    write(tmp_path / "1", flops=None, seed=-1, seconds__train=10.1, peak_memory=512_000_001)
    build(tmp_path, tmp_path)
    (row,) = sheet_rows(tmp_path)
    assert row["repeats_spread"] == ""
    assert (row["seeds"], row["peak_memory"]) == ("'-1 0", "512000000")
    assert float(row["seconds_train_sd"]) == pytest.approx(2**0.5)
    assert (row["test_accuracy"], row["parameters"], row["flops"]) == ("0.9001", "61706", "")
    assert (row["seconds_train"], row["seconds_total"]) == ("9.1", "9.2")
    assert json.loads(row["n"]) == 2
