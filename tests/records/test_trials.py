"""What a search tried: written and read without loss, and nothing malformed gets in."""

import json
import re
from typing import Any

import pytest
from searches import content, objective, trial

from fmbench.records.trials import Objective, Search, Trial

GOAL = Objective("a", "maximize")


def read(**changes: Any) -> Search:
    return Search.from_json(json.dumps(content(**changes)))


def test_what_is_written_is_what_is_read():
    search = Search(
        study="s",
        sampler="TPESampler",
        pruner="median",
        total=3,
        objectives=(Objective("validation_accuracy", "maximize"), Objective("flops", "minimize")),
        trials=(
            Trial(0, "complete", {"a": 1, "b": None, "c": "x", "d": True, "e": 0.5}, (0.9, 7.0)),
            Trial(2, "pruned", {}, None, {0: 0.5, 1: None}, "/elsewhere/2", 3.5),
            Trial(1, "failed", {"a": 2}, error="no memory"),
        ),
        importances={"a": 0.75, "b": 0.25},
        best=(0,),
    )
    assert Search.from_json(search.to_json()) == search


def test_the_file_says_what_the_schema_says():
    search = read()
    assert search.objectives == (Objective("validation_accuracy", "maximize"),)
    assert [one.number for one in search.trials] == [0, 1, 2, 3]
    assert search.trials[1].reports == {1: 0.5, 2: 0.6}
    assert search.trials[1].last_report == 0.6
    assert search.trials[0].values == (0.9,)
    assert search.importances == {"optimizer.lr": 0.8, "batch_size": 0.2}
    # Told in any order, and not all of it finite.
    assert Trial(0, "pruned", {}, None, {10: None, 9: 0.3, 2: 0.1}).last_report == 0.3
    assert Trial(0, "pruned", {}).last_report is None


@pytest.mark.parametrize(("changes", "reason"), [
    ({"schema": 2}, "schema is newer than this fmbench reads (1)"),
    ({"total": -1}, "total: Expected `int` >= 0"),
    ({"objectives": []}, "objectives: Expected `array` of length >= 1"),
    ({"objectives": [objective(f"{n}") for n in range(4)]}, "`array` of length <= 3"),
    ({"objectives": [objective("a")] * 2}, "objectives: one of them is there twice"),
    ({"objectives": [objective("a", "up")]}, "objectives[0].direction: Expected `str` matching"),
    ({"objectives": [{"name": "a"}]}, "objectives[0]: lacks `direction`"),
    ({"trials": [trial(0), trial(0)]}, "trials: one of them is there twice"),
    ({"trials": [trial(-1)]}, "trials[0].number: Expected `int` >= 0"),
    ({"trials": [trial(0, state="done")]}, "trials[0].state: Expected `str` matching"),
    ({"trials": [trial(0, values=None)]}, "trials[0]: values: a complete trial has them"),
    ({"trials": [trial(0, values=[0.5, 0.5])]}, "trials: values are not one for each"),
    ({"trials": [trial(0, values=[float("nan")])]}, "not JSON"),
    ({"trials": [trial(0, values=[1e300])]}, "trials[0].values[0]: Expected `float` < 1e+300"),
    ({"trials": [trial(0, state="failed")]}, "trials[0]: values: only of a trial that is"),
    ({"trials": [trial(0, parameters={"a": [1]})]}, "trials[0].parameters[...]: Expected"),
    ({"trials": [trial(0, parameters={"a": float("inf")})]}, "not JSON"),
    ({"trials": [trial(0, parameters={"a": 2**70})]}, "parameters[...]: Expected `int` <="),
    ({"trials": [trial(0, parameters={"a": "x" * 1_001})]}, "Expected `str` of length <= 1000"),
    ({"trials": [trial(0, reports={"x": 0.5})]}, "trials[0].reports: Expected `int`"),
    ({"trials": [trial(0, reports={"-1": 0.5})]}, "trials[0].reports: Expected `int` >= 0"),
    ({"trials": [trial(0, reports={"٣": 0.5})]}, "trials[0].reports: Expected `int`"),
    ({"trials": [trial(0, folder="../up")]}, "trials[0]: folder: neither below"),
    ({"trials": [trial(0, folder="")]}, "trials[0].folder: Expected `str` matching"),
    ({"trials": [trial(0, folder="a\0b")]}, "trials[0].folder: Expected `str` matching"),
    ({"trials": [trial(0, seconds=-1.0)]}, "trials[0].seconds: Expected `float` >= 0.0"),
    ({"importances": {"a": 1.5}}, "importances[...]: Expected `float` <= 1.0"),
    ({"best": [1]}, "best: not numbers of complete trials"),  # it was pruned
    ({"best": [99]}, "best: not numbers of complete trials"),
    ({"best": [0, 0]}, "best: one of them is there twice"),
    ({"study": "\ud800"}, "not JSON"),
])  # fmt: skip
def test_what_is_malformed_is_refused(changes, reason):
    with pytest.raises(ValueError, match=re.escape(reason)) as caught:
        read(**changes)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("key", sorted(content().keys() - {"importances", "best"}))
def test_what_is_missing_is_named(key):
    there = content()
    del there[key]
    with pytest.raises(ValueError, match=f"^lacks `{key}`$"):
        Search.from_json(json.dumps(there))
    there = trial(0)
    del there["state"]
    with pytest.raises(ValueError, match=r"^trials\[0\]: lacks `state`$"):
        read(trials=[there], best=[])


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, '{"a": ' + "9" * 5_000])
def test_what_is_no_json_object_is_refused(text):
    with pytest.raises(ValueError, match=r"not JSON|Expected `object`|out of range"):
        Search.from_json(text)


def test_what_would_be_refused_is_not_written():
    search = Search("s", "r", "p", 1, (GOAL,), (Trial(0, "complete", {}, (1.0,)),))
    assert Search.from_json(search.to_json()) == search
    for wrong in (float("nan"), float("inf")):
        bad = Trial(0, "complete", {}, (wrong,))
        with pytest.raises(ValueError, match=r"not JSON compliant|nan|inf"):
            Search("s", "r", "p", 1, (GOAL,), (bad,)).to_json()
    with pytest.raises(ValueError, match="best: not"):
        Search("s", "r", "p", 1, (GOAL,), (), best=(3,)).to_json()
