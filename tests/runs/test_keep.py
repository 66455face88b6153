"""What a run keeps of its predictions, and that its record agrees with it."""

import json
import shutil

import numpy as np
import pytest
from commands import TINY
from stops import asked_to_stop

import fmbench
from fmbench.cli import rescore
from fmbench.core.errors import StorageError
from fmbench.core.signals import StopRequested
from fmbench.records.folder import RunFolder
from fmbench.records.predictions import (
    read_held_out,
    read_labels,
    read_predictions,
    read_probabilities,
    to_bytes,
)
from fmbench.records.reader import read_history
from fmbench.records.record import Record
from fmbench.runs.checkpointing import RunState

RUN = [*TINY, "epochs=2", "data.split=holdout"]


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """The folder of a run that validates, and its record."""
    folder = tmp_path_factory.mktemp("kept") / "run"
    return folder, fmbench.run([*RUN, f"hydra.run.dir={folder}"])


@pytest.fixture
def copied(kept, tmp_path):
    """That folder, to be changed."""
    shutil.copytree(kept[0], tmp_path / "run")
    return tmp_path / "run"


def test_probabilities_are_kept_beside_what_they_predict(kept):
    folder, record = kept
    probabilities = read_probabilities(folder)
    assert probabilities.shape == (record.split["test"], 10)
    assert np.array_equal(probabilities.argmax(1), read_predictions(folder))
    found = read_held_out(folder)
    assert len(found) == record.split["validation"]
    of_held_out = read_probabilities(folder, "validation")
    assert np.array_equal(of_held_out.argmax(1), found["predicted"])
    assert np.mean(found["predicted"] == found["label"]) == record.validation_accuracy
    scores = record.scores
    assert scores["test"]["nll"] == pytest.approx(record.test_loss, rel=1e-4)
    assert scores["validation"]["nll"] == pytest.approx(record.validation_loss, rel=1e-4)
    assert scores["validation"]["balanced_accuracy"] == pytest.approx(record.balanced_accuracy)
    right = read_labels(folder) == read_predictions(folder)
    assert scores["test"]["brier"] > 0
    assert right.mean() == record.test_accuracy


def test_the_wall_time_of_an_epoch_has_both_clocks(kept):
    folder, record = kept
    walls = [line["wall"] for line in read_history(folder)]
    trained = [line["seconds"] for line in read_history(folder)]
    assert trained[0] < walls[0] < walls[1]
    clocks = record.seconds["train"] + record.seconds["evaluate"]
    assert walls[1] == pytest.approx(clocks)


def test_without_probabilities_the_scores_are_the_same(kept, tmp_path):
    folder, record = kept
    given = [*RUN, "keep_probabilities=false", f"hydra.run.dir={tmp_path / 'run'}"]
    other = fmbench.run(given)
    assert (other.key, other.configuration) == (record.key, record.configuration)
    assert other.scores == record.scores
    names, others = ({p.name for p in one.iterdir()} for one in (folder, tmp_path / "run"))
    assert names - others == {"probabilities.npy", "held_out_probabilities.npy", "held_out.npy"}


def test_a_trial_keeps_them_when_it_is_evaluated(kept, tmp_path):
    folder, record = kept
    here = f"hydra.run.dir={tmp_path / 'run'}"
    trial = ["keep_probabilities=false", "evaluation.test=never", "keep_checkpoint=true"]
    assert list(fmbench.run([*RUN, *trial, here]).scores) == ["validation"]
    assert fmbench.run([*RUN, here]).scores == record.scores
    for name in ("probabilities.npy", "held_out_probabilities.npy", "held_out.npy"):
        assert (tmp_path / "run" / name).read_bytes() == (folder / name).read_bytes()


def test_a_record_agrees_with_its_files(ended, kept):
    status, out, err = ended(rescore.main, kept[0])
    assert (status, err) == (0, "")
    assert out == (
        "1 completed runs: 1 agree with their files in 28 numbers in all, 0 differ, 0 kept no "
        "files to compare with\n"
    )
    status, out, _ = ended(rescore.main, kept[0], "--json")
    (run,) = json.loads(out)["runs"]
    assert all(number["agrees"] for number in run["numbers"])
    assert len({number["name"] for number in run["numbers"]}) == 28


@pytest.mark.parametrize(("field", "said"), [
    ("test_accuracy", "test_accuracy is 0.999 in the record and "),
    ("train_loss", "train_loss is 0.999 in the record and "),
    ("validation_loss", "validation_loss is 0.999 in the record and "),
    ("scores.validation.aurc", "scores.validation.aurc is 0.999 in the record and "),
])  # fmt: skip
def test_a_number_that_differs_is_named(ended, copied, field, said):
    made = place = json.loads((copied / "result.json").read_text())
    *path, last = field.split(".")
    for step in path:
        place = place[step]
    place[last] = 0.999
    (copied / "result.json").write_text(json.dumps(made))
    status, out, _ = ended(rescore.main, copied)
    assert status == 4
    assert out.splitlines()[0].startswith(f"{copied}: {said}")
    assert " 1 differ" in out.splitlines()[-1]


def test_predictions_that_contradict_the_probabilities_are_named(ended, copied):
    """A record may agree with predictions that were made up."""
    predicted = read_predictions(copied).copy()
    labels = read_labels(copied)
    predicted[predicted != labels] = labels[predicted != labels]
    wrong = int((predicted != read_predictions(copied)).sum())
    (copied / "predictions.npy").write_bytes(to_bytes(predicted))
    record = json.loads((copied / "result.json").read_text())
    (copied / "result.json").write_text(json.dumps(record | {"test_accuracy": 1.0}))
    status, out, _ = ended(rescore.main, copied)
    assert status == 4
    assert out.startswith(
        f"{copied}: probabilities.npy: gives {wrong} of {len(labels)} images another class than "
        "predictions.npy\n"
    )


def test_labels_that_were_changed_in_one_run_are_named(ended, copied):
    other = copied.with_name("sun")
    shutil.copytree(copied, other)
    labels = read_labels(other).copy()
    wrong = np.flatnonzero(labels != read_predictions(other))[0]
    labels[wrong] = (labels[wrong] + 1) % 10
    (other / "labels.npy").write_bytes(to_bytes(labels))
    status, out, _ = ended(rescore.main, copied.parent)
    assert status == 4
    assert f"{other}: labels.npy: not the labels of {copied}, on the same data\n" in out


@pytest.mark.parametrize("name", [
    "predictions.npy", "probabilities.npy", "held_out.npy", "held_out_probabilities.npy",
])  # fmt: skip
def test_a_file_that_is_something_else_is_named(ended, copied, name):
    (copied / name).write_bytes(b"x" * 100)
    status, out, _ = ended(rescore.main, copied)
    assert (status, out.splitlines()[0]) == (4, f"{copied}: {name}: no such array as a run writes")
    (copied / name).write_bytes((copied / "labels.npy").read_bytes()[:-1])
    assert ended(rescore.main, copied)[0] == 4


def test_files_of_other_images_are_named(ended, copied):
    probabilities = read_probabilities(copied)
    (copied / "probabilities.npy").write_bytes(to_bytes(probabilities[1:]))
    status, out, _ = ended(rescore.main, copied)
    assert (status, "probabilities.npy: 49 images of 10 classes, and" in out) == (4, True), out
    (copied / "probabilities.npy").write_bytes(to_bytes(np.ones((50, 1), np.float32)))
    assert ended(rescore.main, copied)[0] == 4
    (copied / "labels.npy").write_bytes(to_bytes(read_labels(copied)[1:]))
    status, out, _ = ended(rescore.main, copied)
    assert (status, "49 labels, and the record says 50 test images" in out) == (4, True), out


@pytest.mark.parametrize("name", [
    "predictions.npy", "labels.npy", "probabilities.npy", "held_out_probabilities.npy",
    "history.jsonl",
])  # fmt: skip
def test_a_file_that_is_missing_is_named(ended, copied, name):
    """A record of made-up numbers would else agree once its files are gone."""
    (copied / name).unlink()
    status, out, _ = ended(rescore.main, copied)
    assert (status, f"{name}: is missing" in out) == (4, True), out


def test_a_history_that_lacks_an_epoch_is_named(ended, copied):
    lines = (copied / "history.jsonl").read_text().splitlines()
    (copied / "history.jsonl").write_text(lines[-1] + "\n")
    status, out, _ = ended(rescore.main, copied)
    assert (status, "history.jsonl: does not have each of 2 epochs once" in out) == (4, True), out


def test_a_kill_after_the_last_checkpoint_keeps_the_scores(kept, tmp_path, monkeypatch):
    given = [*RUN, "keep_checkpoint=true", f"hydra.run.dir={tmp_path / 'run'}"]
    monkeypatch.setattr(RunState, "end", lambda self: None)  # as if it were killed before
    fmbench.run(given)
    monkeypatch.undo()
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "running"
    assert fmbench.run(given).scores == kept[1].scores


def test_probabilities_are_written_last_and_nothing_ends_for_them(kept, tmp_path, monkeypatch):
    def full(self, part, probabilities):
        assert part != "test" or (self.path / "predictions.npy").exists()
        raise StorageError("the disk is full")

    monkeypatch.setattr(RunFolder, "write_probabilities", full)
    record = fmbench.run([*RUN, f"hydra.run.dir={tmp_path / 'run'}"])
    assert (record.status, record.scores) == ("completed", kept[1].scores)


def test_probabilities_of_an_earlier_start_go(copied):
    record = json.loads((copied / "result.json").read_text())
    (copied / "result.json").write_text(json.dumps(record | {"status": "interrupted"}))
    fmbench.run([*RUN, "keep_probabilities=false", f"hydra.run.dir={copied}"])
    assert read_predictions(copied) is not None
    assert not [*copied.glob("*probabilities.npy")]


def test_what_float16_holds_agrees_within_its_tolerances(ended, copied, monkeypatch):
    from fmbench.records import predictions
    from fmbench.records import rescore as numbers

    for module in (predictions, numbers):
        monkeypatch.setattr(module, "MOST_FLOAT32", 100)
    for name, part in (("probabilities", "test"), ("held_out_probabilities", "validation")):
        found = predictions.packed(read_probabilities(copied, part))
        assert found.dtype == np.float16
        (copied / f"{name}.npy").write_bytes(to_bytes(found))
    status, out, _ = ended(rescore.main, copied)
    assert status == 0, out


def test_older_records_have_no_scores_and_stay_valid(kept):
    made = json.loads((kept[0] / "result.json").read_text())
    del made["scores"]
    assert Record.from_json(json.dumps(made)).scores == {}


def test_corrupted_images_are_evaluated_at_the_end_and_choose_nothing(kept, tmp_path, caplog):
    folder, record = kept
    here = tmp_path / "run"
    given = [*RUN, "evaluation.corruptions=[contrast,rotate]", f"hydra.run.dir={here}"]
    with caplog.at_level("INFO"):
        found = fmbench.run(given)
    assert "corruptions v1: 2 kinds in 5 severities, 500 images to evaluate" in caplog.text
    assert found.corrupted["version"] == 1
    assert [*found.corrupted["accuracies"]] == ["contrast", "rotate"]
    assert {len(each) for each in found.corrupted["accuracies"].values()} == {5}
    # The run is the same, and a record without corruptions says nothing of them.
    assert (found.key, found.scores) == (record.key, record.scores)
    assert "corruptions" not in record.config["evaluation"]
    assert (here / "predictions.npy").read_bytes() == (folder / "predictions.npy").read_bytes()
    clock = read_history(here)[-1]["wall"]
    assert found.seconds["train"] + found.seconds["evaluate"] > clock


@pytest.mark.slow
def test_a_stop_among_corrupted_images_costs_nothing_of_the_record(tmp_path):
    given = [*RUN, "evaluation.corruptions=[contrast]"]
    straight = fmbench.run([*given, f"hydra.run.dir={tmp_path / 'straight'}"])
    here = f"hydra.run.dir={tmp_path / 'run'}"
    # Three batches and two evaluations an epoch, and then the second of five severities.
    steps = 2 * (-(-straight.split["train"] // 64) + 1) + 1
    with asked_to_stop(steps + 2), pytest.raises(StopRequested) as raised:
        fmbench.run([*given, here])
    assert raised.value.saved
    interrupted = Record.from_json((tmp_path / "run" / "result.json").read_text())
    assert (interrupted.status, interrupted.corrupted) == ("interrupted", None)
    again = fmbench.run([*given, here])
    assert again.corrupted == straight.corrupted
    assert again.scores == straight.scores
    assert again.test_accuracy == straight.test_accuracy
