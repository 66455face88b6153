"""The benchmarks run and compare like with like; what they measure is no test's business."""

import importlib
import json
import os
import re
import sys
from dataclasses import replace

import pytest
import records
import torch
from commands import CHECKOUT
from torch import nn

from fmbench.records.reader import read_results
from fmbench.report import benchmark_table
from fmbench.training.cost import count_flops

sys.path.insert(0, str(CHECKOUT))

from benchmarks import accuracy, limit, overhead, peak, picture, report, threads, throughput, timing
from benchmarks.contest import Contest
from benchmarks.timing import Spread, Timed

everything = importlib.import_module("benchmarks.__main__")

pytestmark = pytest.mark.slow

FOLDER = CHECKOUT / "benchmarks"
START = 'if __name__ == "__main__":'
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py") if START in path.read_text("utf-8"))

SMALL = ("data.train_size=200", "data.test_size=50", "threads=1")


@pytest.fixture
def augment():
    return importlib.import_module("benchmarks.augment")


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on only when it is told."""

    class Clock:
        now = 0.0

        def perf_counter(self) -> float:
            return self.now

    made = Clock()
    monkeypatch.setattr(timing, "time", made)
    return made


@pytest.fixture(autouse=True)
def _no_waiting_for_disks(monkeypatch):
    monkeypatch.setattr(report.os, "sync", lambda: None)


def test_each_script_has_one_command_in_the_readme_and_opens_with_it():
    page = (FOLDER / "README.md").read_text("utf-8")
    found = dict(re.findall(r"^\| `(\w+)\.py` \|.*\| `(.*)` \|$", page, re.MULTILINE))
    assert sorted(found) == SCRIPTS
    for name, command in found.items():
        module = "benchmarks" if name == "__main__" else f"benchmarks.{name}"
        assert command.split()[:3] == ["python", "-m", module]
        assert f"\n    {command}" in (FOLDER / f"{name}.py").read_text("utf-8")


@pytest.mark.parametrize("name", SCRIPTS)
def test_each_script_explains_itself(name, capsys):
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"benchmarks.{name}").main(["--help"])
    assert ended.value.code == 0
    assert "--json" in capsys.readouterr().out or name == "picture"


def test_work_that_a_device_has_queued_is_timed_with_its_contender(clock):
    queued = []

    def wait():
        clock.now += sum(queued)
        queued.clear()

    def queue(seconds, items):
        queued.append(seconds)
        return items

    contenders = {"slow": lambda: queue(4, 8), "fast": lambda: queue(1, 8)}
    rates = timing.interleaved(contenders, 2, wait=wait)
    assert rates == {"slow": [2, 2], "fast": [8, 8]}


def test_turns_end_with_the_budget_but_three_are_measured(clock):
    def work():
        clock.now += 10
        return 5

    assert timing.interleaved({"one": work}, 9, budget=1)["one"] == [0.5] * 3
    assert len(timing.interleaved({"one": work}, 9, budget=65)["one"]) == 6
    assert len(timing.interleaved({"one": work}, 9)["one"]) == 9


def test_a_contender_may_read_the_clock_itself(clock):
    def work():
        clock.now += 10
        return Timed(items=6, seconds=2)

    assert timing.interleaved({"own": work}, 1) == {"own": [3]}


def test_growth_is_by_ten_times_the_size():
    assert timing.per_tenfold((100, 2), (1000, 20)) == pytest.approx(10)
    assert timing.per_tenfold((100, 2), (10_000, 200)) == pytest.approx(10)
    assert timing.per_tenfold((10, 3), (1000, 12)) == pytest.approx(2)


def test_threads_quiet_and_beside_others():
    found = threads.measure(
        "lenet5", [8], others=[0, 1], repeats=1, seconds=0.01, data="synthetic", overrides=SMALL[:2]
    )
    assert {name.partition(": ")[0] for name in found} == {"quiet, batch 8", "1 busy, batch 8"}
    assert all(value.median > 0 for value in found.values() if not isinstance(value, str))
    lines = threads.rows(found).splitlines()
    assert [len(re.split("  +", line)) for line in lines] == [8, 8, 8]


def test_the_share_of_the_peak_counts_a_multiply_add_as_two_and_three_ways_forward():
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    flops = count_flops(net)
    assert flops == 2 * 784 * 10
    share = peak.share_of_peak(flops, 1e9, "NVIDIA H100 80GB HBM3")
    assert share == pytest.approx(3 * 2 * 784 * 10 * 1e9 / 989.4e12)
    assert peak.share_of_peak(flops, 1e9, "NVIDIA H100 80GB HBM3 MIG 1g.10gb") is None
    assert peak.share_of_peak(None, 1e9, "NVIDIA H200") is None


def test_throughput_has_a_share_of_the_peak_where_that_is_known(monkeypatch):
    monkeypatch.setattr(throughput, "share_of_peak", lambda flops, rate, chip: 0.25)
    small = {"repeats": 1, "seconds": 0.001, "others": False, "data": "synthetic"}
    found = throughput.measure(["lenet5"], [8], **small, overrides=SMALL)
    assert found["lenet5, batch 8: share of bf16 peak"].median == 0.25
    assert "25 %" in throughput.rows(found)
    monkeypatch.setattr(throughput, "share_of_peak", lambda flops, rate, chip: None)
    found = throughput.measure(["lenet5"], [8], **small, overrides=SMALL)
    assert "share" not in throughput.rows(found)


@pytest.mark.parametrize("module", [throughput, importlib.import_module("benchmarks.recipes")])
def test_data_are_an_option_or_a_folder(module, monkeypatch, tmp_path, capsys):
    taken = []
    monkeypatch.setattr(
        module, "measure", lambda *_, **options: taken.append(options["data"]) or {}
    )
    monkeypatch.setenv("FMBENCH_DATA", "elsewhere")
    module.main(["--data", "synthetic"])
    module.main(["--data", str(tmp_path)])
    assert taken == ["synthetic", "fashion_mnist"]
    assert os.environ["FMBENCH_DATA"] == str(tmp_path)
    with pytest.raises(SystemExit) as ended:
        module.main(["--data", "nowhere"])
    assert ended.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.endswith("nowhere: must be a folder, or one of fashion_mnist, synthetic")


def test_contenders_train_on_the_images_that_they_say(monkeypatch):
    seen = []
    make = Contest._model

    def counting(self):
        model = make(self)
        model.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
        return model

    monkeypatch.setattr(Contest, "_model", counting)
    contest = Contest("lenet5", 8, data="synthetic", seconds=0.05, overrides=SMALL)
    assert contest.images % 8 == contest.usual_images % 8 == 0
    assert 0 < contest.usual_images <= contest.images <= 200
    for name, work in contest.contenders().items():
        if "2 workers" in name or name == "lightning":
            continue  # the same loop; not everybody has it
        seen.clear()
        said = work()
        assert said == contest.usual_images if "usual" in name else contest.images
        assert seen == [(8, 1, 28, 28)] * (said // 8), name


def test_a_slow_step_is_still_made_once():
    contest = Contest("lenet5", 64, data="synthetic", seconds=1e-9, overrides=SMALL)
    assert contest.images == contest.usual_images == 64


def test_the_fastest_variant_is_found_in_few_steps_where_they_are_slow(clock, monkeypatch):
    monkeypatch.setattr(limit, "time", clock)
    made = []

    def variant(name, seconds):
        def steps(count):
            made.extend([name] * count)
            clock.now += seconds * count

        return steps

    slow = {name: variant(name, seconds) for name, seconds in (("a", 9), ("b", 4), ("c", 5))}
    assert limit.fastest(slow) == ("b", 4)
    assert made == ["a", "b", "c", "b", "c"]
    fast = {name: variant(name, seconds) for name, seconds in (("a", 0.02), ("b", 0.01))}
    assert limit.fastest(fast) == ("b", pytest.approx(0.01))


def test_lightning_sees_each_image_and_reads_its_own_clock():
    pytest.importorskip("lightning")
    contest = Contest("lenet5", 8, data="synthetic", seconds=0.01, overrides=SMALL)
    done = contest.contenders()["lightning"]()
    assert done.items == contest.usual_images
    assert done.seconds > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_limit_is_captured_too_and_all_contenders_run():
    contest = Contest("lenet5", 8, data="synthetic", seconds=0.01, overrides=SMALL)
    assert "channels_last, bf16, captured" in contest.variants
    assert all(work() for work in contest.contenders().values())


def test_an_accuracy_is_listed_to_the_hundredth():
    lines = timing.listing({"accuracy": Spread.of([90.156], "%"), "recipe": "model=lenet"})
    assert re.search(r"\naccuracy +90.16 +90.16 - 90.16 +%\nrecipe: model=lenet$", lines)


@pytest.fixture
def plan():
    return replace(
        everything.QUICK,
        nets=("lenet5",),
        batch_sizes=(8,),
        seconds=0.001,
        repeats=1,
        records=(5, 50),
        images=50,
        recipe=("data=synthetic", *SMALL, "model=lenet5", "epochs=1"),
        data="synthetic",
        overrides=SMALL,
    )


# Newer Pythons warn of processes that are forked while there are threads; DataLoaders do it.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_one_command_measures_all_prints_one_table_and_draws(plan, tmp_path, capsys):
    measured = tmp_path / "measured.json"
    parts = ["throughput", "report", "augment", "accuracy"]
    everything.main([*parts, "--quick", f"--json={measured}"], quick=plan)
    found = json.loads(measured.read_text("utf-8"))
    assert list(found["results"]) == parts
    assert found["torch"] == torch.__version__
    assert {"processor", "threads", "gpu", "date", "fmbench"} <= found.keys()
    out = capsys.readouterr().out
    assert out.startswith("This takes about ")
    for part, results in found["results"].items():
        for name, value in results.items():
            after = f": {re.escape(value)}$" if isinstance(value, str) else "  "
            line = f"^{re.escape(f'{part}: {name}')}{after}"
            assert len(re.findall(line, out, re.MULTILINE)) == 1, name
    assert found["results"]["throughput"]["lenet5, batch 8: usual, 2 workers"]["median"] > 0
    assert found["results"]["accuracy"]["test accuracy"]["count"] == 1

    drawn = tmp_path / "drawn.png"
    picture.main([str(measured), f"--output={drawn}"])
    assert drawn.read_bytes().startswith(b"\x89PNG")


def test_a_part_that_there_is_not_is_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        everything.main(["speed"])
    assert ended.value.code == 2
    assert "speed: no such part; there are: throughput, " in capsys.readouterr().err


def test_what_is_measured_is_kept_part_by_part(plan, tmp_path, monkeypatch):
    def stop(plan, say):
        raise KeyboardInterrupt

    monkeypatch.setitem(everything.PARTS, "augment", lambda plan, say: {"a": Spread.of([1.0])})
    monkeypatch.setitem(everything.PARTS, "report", stop)
    with pytest.raises(KeyboardInterrupt):
        everything.measure(plan, ["augment", "report"], keep=tmp_path / "kept.json")
    kept = json.loads((tmp_path / "kept.json").read_text("utf-8"))
    assert kept["results"]["augment"]["a"]["median"] == 1


def test_report_measures_a_report_of_all_its_records(tmp_path):
    report.write_records(tmp_path / "runs", 12)
    results = read_results(tmp_path / "runs")
    assert results.problems == []
    assert sorted(benchmark_table(results.frame)["n"]) == [2, 5, 5]
    taken, held = report.report(tmp_path / "runs", tmp_path)
    assert taken > 0
    assert held is None or 10 < held < 1000
    page = (tmp_path / "benchmark.md").read_text("utf-8")
    assert "12 of 12 runs completed" in page


def test_report_tells_how_time_and_memory_grow(monkeypatch):
    monkeypatch.setattr(report, "report", lambda folder, _: (int(folder.name) / 100, 50.0))
    found = report.measure([1, 100], repeats=2)
    assert found["100 records"].median == 1
    assert found["1 to 100 records: time by tenfold"].median == pytest.approx(10)
    assert found["1 to 100 records: memory by tenfold"].median == pytest.approx(1)


def test_accuracy_is_the_mean_of_a_sweep_over_the_seeds(monkeypatch):
    said = []

    def sweep(*arguments, folder):
        said.extend(arguments)
        for seed, share in ((0, 0.90), (1, 0.92)):
            run = folder / "multirun" / str(seed)
            records.write(run, seed=seed, test_accuracy=share, seconds={"train": 5.0 + seed})

    monkeypatch.setattr(accuracy, "python", sweep)
    found = accuracy.measure(["model=lenet", "epochs=2"], [0, 1])
    assert said == ["-m", "fmbench", "-m", "model=lenet", "epochs=2", "seed=0,1"]
    assert found["seed 1: test accuracy"].median == 92
    assert found["training"].median == 5.5
    assert found["mean training"] == "5.50 s"
    assert found["mean test accuracy"] == "91.00 %: reaches the published 90.16 %"


def test_accuracy_says_whether_the_published_one_is_reached():
    assert accuracy.published() == 0.9016
    assert "%: reaches" in accuracy.verdict(0.9016)
    assert "does not reach" in accuracy.verdict(0.90159)


def test_overhead_counts_what_each_job_more_takes():
    found = overhead.measure(
        repeats=2,
        jobs=[1, 5, 9],
        questions={"start": lambda: 0.5},
        sweep=lambda jobs: 3 + jobs / 4 if jobs < 9 else 8,
    )
    assert found["start"] == Spread(0.5, 0.5, 0.5, 2, "s")
    assert found["a sweep of 5, beside its training"].median == 4.25
    assert found["a sweep's job beside its training, 1 to 5"].median == 0.25
    assert found["a sweep's job beside its training, 5 to 9"].median == (8 - 4.25) / 4


def test_the_first_step_is_seen_from_outside():
    assert overhead.first_step(*overhead.TINY) > 0


def test_a_run_without_a_first_step_says_why():
    with pytest.raises(SystemExit, match=r"(?s)no training step was made:.*batch_size"):
        overhead.first_step(*overhead.TINY, "batch_size=0")


def test_the_picture_has_a_row_for_each_net_and_batch_size_and_the_best_usual():
    rate = {"limit": 80.0, "fmbench": 76.0, "usual, 0 workers": 19.0, "usual, 2 workers": 38.0}
    results = {
        f"{net}, batch {size}: {name}": {"median": value, "unit": "images/s"}
        for net in ("lenet", "densenet")
        for size in (8, 64)
        for name, value in rate.items()
    }
    # Not the ratios of the medians: those of each turn count.
    results["lenet, batch 8: over limit"] = {"median": 0.93, "unit": "x"}
    results["lenet, batch 8: over usual, 0 workers"] = {"median": 4.1, "unit": "x"}
    results["lenet, batch 8: over usual, 2 workers"] = {"median": 2.2, "unit": "x"}
    results["lenet, batch 8: limit runs in"] = "channels_last, fp32"
    found = picture.rows({"throughput": results})
    assert [(row.net, row.batch_size) for row in found] == [
        *(("lenet", 8), ("lenet", 64)),
        *(("densenet", 8), ("densenet", 64)),
    ]
    assert found == picture.rows(results)
    assert found[0].rates == {"limit": 80, "fmbench": 76, "usual": 38}
    assert picture.comparison(found[0].over) == "0.93 of limit, 2.2x usual"
    assert picture.comparison(found[1].over) == ""


def test_the_limit_is_the_faster_variant_of_each_turn():
    contest = Contest("lenet5", 4, data="synthetic", seconds=0.01, overrides=SMALL)
    rates = {"same precision": [3.0, 5.0], "fmbench": [2.0, 4.0], "limit": [4.0, 4.0]}
    found = contest.with_limit(rates)
    assert list(found) == ["limit", "same precision", "fmbench"]
    assert found["limit"] == [4.0, 5.0]
    del rates["limit"]
    assert contest.with_limit(rates)["limit"] == [3.0, 5.0]


def test_a_precision_that_is_asked_for_is_the_one_measured():
    contest = Contest(
        "lenet5", 4, data="synthetic", seconds=0.01, overrides=[*SMALL, "precision=bf16"]
    )
    assert contest.ours == "channels_last, bf16"


def test_no_contender_has_the_same_place_in_every_turn():
    order = []
    names = ("a", "b", "c")
    timing.interleaved(
        {name: lambda name=name: order.append(name) or 1 for name in names}, repeats=2
    )
    assert order == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]


def test_a_picture_is_drawn_of_measured_speeds_only():
    with pytest.raises(SystemExit, match="no training speeds"):
        picture.rows({"overhead": {"--help": {"median": 0.4, "unit": "s"}}})


def test_augment_measures_every_case_and_keeps_the_numbers(augment, tmp_path, capsys):
    small = ["--images=300", "--subset=20", "--repeats=2", "--batch-size=10"]
    augment.main([*small, f"--json={tmp_path / 'a.json'}"])
    found = json.loads((tmp_path / "a.json").read_text("utf-8"))
    assert found["threads"] == 1
    out = capsys.readouterr().out
    assert "300 images of random pixels (20 for torchvision)" in out
    options = [path.stem for path in (CHECKOUT / "conf" / "augmentation").glob("*.yaml")]
    for name in ["bare copy", *(f"fmbench, {option}" for option in options)]:
        assert name in out
        assert found["results"][name]["count"] == 2
    over = found["results"]["fmbench, crop_flip: over torchvision"]
    assert over["median"] > 0


@pytest.mark.parametrize("name", ["fmbench, crop_flip", "torchvision, crop_flip"])
def test_augment_goes_through_every_image_once(augment, name):
    images, labels = torch.zeros(30, 28, 28, dtype=torch.uint8), torch.arange(30)
    batches = list(augment.loaders(images, labels, batch_size=7, subset=30)[name](0))
    assert [len(pixels) for pixels, _ in batches] == [7, 7, 7, 7, 2]
    assert sorted(torch.cat([labels for _, labels in batches]).tolist()) == list(range(30))
    chosen = augment.contenders(images, labels, batch_size=7, subset=20)
    assert chosen[name]() == (20 if "torchvision" in name else 30)
    assert chosen["bare copy"]() == 30


def test_augment_compares_like_with_like(augment):
    """Without parts, both ways make the same floats of the same image."""
    images = torch.randint(0, 256, (9, 28, 28), dtype=torch.uint8)
    chosen = augment.loaders(images, torch.arange(9), batch_size=4, subset=9)
    floats = []
    for name in ("fmbench, none", "torchvision, none"):
        batches = list(chosen[name](0))
        order = torch.cat([labels for _, labels in batches]).argsort()
        floats.append(torch.cat([pixels for pixels, _ in batches])[order])
    torch.testing.assert_close(*floats)
