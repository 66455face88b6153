"""Whatever is typed or read, only documented errors come out.

Deterministic and short by default. For longer, with new examples each time:

    HYPOTHESIS_PROFILE=long python -m pytest -n 0 -m '' tests/test_fuzz.py
"""

import copy
import gzip
import itertools
import json
import os
import shutil
import signal
import struct

import hydra
import pytest
import searches
from commands import TINY, compose
from fuzz import fuzz
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from hypothesis import given
from hypothesis import strategies as st
from records import record

import fmbench
from fmbench.cli import main as cli
from fmbench.config import checks as configuration
from fmbench.config.messages import as_user_error
from fmbench.config.trust import refuse_untrusted
from fmbench.core.errors import ConfigError, DataError
from fmbench.data.idx import read_idx
from fmbench.data.known import _inflate
from fmbench.records import reader
from fmbench.records.record import Record
from fmbench.records.trials import Search
from fmbench.records.validation import UnreadableError
from fmbench.report.__main__ import main as report_main
from fmbench.training.checkpoint import read_state, write_state

# The override line

KEYS = st.sampled_from([
    "batch_size", "epochs", "seed", "device", "precision", "threads", "max_runs", "memory_format",
    "label_smoothing", "evaluation.every", "test_every", "keep_model",
    "model", "model._target_", "model.width",
    "optimizer", "optimizer.lr", "optimizer.momentum", "scheduler", "data", "data.name",
    "data.root", "data.mean", "data.split", "data.split.name", "data.split.validation",
    "augmentation", "augmentation.crop", "augmentation.flip.probability",
    "augmentation.erasing.scale", "experiment", "sweep", "reference", "hydra.run.dir",
    "hydra.sweep.subdir", "hydra.job.name", "hydra.job.env_set.A", "hydra/launcher",
    "hydra.callbacks.x._target_", "hydra.job_logging.root", "hydra.searchpath",
    "hydra.output_subdir", "hydra.verbose", "nonsense", "model.x@y", "/model",
])  # fmt: skip
WORDS = st.sampled_from([
    "0", "1", "-1", "64", "0.5", "nan", "inf", "-inf", "1e999", "1e-400", "null", "true", "false",
    "???", "[]", "{}", "[1,2]", "{a:1}", "{_target_:os.system}", "lenet", "lenet5", "densenet",
    "sgd", "synthetic", "fashion_mnist", "standard", "holdout", "custom", "auto", "cpu", "cuda",
    "cuda:9", "bf16", "os.system", "builtins.eval", "../x", "/etc/passwd", "~", ".", "..",
    "${nope}", "${seed}", "${oc.env:HOME}", "${oc.env:NOPE}", "${now:%Y}", "1,2,3", "range(3)",
    "range(1000000000)", "choice(a,b)", "interval(0,1)", "glob(*)", "'a", "'b'", '"c"', "\\,",
    "pkg://this", "[pkg://this]", "{padding:2}", "{size:99}", "00", "0x10", "1_000", "é", "🙂",
])  # fmt: skip
VALUES = WORDS | st.integers().map(str) | st.floats().map(str) | st.text(max_size=20)
SIGNS = st.sampled_from(["", "", "", "+", "++", "~", "~~", "@"])
OVERRIDES = (
    st.builds("{}{}={}".format, SIGNS, KEYS, VALUES)
    | st.builds("{}{}".format, SIGNS, KEYS)
    | st.builds("{}={}{}".format, KEYS, WORDS, WORDS)
    | st.text(max_size=30)
)


@pytest.mark.slow
@fuzz(200)
@given(
    st.lists(OVERRIDES, min_size=1, max_size=3), st.sampled_from([RunMode.RUN, RunMode.MULTIRUN])
)
def test_an_override_line_composes_or_is_a_users_mistake(overrides, mode):
    configuration.register()
    try:
        with hydra.initialize_config_dir(str(configuration.CONFIG_DIR)):
            loader = GlobalHydra.instance().config_loader()
            composed = loader.load_configuration("config", [*TINY, *overrides], mode)
            refuse_untrusted(composed)
            configuration.check(configuration.resolve(composed))
    except BaseException as error:
        known = as_user_error(error)
        if known is None:
            raise
        assert isinstance(known, ConfigError), overrides


# The IDX reader


VALID = [
    struct.pack(">4I", 0x803, 2, 28, 28) + bytes(2 * 784),
    struct.pack(">2I", 0x801, 20) + bytes(range(10)) * 2,
]
ARCHIVES = [gzip.compress(content, mtime=0) for content in VALID]


@st.composite
def mutated(draw, originals):
    """One of the originals with bytes changed, taken out, put in, or cut off."""
    content = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, max(0, len(content) - 1)))
        action = draw(st.sampled_from(["change", "cut", "insert", "delete", "header"]))
        if action == "change" and content:
            content[place] = draw(st.integers(0, 255))
        elif action == "cut":
            del content[place:]
        elif action == "insert":
            content[place:place] = draw(st.binary(max_size=8))
        elif action == "delete":
            del content[place : place + draw(st.integers(1, 8))]
        else:
            content[:16] = draw(st.binary(min_size=16, max_size=16))
    return bytes(content)


@fuzz(100)
@given(st.binary(max_size=200) | mutated(VALID))
def test_an_idx_file_is_read_whole_or_refused(content):
    try:
        array = read_idx(content)
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert array.tobytes() == content[4 + 4 * array.ndim :]


@fuzz(100)
@given(st.binary(max_size=200) | mutated(ARCHIVES), st.integers(0, 3000))
def test_an_archive_inflates_within_its_limit_or_is_refused(archive, limit):
    try:
        content = _inflate(archive, limit)
    except DataError as error:
        assert str(error).startswith("a damaged archive")
        return
    assert len(content) <= limit + 1


# The record reader

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


@st.composite
def mutated_records(draw):
    """A valid record with some of its values, at any depth, replaced, added or taken out."""
    made = record(schema=draw(st.sampled_from([1, 1, 1, 1, 2, "1", None])))
    for _ in range(draw(st.integers(1, 3))):
        place = made
        while True:
            key = draw(st.sampled_from(sorted(place)) | st.text(max_size=8))
            inner = place.get(key)
            if not isinstance(inner, dict) or not inner or draw(st.booleans()):
                break
            place = inner
        if draw(st.booleans()):
            place[key] = draw(JSON | st.integers(-(10**400), 10**400))
        else:
            place.pop(key, None)
    return made


@pytest.mark.slow
@fuzz(100)
@given(JSON | mutated_records())
def test_a_record_is_read_or_is_unreadable(value):
    try:
        made = Record.from_json(json.dumps(value))
    except UnreadableError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 300
    else:
        assert Record.from_json(made.to_json()) == made


@fuzz(100)
@given(st.data(), JSON)
def test_a_search_is_read_or_refused(data, value):
    """One place of a good file, or all of it, replaced by anything."""
    made = place = {"all": searches.content()}
    while True:
        key = data.draw(
            st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place)))
        )
        if not place[key] or not isinstance(place[key], dict | list) or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = value
    try:
        search = Search.from_json(json.dumps(made["all"]))
    except ValueError as error:
        assert "\n" not in str(error)
    else:
        assert Search.from_json(search.to_json()) == search


@pytest.mark.slow
@fuzz(60)
@given(
    st.binary(max_size=100)
    | (JSON | mutated_records()).map(lambda value: json.dumps(value).encode())
    | mutated([json.dumps(record()).encode()])
)
def test_a_results_folder_is_read_whatever_lies_in_it(tmp_path_factory, content):
    folder = tmp_path_factory.getbasetemp() / "fuzz"
    folder.mkdir(exist_ok=True)
    (folder / "result.json").write_bytes(content)
    found = reader.read_results(folder)
    assert len(found.frame) + len(found.problems) == 1
    for problem in found.problems:
        assert "\n" not in problem.reason


# What a folder that was received holds, each part in turn

WRONG = [
    None, True, -1, 1.5, 10**30, 1e308, "x", "", "x" * 200_000, "\x1b]0;x\a${oc.env:SECRET}\n", [],
    {}, [1], {"a": {"a": "b"}}, [[[]]] * 50, "../../outside/secret", "/dev/zero", ["x"] * 5_000,
]  # fmt: skip

#: Sizes of what a run and a report may leave, the largest being a page of all that they say.
MOST_BYTES = 4_000_000


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The folder of a run that was interrupted as it ended, with every file that a run has."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    fmbench.run([*TINY, "keep_model=true", "keep_checkpoint=true", f"hydra.run.dir={folder}"])
    (folder / "fmbench.log").write_text("a line\n")
    (folder / ".hydra").mkdir(exist_ok=True)
    for name in ("config", "hydra", "overrides"):
        (folder / ".hydra" / f"{name}.yaml").write_text("{}\n")
    return folder


@pytest.fixture
def received(command, tmp_path, stopped, monkeypatch):
    """Starts commands on a folder that was received, and sees that nothing else is touched."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("s3cr3t")
    monkeypatch.setenv("SECRET", "s3cr3t")

    def give(change, *commands):
        """Have a change made to a copy of the folder, and each command run on it."""
        run = tmp_path / "run"
        shutil.copytree(stopped, run, symlinks=True)
        change(run)
        for arguments, main in commands:
            signal.alarm(20)  # a read that never ends, and cannot be interrupted, ends the tests
            try:
                status, out, err = command(*arguments, main=main)
            finally:
                signal.alarm(0)
            case = f"{change.__doc__}: {err or out}"[:2_000]
            assert status in {0, 2, 3, 4, 5}, case
            assert "Traceback" not in out + err, case
            assert "s3cr3t" not in out + err, case
            assert all(line.isprintable() for line in (out + err).split("\n")), case
            assert len(out + err) < 200_000, case
        assert {path.name for path in tmp_path.iterdir()} <= {"run", "out", "outside", "mine"}
        assert [path.name for path in outside.iterdir()] == ["secret"]
        assert (outside / "secret").read_text() == "s3cr3t"
        for made in (run, tmp_path / "out"):
            for path in made.rglob("*"):
                if path.is_file() and not path.is_symlink() and path.stat().st_blocks:
                    assert path.stat().st_size < MOST_BYTES, (change.__doc__, path)
            shutil.rmtree(made, ignore_errors=True)

    return give


REPORT = ((), lambda: report_main(["run", "--output", "out"]))
RESUME = ((*TINY, "keep_model=true", "keep_checkpoint=true", "hydra.run.dir=run"), cli.main)


def _named(name, change):
    change.__doc__ = name
    return change


def _places(node, path=(), depth=3):
    """The place of each value in nested dictionaries and lists."""
    pairs = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in list(pairs):
        yield (*path, key)
        if isinstance(value, (dict, list)) and depth > 1:
            yield from _places(value, (*path, key), depth - 1)


def _put(node, path, value):
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value


def _tampered(made, count, depth=3):
    """So many copies of nested values, each with one of them another, evenly over all places."""
    places = list(_places(made, depth=depth))
    for number in range(count):
        path = places[number * len(places) // count]
        value = WRONG[number * 7 % len(WRONG)]
        copied = copy.deepcopy(made)
        _put(copied, path, value)
        yield f"{'.'.join(map(str, path))} = {str(value)[:30]}", copied


@pytest.mark.slow
def test_a_tampered_record_does_nothing(received, stopped, no_pictures):
    made = json.loads((stopped / "result.json").read_text())
    for number, (name, changed) in enumerate(_tampered(made, 40)):
        changed["status"] = changed["status"] if number % 3 else "interrupted"

        def change(run, changed=changed):
            (run / "result.json").write_text(json.dumps(changed))

        received(_named(name, change), *((REPORT,) if number % 3 else (RESUME, REPORT)))


@pytest.mark.slow
def test_a_tampered_search_does_nothing(received):
    for name, changed in _tampered(searches.content(), 20, depth=4):

        def change(run, changed=changed):
            (run / "search.json").write_text(json.dumps(changed))

        received(_named(name, change), REPORT)


@pytest.mark.slow
def test_a_tampered_history_does_nothing(received, stopped):
    lines = [json.loads(line) for line in (stopped / "history.jsonl").read_text().splitlines()]
    for name, changed in _tampered(lines, 12):

        def change(run, changed=changed):
            text = "".join(json.dumps(line) + "\n" for line in changed)
            (run / "history.jsonl").write_text(text)

        received(_named(name, change), REPORT)


@pytest.mark.slow
def test_a_tampered_checkpoint_does_nothing(received, stopped):
    with (stopped / "checkpoint.pt").open("rb") as file:
        state = read_state(file)
    record = json.loads(state["record"])
    parts = list(_tampered(state, 10))
    parts += [(f"record.{name}", {**state, "record": json.dumps(changed)})
              for name, changed in _tampered(record, 10)]  # fmt: skip
    for name, changed in parts:

        def change(run, changed=changed):
            (run / "checkpoint.older.pt").unlink(missing_ok=True)
            with (run / "checkpoint.pt").open("wb") as file:
                write_state(changed, file)
            made = json.loads((run / "result.json").read_text()) | {"status": "interrupted"}
            (run / "result.json").write_text(json.dumps(made))

        received(_named(name, change), RESUME)


@pytest.mark.slow
def test_a_tampered_config_file_does_nothing(received, tmp_path):
    plain = compose(*TINY)
    for name, changed in _tampered({key: plain[key] for key in plain if key != "data"}, 40):

        def change(_run, changed=changed):
            (tmp_path / "mine" / "experiment").mkdir(parents=True, exist_ok=True)
            text = "# @package _global_\n" + json.dumps(changed)
            (tmp_path / "mine" / "experiment" / "x.yaml").write_text(text)

        typed = ["--config-dir", "mine", "experiment=x", *TINY, "hydra.run.dir=out", "--cfg", "job"]
        received(_named(name, change), (typed, cli.main))


@pytest.mark.slow
def test_a_file_that_is_none_does_nothing(received, tmp_path):
    secret = tmp_path / "outside" / "secret"
    kinds = {
        "link": lambda path: path.symlink_to(secret),
        "dangling link": lambda path: path.symlink_to(secret.with_name("new")),
        "device": lambda path: path.symlink_to("/dev/zero"),
        "pipe": os.mkfifo,
        "folder": os.mkdir,
        "large": lambda path: (path.touch(), os.truncate(path, 2**33)),
    }
    both, report = (RESUME, REPORT), (REPORT,)
    names = {
        **dict.fromkeys(("result.json", "history.jsonl"), both),
        **dict.fromkeys(("search.json", "suspects.json", "predictions.npy"), report),
        **dict.fromkeys(("labels.npy", "mistakes.npy"), report),
        **dict.fromkeys(("checkpoint.pt", "model.safetensors", "mlflow.json"), (RESUME,)),
        **dict.fromkeys((".fmbench.lock", ".hydra/config.yaml", "tensorboard"), (RESUME,)),
    }
    for (name, commands), (kind, make) in itertools.product(names.items(), kinds.items()):

        def change(run, name=name, make=make):
            if name != "result.json":
                made = json.loads((run / "result.json").read_text()) | {"status": "interrupted"}
                (run / "result.json").write_text(json.dumps(made))
            (run / name).unlink(missing_ok=True)
            make(run / name)

        received(_named(f"{name}: a {kind}", change), *commands)
