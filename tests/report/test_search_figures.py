"""The picture of a search, and the axes of all pictures."""

import io
from xml.etree import ElementTree as ET

import pytest
from PIL import Image
from searches import search, trial, two_objectives

from fmbench.records.trials import Objective
from fmbench.report.figures.axis import log_axis, parameter_axis, plain_axis, value_axis
from fmbench.report.figures.parameters import searched, surface_keys
from fmbench.report.figures.search import panels, search_figure
from fmbench.report.figures.sheet import WIDTH
from fmbench.report.table.search import SearchPart, importances, ranking


@pytest.mark.parametrize(
    "changes",
    [
        {},
        two_objectives(),
        {"trials": [], "best": [], "importances": None},
        {"trials": [trial(0)], "importances": None},
        {"trials": [trial(n, state="failed", values=None) for n in range(3)], "best": []},
        {"trials": [trial(7, state="pruned", values=None, reports={})], "best": []},
        {"trials": [trial(0, values=[1e299]), trial(1, values=[-1e299])]},
        {"trials": [trial(0, parameters={"a": 1e-300}), trial(1, parameters={"a": 1e299})]},
        {"trials": [trial(0, parameters={"a": 5e-324}), trial(1, parameters={"a": 1.0})]},
        {"trials": [trial(n, parameters={"a": str(n) * 50}) for n in range(60)]},
        {"trials": [trial(0, parameters={"a": "漢"}), trial(2**53)], "study": "é漢字\U0001f600"},
    ],
)
def test_whatever_was_searched_can_be_drawn(changes):
    figure = search_figure(SearchPart(search(**changes), {}), "search")
    image = Image.open(io.BytesIO(figure.png))
    assert image.width == 2 * WIDTH
    assert 300 < image.height < 5_000
    ET.fromstring(figure.svg)
    assert sum(map(bool, image.convert("L").histogram())) > 10


def test_panels_stand_where_there_is_something_for_them():
    def shown(**changes):
        made = search(**changes)
        return list(panels(made, ranking(made)))

    assert shown() == ["history", "surface", "slices", "importances"]
    assert shown(**two_objectives()) == ["history", "front", "slices", "importances"]
    failed = {"trials": [trial(0, state="failed", values=None)], "best": []}
    assert shown(**failed, importances=None) == ["history"]
    made = search()
    assert searched(made, ranking(made)) == ["optimizer.lr", "batch_size"]
    assert importances(made)[0] == ("optimizer.lr", 0.8)


def test_a_wide_range_has_a_logarithmic_axis():
    assert parameter_axis([0.001, 0.021], "lr", 250).log
    assert not parameter_axis([0.001, 0.019], "lr", 250).log
    assert not parameter_axis([-0.001, 1.0], "lr", 250).log
    assert [text for _, text in parameter_axis([1e-4, 0.1], "lr", 250).ticks] == [
        *("0.0001", "0.001", "0.01", "0.1")
    ]


def test_a_choice_has_its_values_in_order_side_by_side():
    made = parameter_axis([512, 64, 256, 64], "batch_size", 250)
    assert made.ticks == ((0.0, "64"), (1.0, "256"), (2.0, "512"))
    assert [round(made.placed(value)) for value in (512, 64, 256)] == [2, 0, 1]
    mixed = parameter_axis(["sgd", None, 3, True], "what", 250)
    assert [text for _, text in mixed.ticks] == ["3", "null", "sgd", "true"]
    assert parameter_axis(list(range(7)), "n", 250).names == {}
    assert not made.slanted
    assert parameter_axis(["x" * 40, "y"], "n", 250).slanted


def test_what_learned_nothing_leaves_room_for_the_others():
    values = [0.90, 0.91, 0.89, 0.88, 0.87, 0.10]
    up = value_axis(values, Objective("validation_accuracy"))
    assert 80 < up.low < 87
    assert 91 < up.high < 93
    assert [up.beyond(value) for value in values] == [False] * 5 + [True]
    assert up.arrow == "v"
    assert up.low < up.placed(0.10) < up.placed(0.87) == 87
    down = value_axis([1.0, 1.1, 1.2, 1.3, 90.0], Objective("flops", "minimize"))
    assert (down.beyond(90.0), down.beyond(1.3), down.arrow) == (True, False, "^")
    whole = value_axis([0, 0], whole=True)
    assert [text for _, text in whole.ticks] == ["0"]


def test_the_surface_is_of_learning_rate_and_batch_size_or_of_what_matters_most():
    def keys(*tried, **changes):
        trials = [trial(number, parameters=values) for number, values in enumerate(tried)]
        made = search(trials=trials, **changes)
        return surface_keys(made, ranking(made))

    both = {"optimizer.lr": 0.1, "batch_size": 64}
    weights = {"a": 0.9, "b": 0.5, "c": 0.7}
    other = {"optimizer.lr": 0.2, "batch_size": 128}
    named = ("optimizer.lr", "batch_size")
    assert keys({**both, "a": 1}, {**other, "a": 2}, importances={"a": 1.0}) == named
    numbers = [dict.fromkeys("abc", number) for number in (1, 2)]
    assert keys(*numbers, importances=weights) == ("a", "c")
    # A text, a choice of yes or no, and what was the same each time have no axis.
    assert keys({"a": 1, "b": "x", "c": True}, {"a": 2, "b": "y", "c": False}) is None
    assert keys({"a": 1, "b": 1}, {"a": 2, "b": 1}) is None
    assert keys({"a": 1, "b": None}, {"a": 2, "b": 1}) is None


def test_the_surface_says_its_unit_and_draws_pruned_trials_apart():
    tried = [{"optimizer.lr": 10.0**-n, "batch_size": 2**n} for n in range(1, 7)]
    trials = [trial(n, parameters=values, values=[0.5 + n / 20]) for n, values in enumerate(tried)]
    complete = search_figure(SearchPart(search(trials=trials), {}), "search").svg
    assert "Validation accuracy (%) by optimizer.lr and batch_size" in complete
    trials[2] |= {"state": "pruned", "values": None}
    made = search(trials=trials)
    pruned = search_figure(SearchPart(made, {}), "search")
    panel = pruned.svg.split("by optimizer.lr and batch_size")
    assert complete.count(">pruned<") == 0
    assert pruned.svg.count(">pruned<") == 1
    assert len(panel) == 2
    assert "what two parameters did together" in pruned.caption


def test_an_axis_of_near_values_is_no_magnifying_glass():
    axis = log_axis([44_426, 61_706], "parameters")
    assert axis.high / axis.low > 4
    assert axis.low < 44_426
    assert axis.high > 61_706
    wide = log_axis([44_426, 218_366_666], "parameters")
    assert [text for _, text in wide.ticks] == ["100 k", "1 M", "10 M", "100 M"]
    sizes = log_axis([64, 256, 512], "batch size", show=str, places=[[64, 256, 512]])
    assert sizes.ticks == ((64, "64"), (256, "256"), (512, "512"))
    assert [text for _, text in plain_axis(0, 9, show=lambda at: f"{at:.1f} s").ticks] == [
        *("0.0 s", "2.0 s", "4.0 s", "6.0 s", "8.0 s")
    ]
