"""What a search tried: written and read without loss, and nothing malformed gets in."""

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from searches import content, trial

from fmbench.records.trials import Objective, Search, Trial

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


def read(**changes: Any) -> Search:
    return Search.from_json(json.dumps(content(**changes)))


def test_what_is_written_is_what_is_read():
    search = Search(
        study="s",
        sampler="TPESampler",
        pruner="median",
        total=3,
        objectives=(Objective("validation_accuracy"), Objective("flops", "minimize")),
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


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"schema": 2}, "schema 2 is newer than this fmbench reads (1)"),
        ({"schema": True}, "schema is True, not 1"),
        ({"study": 3}, "study is 3, not a text"),
        ({"sampler": None}, "sampler is None"),
        ({"pruner": []}, "pruner is []"),
        ({"total": -1}, "total is -1, not a whole number"),
        ({"total": 2.0}, "total is 2.0"),
        ({"objectives": []}, "objectives are not 1 to 3 different ones"),
        ({"objectives": [{"name": "a", "direction": "maximize"}] * 2}, "1 to 3 different ones"),
        ({"objectives": [{"name": "a", "direction": "up"}]}, "objectives[0].direction is 'up'"),
        ({"objectives": [{"name": "a"}]}, "lacks objectives[0].direction"),
        ({"objectives": ["a"]}, "objectives[0] is 'a', not an object"),
        ({"trials": {}}, "trials is {}, not a list"),
        ({"trials": [3]}, "trials[0] is 3, not an object"),
        ({"trials": [trial(0), trial(0)]}, "two trials have one number"),
        ({"trials": [trial(-1)]}, "trials[0].number is -1"),
        ({"trials": [trial(True)]}, "trials[0].number is True"),
        ({"trials": [trial(0, state="done")]}, "trials[0].state is 'done', none of complete"),
        ({"trials": [trial(0, values=None)]}, "trials[0] is complete and has no values"),
        ({"trials": [trial(0, values=[0.5, 0.5])]}, "trials[0].values is [0.5, 0.5], not 1"),
        ({"trials": [trial(0, values=[float("nan")])]}, "trials[0].values is [nan]"),
        ({"trials": [trial(0, values=["1"])]}, "trials[0].values is ['1']"),
        ({"trials": [trial(0, values=[True])]}, "trials[0].values is [True]"),
        ({"trials": [trial(0, values=0.5)]}, "trials[0].values is 0.5"),
        ({"trials": [trial(0, state="failed")]}, "trials[0].values is [0.9]"),
        ({"trials": [trial(0, state="running")]}, "trials[0].values is [0.9]"),
        ({"trials": [trial(0, parameters=None)]}, "trials[0].parameters is None, not an object"),
        ({"trials": [trial(0, parameters={"a": [1]})]}, "trials[0].parameters['a'] is [1]"),
        ({"trials": [trial(0, parameters={"a": float("inf")})]}, "parameters['a'] is not finite"),
        ({"trials": [trial(0, parameters={"a": 2**70})]}, "parameters['a'] is a huge number"),
        ({"trials": [trial(0, reports={"x": 0.5})]}, "trials[0].reports: the epoch is 'x'"),
        ({"trials": [trial(0, reports={"-1": 0.5})]}, "which is no whole number"),
        ({"trials": [trial(0, reports={"٣": 0.5})]}, "which is no whole number"),
        ({"trials": [trial(0, reports={"1": "a"})]}, "trials[0].reports[1] is 'a'"),
        ({"trials": [trial(0, folder="../up")]}, "trials[0].folder is '../up', neither below"),
        ({"trials": [trial(0, folder="")]}, "trials[0].folder is ''"),
        ({"trials": [trial(0, folder="a\0b")]}, "trials[0].folder is 'a\\x00b'"),
        ({"trials": [trial(0, seconds=-1.0)]}, "trials[0].seconds is -1.0"),
        ({"trials": [trial(0, error=7)]}, "trials[0].error is 7, not a text"),
        ({"importances": {"a": 1.5}}, "importances['a'] is 1.5, not a number from 0 to 1"),
        ({"importances": [1]}, "importances is [1], not an object"),
        ({"best": [1]}, "best is [1], not numbers of complete trials"),  # it was pruned
        ({"best": [99]}, "best is [99]"),
        ({"best": [False]}, "best is [False]"),
        ({"best": [0, 0]}, "best names a trial twice"),
        ({"study": "\ud800"}, "not valid Unicode"),
    ],
)
def test_what_is_malformed_is_refused(changes, reason):
    with pytest.raises(ValueError, match=re.escape(reason)) as caught:
        read(**changes)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("key", list(content()))
def test_what_is_missing_is_named(key):
    there = content()
    del there[key]
    with pytest.raises(ValueError, match="schema is None" if key == "schema" else f"lacks {key}"):
        Search.from_json(json.dumps(there))


@pytest.mark.parametrize("key", list(trial(0)))
def test_what_is_missing_in_a_trial_is_named(key):
    there = trial(0)
    del there[key]
    with pytest.raises(ValueError, match=rf"lacks trials\[0\]\.{key}$"):
        read(trials=[there], best=[])


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, '{"a": ' + "9" * 5_000])
def test_what_is_no_json_object_is_refused(text):
    with pytest.raises(ValueError, match=r"not JSON|not a search|too long or too deep"):
        Search.from_json(text)


def test_what_would_be_refused_is_not_written():
    search = Search("s", "r", "p", 1, (Objective("a"),), (Trial(0, "complete", {}, (1.0,)),))
    assert Search.from_json(search.to_json()) == search
    for wrong in (float("nan"), float("inf")):
        bad = Trial(0, "complete", {}, (wrong,))
        with pytest.raises(ValueError, match=r"not JSON compliant|nan|inf"):
            Search("s", "r", "p", 1, (Objective("a"),), (bad,)).to_json()
    with pytest.raises(ValueError, match="best is"):
        Search("s", "r", "p", 1, (Objective("a"),), (), best=(3,)).to_json()


@settings(max_examples=150, deadline=None)
@given(data=st.data(), value=JSON)
def test_nothing_but_a_value_error_comes_out(data, value):
    """One place of a good file replaced by anything."""
    there = content()
    place: Any = there
    while True:
        keys = sorted(place) if type(place) is dict else range(len(place))
        key = data.draw(st.sampled_from(keys))
        if not place[key] or type(place[key]) not in (dict, list) or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = value
    text = json.dumps(there)
    try:
        search = Search.from_json(text)
    except ValueError:
        return
    assert Search.from_json(search.to_json()) == search


@settings(max_examples=100, deadline=None)
@given(text=st.text() | JSON.map(json.dumps))
def test_any_text_is_refused_with_a_value_error(text):
    with pytest.raises(ValueError, match=r"."):
        Search.from_json(text)
