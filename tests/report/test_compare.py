"""`python -m fmbench.report compare A B`."""

import numpy as np
import pytest
from records import answer, write

from fmbench.core.errors import ConfigError
from fmbench.records.predictions import mistake_type
from fmbench.report.__main__ import main
from fmbench.report.table import compare as module
from fmbench.report.table.build import benchmark_table
from fmbench.report.table.compare import compare
from fmbench.stats import mcnemar


def run(folder, model, right, *, seed=0, swap=0, **changes):
    write(folder, model=model, seed=seed, test_accuracy=right / 10_000, **changes)
    return answer(folder, right, swap=swap)


@pytest.fixture
def rows(tmp_path):
    """Two models of three seeds, two points apart."""
    for seed in (0, 1, 2):
        run(tmp_path / "a" / str(seed), "good", 9200 + seed, seed=seed, swap=20)
        seconds = {"train": 4.05, "evaluate": 1.0, "total": 6.0}
        run(tmp_path / "b" / str(seed), "fast", 9000 + seed, seed=seed, seconds=seconds)
    return tmp_path


@pytest.mark.slow
def test_two_folders(rows):
    found = compare(str(rows / "a"), str(rows / "b"))
    assert found.difference.mean == pytest.approx(0.02)
    assert found.difference.low < 0.02 < found.difference.high
    assert found.difference.low > 0.01
    assert found.difference.p < 0.001
    assert found.time_ratio == pytest.approx(2.0)
    assert found.sentence.startswith(
        "good is more accurate than fast by 2.00 points (95 % interval "
    )
    other = compare(str(rows / "b"), str(rows / "a"))
    assert other.difference.mean == pytest.approx(-0.02)
    assert other.sentence == found.sentence


def test_each_seed_has_its_mcnemar(rows):
    found = compare(str(rows / "a"), str(rows / "b"))
    assert [pair.seed for pair in found.seeds] == [0, 1, 2]
    first = found.seeds[0]
    # The 20 first images A has wrong and B right; of the last 1,000 A has 220 right and B none.
    assert (first.only_a, first.only_b) == (220, 20)
    assert first.p == float(mcnemar(220, 20))
    assert (first.a, first.b) == pytest.approx((0.92, 0.90))


def test_classes_are_compared_each_and_corrected(rows):
    found = compare(str(rows / "a"), str(rows / "b"))
    assert [one.name for one in found.classes][:2] == ["T-shirt/top", "Trouser"]
    assert len(found.classes) == 10
    labels = np.load(rows / "a" / "0" / "labels.npy")
    for number, one in enumerate(found.classes):
        of = labels == number
        shares = [
            np.mean((np.load(rows / "a" / s / "predictions.npy") == labels)[of]) for s in "012"
        ]
        assert one.a == pytest.approx(np.mean(shares))
        assert one.p < 0.05


def test_rows_that_cannot_be_told_apart(tmp_path):
    run(tmp_path / "a", "a", 9010, swap=150)
    run(tmp_path / "b", "b", 9000)
    found = compare(str(tmp_path / "a"), str(tmp_path / "b"))
    assert found.sentence.startswith("a and b cannot be told apart: 0.10 points lie between them")
    assert "with one seed each this is about these two trained models" in found.sentence


def test_single_seeds_of_one_recipe_are_two_trained_models_and_no_method(tmp_path):
    run(tmp_path / "a", "net", 9045)
    run(tmp_path / "b", "net", 9000, seed=1)
    said = compare(str(tmp_path / "a"), str(tmp_path / "b")).sentence
    assert said.startswith(
        "the trained model of net, seed 0 is more accurate on these images than that of net, "
        "seed 1 by 0.45 points (95 % interval "
    )
    assert "this is about these two trained models, not about their recipes" in said


def test_one_seed_and_several_are_not_held_against_each_other(rows, ended):
    run(rows / "c", "single", 9500)
    found = compare(str(rows / "c"), str(rows / "a"))
    assert found.sentence.startswith(
        "single has one seed and good has 3: how far another seed of the first would land is not "
        "known, so that neither is called more accurate; on these images it is ahead by 2.99 points"
    )
    assert "more accurate than" not in found.sentence
    said = ended(main, "compare", rows / "c", rows / "a")[1]
    assert "Difference, A less B: +2.99 points, no test: one seed does not tell" in said
    assert "nan" not in said


def times(folder, name, *seconds, **changes):
    for seed, train in enumerate(seconds):
        clocks = {"train": train, "evaluate": 1.0, "total": train + 2}
        run(folder / name / str(seed), name, 9000, seed=seed, seconds=clocks, **changes)
    return str(folder / name)


UNKNOWN = {"device": None, "fingerprint": {}}


@pytest.mark.parametrize(("a", "b", "of_a", "of_b", "ratio", "note"), [
    ((18.0, 19.0, 18.5), (36.0, 38.0, 37.0), {}, {}, 0.5, ""),
    ((138.0, 15.6, 56.6), (18.0, 19.0, 18.5), {}, {}, None, "they overlap: "),
    ((10.0, 20.0), (21.0, 31.0), {}, {}, None, ""),  # means that are known that badly
    ((10.0, 10.1), (5.0, 5.1), {"runs_at_once": 2}, {"runs_at_once": 1}, None,
     "runs at once on the machine were 2 and 1"),
    ((10.0, 10.1), (5.0, 5.1), {"runs_at_once": 2}, {}, 2, ""),  # of one it is not known
    ((10.0, 10.1), (5.0, 5.1), {}, {"device": "NVIDIA H100"}, None,
     "device is AMD EPYC, 2 threads and NVIDIA H100"),
    ((10.0, 10.1), (5.0, 5.1), UNKNOWN, UNKNOWN, None,
     "the time or the device of one is not known"),
])  # fmt: skip
def test_times_compare_where_they_are_of_one_kind(tmp_path, a, b, of_a, of_b, ratio, note):  # noqa: PLR0917
    found = compare(times(tmp_path, "a", *a, **of_a), times(tmp_path, "b", *b, **of_b))
    assert found.time_ratio == (ratio and pytest.approx(ratio, rel=0.02))
    assert (found.time_note or "").startswith(note)


def test_without_answers_accuracies_alone_are_compared(rows):
    (rows / "a" / "0" / "predictions.npy").unlink()
    found = compare(str(rows / "a"), str(rows / "b"))
    assert (found.seeds, found.classes) == ([], [])
    assert "could not be compared image by image" in found.sentence
    assert found.difference.mean == pytest.approx(0.02)


def test_other_test_images_are_compared_class_by_class_and_no_further(tmp_path):
    run(tmp_path / "a", "a", 9200)
    run(tmp_path / "b", "b", 9000)
    answer(tmp_path / "b", 9000, seed=3)
    found = compare(str(tmp_path / "a"), str(tmp_path / "b"))
    assert found.seeds == []
    assert len(found.classes) == 10
    assert not found.difference.paired


@pytest.mark.slow
def test_rows_by_number_and_by_conditions(rows):
    expected = compare(str(rows / "a"), str(rows / "b"))
    for pair in (("1", "2"), ("model=good", "model=fast"), ("1", "net=fast")):
        found = compare(*pair, [rows])
        assert found.sentence == expected.sentence


def test_two_rows_of_one_table_make_it_once(rows, monkeypatch):
    made = []

    def table(*given, **options):
        made.append(given)
        return benchmark_table(*given, **options)

    monkeypatch.setattr(module, "benchmark_table", table)
    compare("1", "2", [rows])
    assert len(made) == 1


def test_rows_of_one_model_are_called_by_what_sets_them_apart(tmp_path):
    for batch_size in (64, 256):
        folder = run(tmp_path / str(batch_size), "lenet", 9000 + batch_size, batch_size=batch_size)
        assert folder.is_dir()
    found = compare("batch_size=64", "batch_size=256", [tmp_path])
    assert found.names == ("lenet, batch size 64", "lenet, batch size 256")


@pytest.mark.parametrize(("a", "b", "said"), [
    ("1", "9", "there is no row 9: .* hold 2"),
    ("0", "1", "there is no row 0"),
    ("1", "1", "are the same row"),
    ("1", "net=good", "are the same row"),
    ("nowhere", "1", "'nowhere' is no folder, no number of a row, and no conditions"),
    ("model=vgg", "1", "'model=vgg' fits no completed run"),
    ("seed=0", "1", r"'seed=0' is 2 rows; .*: good; fast"),
    ("9" * 5000, "1", "there is no row 999"),
    ("colour=red", "1", "no run has 'colour'"),
])  # fmt: skip
def test_what_is_no_row_is_said(rows, a, b, said):
    with pytest.raises(ConfigError, match=said) as raised:
        compare(a, b, [rows])
    assert "\n" not in str(raised.value)


def test_other_data_do_not_compare(rows):
    write(rows / "s", model="s", data__name="synthetic", data__sha256="aa" * 32)
    with pytest.raises(ConfigError, match="accuracies compare on one data set alone"):
        compare("1", "3", [rows])


def test_the_command(rows, ended):
    status, out, err = ended(main, "compare", "1", "2", rows)
    assert (status, err) == (0, "")
    assert "Difference, A less B: +2.00 points, 95 % interval +1." in out
    assert "McNemar's test, runs of one seed" in out
    assert "\nTrouser " in out
    assert "\nTraining time, A over B: 2\n" in out
    status, out, err = ended(main, "compare", "1", "7", rows)
    assert (status, out, err.count("\n")) == (2, "", 1)


def test_a_number_is_a_row_even_where_a_folder_has_its_name(tmp_path, monkeypatch):
    run(tmp_path / "1", "worse", 8000)
    run(tmp_path / "2", "better", 9000)
    monkeypatch.chdir(tmp_path)
    assert compare("1", "2", [tmp_path]).names == ("better", "worse")
    assert compare("./1", "./2", [tmp_path]).names == ("worse", "better")


def test_one_run_under_two_names_is_the_same(tmp_path, monkeypatch):
    run(tmp_path / "a", "net", 9000)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="are the same row"):
        compare("a", str(tmp_path / "a"))


def test_records_that_could_not_be_read_are_said(rows, ended):
    (rows / "a" / "1" / "result.json").write_text("{")
    status, out, err = ended(main, "compare", rows / "a", rows / "b")
    assert (status, err) == (4, "")
    assert "Records that could not be read, so that runs may be missing:" in out
    assert "half-written or not JSON" in out


def test_rows_of_runs_in_the_current_folder(rows, monkeypatch, ended):
    for name in "ab":
        for seed in "012":
            (rows / name / seed).rename(rows / f"{name}{seed}")
        (rows / name).rmdir()
    monkeypatch.chdir(rows)
    status, out, _ = ended(main, "compare", "1", "2", ".")
    assert status == 0
    assert "(runs: 3, in .)" in out


@pytest.mark.slow
def test_it_says_what_could_have_been_seen_and_what_more_seeds_would_do(rows, ended):
    found = compare(str(rows / "a"), str(rows / "b"))
    assert found.outperforming.share == 1
    assert found.outperforming.low < 0.7
    assert 0 < found.power.smallest < 0.02
    assert found.power.more_seeds == 0
    _, said, _ = ended(main, "compare", rows / "a", rows / "b")
    assert "P(A > B), one run of A against one of B: 1.00, 95 % interval 0." in said
    assert "Smallest difference that 3 seeds show in 80 of 100 cases: " in said
    assert "Spread over the seeds of A: 0.01 points, of which" in said
    assert "more seeds" not in said


@pytest.mark.parametrize(("apart", "said"), [
    (40, "points would be shown in 80 of 100 cases by "),
    (1, "would not be shown by 1,000 more seeds either: it takes more test images"),
])  # fmt: skip
def test_what_cannot_be_told_apart_may_take_more_seeds_or_more_images(tmp_path, apart, said):
    for seed in (0, 1, 2):
        right = 9000 + 20 * seed
        run(tmp_path / "a" / str(seed), "a", right, seed=seed)
        run(tmp_path / "b" / str(seed), "b", right - apart, seed=seed, swap=2)
    found = compare(str(tmp_path / "a"), str(tmp_path / "b"))
    assert found.difference.p > 0.05
    assert said in found.more[-1]


def test_one_seed_has_no_power(tmp_path):
    for model, right in (("a", 9000), ("b", 8000)):
        run(tmp_path / model, model, right)
    found = compare(str(tmp_path / "a"), str(tmp_path / "b"))
    assert (found.power, found.outperforming, found.more) == (None, None, [])


@pytest.mark.slow
def test_images_that_one_has_right_and_the_other_wrong_are_drawn(rows, ended):
    for path in rows.glob("*/*/mistakes.npy"):
        path.unlink()
    kind = mistake_type("u1", (28, 28))
    # The first 20 images A has wrong and B right; of the last 1,000 A alone has 220 right.
    for model, places in (("a", (3, 500)), ("b", (9100, 9900))):
        made = np.zeros(2, kind)
        made["place"], made["confidence"] = places, (0.75, 0.5)
        made["label"], made["predicted"] = 1, 2
        np.save(rows / model / "0" / "mistakes.npy", made)
    status, said, _ = ended(main, "compare", rows / "a", rows / "b", "--output", rows / "out")
    assert status == 0
    assert f"Written: {rows / 'out' / 'contrast.png'}" in said
    svg = (rows / "out" / "contrast.svg").read_text("utf-8")
    assert svg.count("<image") == 2  # the others both have right, or both wrong
    assert "A right, B wrong" in svg
    assert "75.0 %" in svg
    for model in "ab":
        (rows / model / "0" / "mistakes.npy").unlink()
    _, said, _ = ended(main, "compare", rows / "a", rows / "b", "--output", rows / "none")
    assert "No picture was written" in said
    assert not (rows / "none").exists()


def test_a_spread_below_that_of_the_test_set_is_the_rows_own(tmp_path):
    # Three runs of one accuracy that err on other images: their standard deviation is 0.
    for seed, swap in enumerate((0, 400, 800)):
        run(tmp_path / "a" / str(seed), "a", 9000, seed=seed, swap=swap)
        run(tmp_path / "b" / str(seed), "b", 8000 + 300 * seed, seed=seed)
    of_a, of_b = compare(str(tmp_path / "a"), str(tmp_path / "b")).more[:2]
    assert of_a.startswith("Spread over the seeds of A: 0.00 points, less than the 0.")
    assert "test set alone causes" in of_a
    assert of_b.startswith("Spread over the seeds of B: 3.00 points, of which ")
    assert of_b.endswith("(their squares add up)")
