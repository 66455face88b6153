"""The benchmarks run and compare like with like; what they measure is no test's business."""

import json
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import records
import torch
from commands import CHECKOUT
from torch import nn

from fmbench.records.reader import read_results
from fmbench.report import benchmark_table
from fmbench.training.cost import count_flops

sys.path.insert(0, str(CHECKOUT))

from benchmarks import (
    aa_tuned,
    accuracy,
    augment,
    frame,
    idle,
    overhead,
    picture,
    report,
    samplers,
    surface,
    threads,
    throughput,
)
from benchmarks.frame import Spread, Timed
from benchmarks.throughput import Setup

pytestmark = pytest.mark.slow

FOLDER = CHECKOUT / "benchmarks"
START = 'if __name__ == "__main__":'
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py") if START in path.read_text("utf-8"))
MEASURES = (accuracy, augment, overhead, report, samplers, threads, throughput)

SMALL = ("data=synthetic", "data.train_size=200", "data.test_size=50", "threads=1")
CONTEST = ("model=lenet5", "batch_size=8", "epochs=9", *SMALL)


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on only when it is told."""

    class Clock:
        now = 0.0

        def perf_counter(self) -> float:
            return self.now

    made = Clock()
    monkeypatch.setattr(frame, "time", made)
    return made


@pytest.fixture(autouse=True)
def _no_waiting_for_disks(monkeypatch):
    monkeypatch.setattr(report.os, "sync", lambda: None)


# --- the frame --------------------------------------------------------------------------------


def test_each_script_has_one_command_in_the_readme_and_opens_with_it():
    page = (FOLDER / "README.md").read_text("utf-8")
    found = dict(re.findall(r"^\| `(\w+)\.py` \|.*\| `(.*)` \|$", page, re.MULTILINE))
    assert sorted(found) == SCRIPTS
    for name, command in found.items():
        assert command.split()[:3] == ["python", "-m", f"benchmarks.{name}"]
        assert f"\n    {command}" in (FOLDER / f"{name}.py").read_text("utf-8")


@pytest.mark.parametrize("module", MEASURES)
def test_each_measurement_explains_its_options(module, capsys):
    with pytest.raises(SystemExit) as ended:
        frame.main(module.measure, ["--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert module.__doc__.splitlines()[0] in said
    assert "--json" in said


@pytest.mark.parametrize("module", MEASURES)
def test_each_measurement_needs_no_options(module, monkeypatch):
    begun = []
    monkeypatch.setattr(frame, "gather", lambda pieces, *_: begun.append(pieces))
    frame.main(module.measure, [])
    assert len(begun) == 1


def test_options_are_the_parameters_of_a_measurement(tmp_path, capsys):
    def measure(
        words: list[str] = ("a", "b"),
        *,
        batch_sizes: list[int] = (8, 64),
        seconds: float = 1.5,
        usual: bool = True,
        data: str = "fashion_mnist",
    ):
        yield {"given": f"{words} {batch_sizes} {seconds} {usual} {data}"}
        yield {"x": Spread(1.234, 1.2, 1.25, 5, "x")}

    frame.main(measure, [])
    assert "given: ('a', 'b') (8, 64) 1.5 True fashion_mnist\n" in capsys.readouterr().out
    typed = ["c", "--batch-sizes", "1", "2", "--seconds=3", "--no-usual", "--data=synthetic"]
    frame.main(measure, [*typed, f"--json={tmp_path / 'kept.json'}"])
    out = capsys.readouterr().out
    assert out.count("given: ['c'] [1, 2] 3.0 False synthetic\n") == 2  # at once, and in the end
    assert re.search(r"\nx +1.23 \(1.20 - 1.25\)\n", out)
    kept = json.loads((tmp_path / "kept.json").read_text("utf-8"))
    spread = {"median": 1.234, "low": 1.2, "high": 1.25, "count": 5, "unit": "x"}
    assert kept["results"]["x"] == spread
    assert kept["torch"] == torch.__version__
    assert {"processor", "threads", "gpu", "date", "fmbench"} <= kept.keys()


def test_work_that_a_device_has_queued_is_timed_with_its_contender(clock):
    queued = []

    def wait():
        clock.now += sum(queued)
        queued.clear()

    def queue(seconds, items):
        queued.append(seconds)
        return items

    works = {"slow": lambda: queue(4, 8), "fast": lambda: queue(1, 8)}
    rates = frame.interleaved(works, 2, wait=wait)
    assert rates == {"slow": [2, 2], "fast": [8, 8]}


def test_turns_end_with_the_budget_but_three_are_measured(clock):
    def work():
        clock.now += 10
        return 5

    assert frame.interleaved({"one": work}, 9, budget=1)["one"] == [0.5] * 3
    assert len(frame.interleaved({"one": work}, 9, budget=65)["one"]) == 6
    assert len(frame.interleaved({"one": work}, 9)["one"]) == 9


def test_a_contender_may_read_the_clock_itself(clock):
    def work():
        clock.now += 10
        return Timed(items=6, seconds=2)

    assert frame.interleaved({"own": work}, 1) == {"own": [3]}


def test_no_contender_has_the_same_place_in_every_turn():
    order = []
    works = {name: lambda name=name: order.append(name) or 1 for name in ("a", "b", "c")}
    frame.interleaved(works, repeats=2)
    assert order == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]


def test_a_table_has_a_line_for_each_place_and_an_accuracy_its_hundredths():
    results = {
        "lenet: images/s": Spread.of([12345.6], "images/s"),
        "lenet: runs in": "fp32",
        "seed 0: accuracy": Spread.of([90.156], "%"),
        "recipe": "model=lenet",
    }
    assert [re.split("  +", line.strip()) for line in frame.table(results).splitlines()] == [
        ["images/s runs in accuracy"],
        ["lenet", "12,346", "fp32"],
        ["seed 0", "90.16"],
        ["recipe: model=lenet"],
    ]


def test_what_is_measured_is_kept_piece_by_piece(tmp_path, capsys):
    def measure():
        yield {"mean": "90 %"}
        yield {"a": Spread.of([2.0])}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        frame.main(measure, [f"--json={tmp_path / 'kept.json'}"])
    kept = json.loads((tmp_path / "kept.json").read_text("utf-8"))["results"]
    assert list(kept) == ["mean", "a"]
    assert kept["a"]["median"] == 2
    assert "mean: 90 %\n" in capsys.readouterr().out


# --- training speed ---------------------------------------------------------------------------


def test_contenders_train_on_the_images_that_they_say(monkeypatch):
    seen = []
    make = Setup.model

    def counting(self):
        model = make(self)
        model.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
        return model

    monkeypatch.setattr(Setup, "model", counting)
    works, fastest = throughput.contenders(Setup(*CONTEST), 0.05)
    assert re.fullmatch(r"(contiguous|channels_last), (fp32|bf16)", fastest)
    said = {}
    for name, work in works.items():
        if "2 workers" in name or name == "lightning":
            continue  # the same loop; not everybody has it
        seen.clear()
        said[name] = work()
        assert seen == [(8, 1, 28, 28)] * (said[name] // 8), name
    assert 0 < said["usual, 0 workers"] <= said["fmbench"] == said["same precision"] <= 200


def test_a_precision_that_is_asked_for_is_the_one_measured():
    setup = Setup(*CONTEST, "precision=bf16")
    assert setup.device.precision == setup.trainer.device.precision == "bf16"
    assert "channels_last, bf16" in throughput.bare_steps(setup)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_limit_is_captured_too_and_all_contenders_run():
    setup = Setup(*CONTEST)
    assert "channels_last, bf16, captured" in throughput.bare_steps(setup)
    works, _ = throughput.contenders(setup, 0.01)
    assert all(work() for work in works.values())


def test_the_share_of_the_peak_counts_a_multiply_add_as_two_and_three_ways_forward():
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    flops = count_flops(model)
    assert flops == 2 * 784 * 10
    share = throughput.share_of_peak(flops, 1e9, "NVIDIA H100 80GB HBM3")
    assert share == pytest.approx(3 * 2 * 784 * 10 * 1e9 / 989.4e12)
    assert throughput.share_of_peak(flops, 1e9, "NVIDIA H100 80GB HBM3 MIG 1g.10gb") is None
    assert throughput.share_of_peak(None, 1e9, "NVIDIA H200") is None


def test_throughput_takes_the_faster_variant_of_each_turn_as_the_limit(monkeypatch):
    rates = {"same precision": [3.0, 5.0], "fmbench": [2.0, 4.0], "limit": [4.0, 4.0]}
    monkeypatch.setattr(throughput, "contenders", lambda *_, **__: ({}, "fp32"))
    monkeypatch.setattr(throughput, "interleaved", lambda *_, **__: dict(rates))
    monkeypatch.setattr(throughput, "share_of_peak", lambda flops, rate, chip: 0.25)
    options = {"models": ["lenet5"], "batch_sizes": [8], "seconds": 0.001, "usual": False}
    options |= {"overrides": SMALL}
    found = frame.gather(throughput.measure(**options))
    assert found["lenet5, batch 8: limit"].median == 4.5
    assert found["lenet5, batch 8: over limit"].median == pytest.approx((2 / 4 + 4 / 5) / 2)
    assert found["lenet5, batch 8: share of bf16 peak"].median == 25
    del rates["limit"]
    monkeypatch.setattr(throughput, "share_of_peak", lambda flops, rate, chip: None)
    found = frame.gather(throughput.measure(**options))
    assert found["lenet5, batch 8: limit"].median == 4
    assert "lenet5, batch 8: share of bf16 peak" not in found


def test_threads_quiet_and_beside_others():
    options = {"batch_sizes": [8], "busy": [0, 1], "repeats": 1, "seconds": 0.01}
    found = frame.gather(threads.measure(**options, overrides=SMALL[:3]))
    assert {name.partition(": ")[0] for name in found} == {"quiet, batch 8", "1 busy, batch 8"}
    assert all(value.median > 0 for value in found.values() if not isinstance(value, str))
    assert found["quiet, batch 8: threads"].isdecimal()


def test_threads_of_whole_runs(monkeypatch):
    monkeypatch.setattr(threads, "IMAGES", 64)
    monkeypatch.setattr(threads, "STEPS", 2)
    monkeypatch.delitem(threads.WAYS, "two workers")
    monkeypatch.setitem(threads.WAYS, "command", threads.by_call)
    found = frame.gather(threads.measure(batch_sizes=(32,), busy=(0,), repeats=2, ways=True))
    for way in ("command", "fmbench.run"):
        assert found[f"quiet, batch 32, {way}: chosen over told"].median > 0
        assert len(found[f"quiet, batch 32, {way}: threads"].split()) == 2


# --- the others -------------------------------------------------------------------------------


def test_augment_measures_every_case(monkeypatch):
    found = frame.gather(augment.measure(images=300, subset=20, repeats=2, batch_size=10))
    options = [path.stem for path in (CHECKOUT / "conf" / "augmentation").glob("*.yaml")]
    for name in ["bare copy", *(f"fmbench, {option}" for option in options)]:
        assert found[f"{name}: images/s"].count == 2
    assert found["fmbench, crop_flip: over torchvision"].median > 0


@pytest.mark.parametrize("name", ["fmbench, crop_flip", "torchvision, crop_flip"])
def test_augment_goes_through_every_image_once(name):
    images, labels = torch.zeros(30, 1, 28, 28, dtype=torch.uint8), torch.arange(30)
    batches = list(augment.loaders(images, labels, batch_size=7, subset=30)[name](0))
    assert [len(pixels) for pixels, _ in batches] == [7, 7, 7, 7, 2]
    assert sorted(torch.cat([labels for _, labels in batches]).tolist()) == list(range(30))


def test_augment_compares_like_with_like():
    """Without parts, both ways make the same floats of the same image."""
    images = torch.randint(0, 256, (9, 1, 28, 28), dtype=torch.uint8)
    chosen = augment.loaders(images, torch.arange(9), batch_size=4, subset=9)
    floats = []
    for name in ("fmbench, none", "torchvision, none"):
        batches = list(chosen[name](0))
        order = torch.cat([labels for _, labels in batches]).argsort()
        floats.append(torch.cat([pixels for pixels, _ in batches])[order])
    torch.testing.assert_close(*floats)


def test_accuracy_is_the_mean_of_a_sweep_over_the_seeds(monkeypatch):
    said = []

    def sweep(*arguments, folder):
        said.extend(arguments)
        for seed, share in ((0, 0.90), (1, 0.92)):
            seconds = {"train": 5.0 + seed, "evaluate": 1.0, "total": 7.0}
            run = Path(folder) / "multirun" / str(seed)
            records.write(run, seed=seed, test_accuracy=share, seconds=seconds)

    monkeypatch.setattr(accuracy, "python", sweep)
    found = frame.gather(accuracy.measure(["model=lenet", "epochs=2"], seeds=[0, 1]))
    assert said == ["-m", "fmbench", "-m", "model=lenet", "epochs=2", "seed=0,1"]
    assert found["seed 1: test accuracy (%)"].median == 92
    assert found["all seeds: training (s)"].median == 5.5
    assert found["mean training"] == "5.50 s"
    assert found["mean test accuracy"] == "91.00 %: reaches the published 90.16 %"


def test_overhead_counts_what_each_job_more_takes(monkeypatch):
    monkeypatch.setattr(overhead, "QUESTIONS", {"start": lambda: 0.5})
    monkeypatch.setattr(overhead, "beside_training", lambda n: 3 + n / 4 if n < 9 else 8)
    found = frame.gather(overhead.measure(repeats=2, jobs=[1, 5, 9]))
    assert found["start"] == Spread(0.5, 0.5, 0.5, 2, "s")
    assert found["a sweep of 5, beside its training"].median == 4.25
    assert found["a sweep's job beside its training, 1 to 5"].median == 0.25
    assert found["a sweep's job beside its training, 5 to 9"].median == (8 - 4.25) / 4


def test_a_run_without_a_first_step_says_why():
    assert overhead.alone("-c", overhead.FIRST_STEP, *overhead.TINY)[1] > 0
    with pytest.raises(SystemExit, match=r"(?s)failed:.*batch_size"):
        overhead.alone("-c", overhead.FIRST_STEP, *overhead.TINY, "batch_size=0")


def test_report_measures_a_report_of_all_its_records(tmp_path):
    report.write_records(tmp_path / "runs", 12)
    results = read_results(tmp_path / "runs")
    assert results.problems == []
    assert sorted(benchmark_table(results.frame)["n"]) == [2, 5, 5]
    taken, held = report.report(tmp_path / "runs", tmp_path)
    assert taken > 0
    assert held != held or 10 < held < 1000  # noqa: PLR0124 - not every system tells
    page = (tmp_path / "benchmark.md").read_text("utf-8")
    assert "12 of 12 runs completed" in page
    assert report.status(tmp_path / "runs", tmp_path) > 0


def test_report_tells_how_time_and_memory_grow(monkeypatch):
    monkeypatch.setattr(report, "write_records", lambda folder, size: None)
    monkeypatch.setattr(report, "report", lambda folder, _: (int(folder.name) / 100, 50.0))
    monkeypatch.setattr(report, "status", lambda folder, _: 0.5)
    found = frame.gather(report.measure(sizes=[1, 100], repeats=2))
    assert found["100 records: s"].median == 1
    assert found["100 records: s of status"].median == 0.5
    assert found["1 to 100 records: s by tenfold"].median == pytest.approx(10)
    assert found["1 to 100 records: MB by tenfold"].median == pytest.approx(1)


# --- surfaces ---------------------------------------------------------------------------------


@pytest.fixture
def _small_grid(monkeypatch):
    monkeypatch.setattr(surface, "LEARNING_RATES", (1e-3, 0.1))
    monkeypatch.setattr(surface, "BATCH_SIZES", (64,))
    monkeypatch.setattr(surface, "WEIGHT_DECAYS", (1e-4,))


@pytest.mark.usefixtures("_small_grid")
def test_a_surface_goes_on_with_the_points_that_its_file_lacks(tmp_path, monkeypatch):
    def small(lr, *others):
        assert others == (64, 1e-4, 7)
        run = ("model=lenet5", "epochs=1", "data.split=holdout", *SMALL)
        return [*run, f"optimizer.lr={lr}"]

    monkeypatch.setattr(surface, "overrides", small)
    path = tmp_path / "found.csv"
    path.write_text(f"{','.join(surface.COLUMNS)}\n0.001,64,0.0001,0.25,7,1.5\n", "utf-8")
    surface.compute(path, 7)
    before = path.read_text("utf-8")
    surface.compute(path, 7)  # has all of it
    assert path.read_text("utf-8") == before
    found = surface.Surface(path)
    assert found.rates == [0.001, 0.1]
    assert found.at(1e-3, 64, 1e-4).accuracy == pytest.approx(0.25)
    assert 0 < found.at(0.1, 64, 1e-4).accuracy <= 1


def test_a_surface_is_linear_in_logarithms_and_diverges_beside_what_did(tmp_path):
    path = tmp_path / "found.csv"
    corners = {(1e-3, 1e-4): 0.2, (1e-3, 1e-2): 0.4, (0.1, 1e-4): 0.6, (0.1, 1e-2): ""}
    lines = [
        f"{lr},{size},{decay},{accuracy},0,2"
        for size in (8, 64)
        for (lr, decay), accuracy in corners.items()
    ]
    path.write_text("\n".join([",".join(surface.COLUMNS), *lines]), "utf-8")
    found = surface.Surface(path)
    assert found.best == 0.6
    assert found.at(1e-3, 8, 1e-3).accuracy == pytest.approx(0.3)
    assert found.at(1e-2, 64, 1e-4).accuracy == pytest.approx(0.4)
    assert found.at(1e-2, 64, 1e-3) == (None, pytest.approx(2))
    path.write_text("\n".join([",".join(surface.COLUMNS), *lines[1:]]), "utf-8")
    with pytest.raises(ValueError, match="7 points are no whole grid"):
        surface.Surface(path)


@pytest.fixture
def hill(tmp_path):
    """A surface with its top in the middle, where trials of small batches last longest."""
    lines = [
        f"{lr},{size},{decay},{0.9 - 0.1 * abs(rate - 2) - 0.05 * abs(place - 1)},0,{64 / size}"
        for rate, lr in enumerate([1e-3, 1e-2, 0.1, 0.5])
        for size in (8, 64)
        for place, decay in enumerate([1e-5, 1e-3, 0.1])
    ]
    path = tmp_path / "hill.csv"
    path.write_text("\n".join([",".join(surface.COLUMNS), *lines]), "utf-8")
    return path


def test_samplers_are_those_of_a_search():
    before, now = (samplers.config(name, 3) for name in ("tpe, before", "tpe"))
    assert (before.multivariate, before.constant_liar, before.seed) == (False, False, 3)
    assert (now.multivariate, now.constant_liar, now.seed) == (None, True, 3)
    assert samplers.config("gp", 0)._target_ == "optuna.samplers.GPSampler"


def test_simulated_workers_get_the_next_trial_when_theirs_has_ended(hill):
    found, random = surface.Surface(hill), samplers.config("random", 0)
    alone, *several = (samplers.search(found, random, workers, 12) for workers in (1, 3, 12))
    for ends in several:  # the same trials, which end in another order
        assert ends != alone
        assert sorted(ends) == sorted(alone)
    # Twelve at once are of 1 s or of 8 s, and twelve workers wait for no short one.
    seconds = [found.at(*place).seconds for place in [(0.1, 64, 1e-3), (0.1, 8, 1e-3)]]
    assert seconds == pytest.approx([1, 8])


def test_samplers_are_compared_by_the_best_of_the_first_trials(hill):
    given = {"contenders": ["tpe, before", "random"], "workers": [1, 2], "trials": [1, 12]}
    found = frame.gather(samplers.measure(file=hill, **given, seeds=2))
    assert found["best of the surface"] == "90.00 %"
    first, last = (found[f"1 worker, {n}: random"] for n in ("1 trial", "12 trials"))
    assert first.median <= last.median <= 90
    assert first.count == 2
    # The first trial is drawn at random in both.
    assert found["2 workers, 1 trial: random over tpe, before"] == "+0.00 +- 0.00"


# --- the picture ----------------------------------------------------------------------------------


# Newer Pythons warn of processes that are forked while there are threads; DataLoaders do it.
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_measured_training_speed_is_drawn(tmp_path):
    saved, drawn = tmp_path / "measured.json", tmp_path / "drawn.png"
    options = ["--models=lenet5", "--batch-sizes=8", "--repeats=1", "--seconds=0.001"]
    typed = [*options, f"--json={saved}", "--overrides", *SMALL]
    frame.main(throughput.measure, typed)
    assert json.loads(saved.read_text("utf-8"))["benchmark"] == "throughput"
    picture.main([str(saved), f"--output={drawn}"])
    assert drawn.read_bytes().startswith(b"\x89PNG")


def test_the_picture_has_a_row_for_each_model_and_batch_size_and_the_best_usual():
    rate = {"limit": 80.0, "fmbench": 76.0, "usual, 0 workers": 19.0, "usual, 2 workers": 38.0}
    results = {
        f"{model}, batch {size}: {name}": {"median": value, "unit": "images/s"}
        for model in ("lenet", "densenet")
        for size in (8, 64)
        for name, value in rate.items()
    }
    # Not the ratios of the medians: those of each turn count.
    results["lenet, batch 8: over limit"] = {"median": 0.93, "unit": "x"}
    results["lenet, batch 8: over usual, 0 workers"] = {"median": 4.1, "unit": "x"}
    results["lenet, batch 8: over usual, 2 workers"] = {"median": 2.2, "unit": "x"}
    results["lenet, batch 8: limit runs in"] = "channels_last, fp32"
    results["threads"] = "2"
    found = picture.rows(results)
    assert list(found) == [f"{n}, batch {size}" for n in ("lenet", "densenet") for size in (8, 64)]
    row = found["lenet, batch 8"]
    speeds = {name: speed for name, (speed, _) in row.items()}
    assert speeds == {"limit": 80, "fmbench": 76, "usual": 38}
    assert picture.comparison(row) == "0.93 of limit, 2.2x usual"


def test_a_picture_is_drawn_of_measured_speeds_only():
    with pytest.raises(SystemExit, match="no training speeds"):
        picture.rows({"--help": {"median": 0.4, "unit": "s"}})


def test_idle_time_is_that_between_two_runs_of_a_worker():
    runs = [(0.0, 4.0), (0.0, 1.0), (2.0, 3.0), (3.0, 7.0)]
    # Of two workers until 3 s: one is busy all the time, the other from 0 to 1 and from 2 to 3.
    assert idle.idle(runs, 2, until=3.0) == pytest.approx(1 / 6)
    assert idle.idle(runs, 2, until=7.0) == pytest.approx(1 - 10 / 14)


def test_the_best_trial_is_counted_as_it_was_first_run_and_as_it_is_evaluated(tmp_path):
    # When a run's folder of Hydra was made and its options written, its last epoch, its record.
    for number, times in enumerate([(10, 20, 14, 21), (11, 11, 18, 19)]):
        folder = tmp_path / str(number)
        names = [".hydra/overrides.yaml", "history.jsonl", "result.json"]
        folder.joinpath(".hydra").mkdir(parents=True)
        for name, time in zip(names, times[1:], strict=True):
            folder.joinpath(name).touch()
            os.utime(folder / name, (time, time))
        os.utime(folder / ".hydra", (times[0], times[0]))
    assert idle.spans(tmp_path) == [(10, 14), (11, 19), (20, 21)]


@pytest.mark.parametrize(("searches", "shared"), [(1, False), (3, False), (1, True), (3, True)])
def test_a_contestant_under_two_names_has_no_run_twice(monkeypatch, searches, shared):
    images = 36  # each seed has one of its own right
    stored = SimpleNamespace(seeds=range(images), right=np.eye(images, dtype=bool)[None])
    told, samples = [], []

    def chooses(stored, seed, *, run, trials):
        told.append(run)
        return 0

    def ranks(given):
        samples.extend(given)
        return [1, 1]

    monkeypatch.setattr(aa_tuned, "search", chooses)
    monkeypatch.setattr(aa_tuned, "ranks", ranks)
    aa_tuned.are_apart(stored, 5, searches=searches, trials=1, finals=5, shared=shared)
    one, two = ({*np.flatnonzero(sample.correct)} for sample in samples)
    assert len(one) == len(two) == 5 * searches
    assert one == two if shared else not one & two
    assert not {*told} & (one | two)
    assert len({*told}) == searches * (1 if shared else 2)
    with pytest.raises(ValueError, match="needs 120 seeds, and the file has 36"):
        aa_tuned.are_apart(stored, 5, searches=3, trials=1, finals=19, shared=False)
