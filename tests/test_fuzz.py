"""Whatever is typed or read, only documented errors come out.

Deterministic and short by default. For longer, with new examples each time:

    HYPOTHESIS_PROFILE=long python -m pytest -n 0 -m '' tests/test_fuzz.py
"""

import gzip
import json
import struct

import hydra
import pytest
from commands import TINY
from fuzz import fuzz
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from hypothesis import given
from hypothesis import strategies as st
from records import record

from fmbench import config as configuration
from fmbench import idx, results
from fmbench.errors import ConfigError, DataError
from fmbench.explain import as_user_error
from fmbench.schema import DTYPES, UnreadableError, to_row
from fmbench.trust import refuse_untrusted

# The override line

KEYS = st.sampled_from([
    "batch_size", "epochs", "seed", "device", "precision", "threads", "max_runs", "memory_format",
    "label_smoothing", "test_every", "keep_model", "model", "model._target_", "model.width",
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


@fuzz(200)
@given(st.binary(max_size=200) | mutated(VALID))
def test_an_idx_file_is_read_whole_or_refused(content):
    for read, rest in ((idx.read_images, 16), (idx.read_labels, 8)):
        try:
            array = read(content, "a file")
        except DataError as error:
            assert str(error).startswith("a file: ")
            assert "\n" not in str(error)
        else:
            assert array.tobytes() == content[rest:]
            assert array.ndim == 1 or array.shape[1:] == (28, 28)
            assert array.ndim == 3 or array.size == 0 or array.max() <= 9


@fuzz(200)
@given(st.binary(max_size=200) | mutated(ARCHIVES), st.integers(0, 3000))
def test_an_archive_inflates_within_its_limit_or_is_refused(archive, limit):
    try:
        content = idx.decompress(archive, limit, "a file")
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert len(content) <= limit
        assert content == gzip.decompress(archive)


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


@fuzz(200)
@given(JSON | mutated_records())
def test_a_record_becomes_a_row_or_is_unreadable(value):
    try:
        row = to_row(value)
    except UnreadableError as error:
        assert "\n" not in str(error)
    else:
        assert len(row) == len(DTYPES)


@fuzz(200)
@given(
    st.binary(max_size=100)
    | (JSON | mutated_records()).map(lambda value: json.dumps(value).encode())
    | mutated([json.dumps(record()).encode()])
)
def test_a_results_folder_is_read_whatever_lies_in_it(tmp_path_factory, content):
    folder = tmp_path_factory.getbasetemp() / "fuzz"
    folder.mkdir(exist_ok=True)
    (folder / "result.json").write_bytes(content)
    found = results.read_results(folder)
    assert len(found.frame) + len(found.problems) == 1
    for problem in found.problems:
        assert "\n" not in problem.reason
