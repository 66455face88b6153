"""The figure of a search, and its axes."""

import io
import re
from xml.etree import ElementTree as ET

import pytest
from PIL import Image
from searches import search, trial, two_objectives

from fmbench.report.figure import Figure
from fmbench.report.figures.search import panels, search_figure, searched, surface_keys
from fmbench.report.figures.style import DPI, WIDTH, limits
from fmbench.report.table.search import SearchPart, importances, ranking


def figure_of(**changes) -> Figure:
    return search_figure(SearchPart(search(**changes), {}), "search")


def texts(figure: Figure) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", figure.svg)


@pytest.mark.parametrize("changes", [
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
])  # fmt: skip
def test_whatever_was_searched_can_be_drawn(changes):
    figure = figure_of(**changes)
    image = Image.open(io.BytesIO(figure.png))
    assert image.width == WIDTH * DPI
    assert 300 < image.height < 5_000
    ET.fromstring(figure.svg)
    assert sum(map(bool, image.convert("L").histogram())) > 10


def test_panels_stand_where_there_is_something_for_them():
    def shown(**changes):
        return list(panels(search(**changes)))

    assert shown() == ["History", "response surface", "slices", "importances"]
    assert shown(**two_objectives()) == ["History", "Pareto front", "slices", "importances"]
    failed = {"trials": [trial(0, state="failed", values=None)], "best": []}
    assert shown(**failed, importances=None) == ["History"]
    made = search()
    assert searched(made, ranking(made)) == ["optimizer.lr", "batch_size"]
    assert importances(made)[0] == ("optimizer.lr", 0.8)


@pytest.mark.parametrize(("values", "shown"), [
    ([0.0001, 0.003, 0.1], {"0.0001", "0.001", "0.01", "0.1"}),  # a wide range: logarithmic
    ([512, 64, 256, 64], {"64", "256", "512"}),  # few whole numbers are a choice
    (["sgd", None, 3, True], {"3", "null", "sgd", "true"}),
    (["x" * 40, "$y$"], {"x" * 14 + "...", "$y$"}),
    (list(range(20, 41)), {"20", "25", "30", "35", "40"}),
])  # fmt: skip
def test_an_axis_shows_what_was_tried(values, shown):
    tried = [trial(number, parameters={"a": value}) for number, value in enumerate(values)]
    said = texts(figure_of(trials=tried, importances=None))
    assert shown <= set(said)
    if len(shown) < 5:
        places = [said.index(text) for text in ("64", "256", "512") if text in shown]
        assert places == sorted(places)
        assert "128" not in said


def test_what_learned_nothing_leaves_room_for_the_others():
    low, high = limits([90, 91, 89, 88, 87, 10])
    assert 75 < low < 87
    assert 91 < high < 93
    low, high = limits([1.0, 1.1, 1.2, 1.3, 90.0], sign=-1)
    assert low < 1.0
    assert 1.3 < high < 2
    low, high = limits([90, 90 - 1e-9], least=0.5)
    assert high - low >= 0.5


def test_the_surface_is_of_learning_rate_and_batch_size_or_of_what_matters_most():
    def keys(*tried, **changes):
        trials = [trial(number, parameters=values) for number, values in enumerate(tried)]
        made = search(trials=trials, **changes)
        return surface_keys(made, ranking(made))

    both = {"optimizer.lr": 0.1, "batch_size": 64}
    weights = {"a": 0.9, "b": 0.5, "c": 0.7}
    other = {"optimizer.lr": 0.2, "batch_size": 128}
    named = ["optimizer.lr", "batch_size"]
    assert keys({**both, "a": 1}, {**other, "a": 2}, importances={"a": 1.0}) == named
    numbers = [dict.fromkeys("abc", number) for number in (1, 2)]
    assert keys(*numbers, importances=weights) == ["a", "c"]
    # A text, a choice of yes or no, and what was the same each time have no axis.
    assert keys({"a": 1, "b": "x", "c": True}, {"a": 2, "b": "y", "c": False}) == []
    assert keys({"a": 1, "b": 1}, {"a": 2, "b": 1}) == []
    assert keys({"a": 1, "b": None}, {"a": 2, "b": 1}) == []


@pytest.mark.slow
def test_the_surface_says_its_unit_and_draws_pruned_trials_apart():
    tried = [{"optimizer.lr": 10.0**-n, "batch_size": 2**n} for n in range(1, 7)]
    trials = [trial(n, parameters=values, values=[0.5 + n / 20]) for n, values in enumerate(tried)]
    assert "Response surface: validation accuracy (%)" in texts(figure_of(trials=trials))
    trials[2] |= {"state": "pruned", "values": None}
    figure = figure_of(trials=trials)
    title = "Response surface: validation accuracy (%); crosses were pruned"
    assert title in texts(figure)
    assert "In the response surface colour is the validation accuracy." in figure.caption
