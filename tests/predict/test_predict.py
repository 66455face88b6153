"""`python -m fmbench.predict`, as a person runs it."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from commands import CHECKOUT
from PIL import Image

from fmbench.data import synthetic
from fmbench.data.load import load
from fmbench.predict.__main__ import main

CLASSES = synthetic.CLASSES


@pytest.fixture(scope="module")
def exported(kept_run, tmp_path_factory):
    """The test images of the run as PNGs, in their order."""
    folder = tmp_path_factory.mktemp("exported")
    config = json.loads((kept_run / "result.json").read_text())["config"]["data"]
    paths = []
    for number, image in enumerate(load(config).part("test")[0][:, 0]):
        paths.append(folder / f"{number}.png")
        Image.fromarray(image).save(paths[-1])
    return paths


def guesses(line):
    """The classes of a line and their shares, best first, behind the name of the picture."""
    return re.findall(r"  ([A-Z][\w/ -]*?) +(\d+\.\d)%", line)


def test_images_of_the_data_set_get_the_predictions_of_the_run(kept_run, exported, ended):
    status, out, err = ended(main, kept_run, *exported)
    assert (status, err) == (0, "")
    found = [CLASSES.index(guesses(line)[0][0]) for line in out.splitlines()]
    assert found == np.load(kept_run / "predictions.npy").tolist()


def test_a_large_picture_on_white_gets_most_of_them_too(kept_run, exported, ended, tmp_path):
    large = []
    for path in exported[:40]:
        image = 255 - np.asarray(Image.open(path))
        # Without the grain of the background, which no picture on white has.
        image = Image.fromarray(np.where(image > 225, 255, image).astype(np.uint8))
        canvas = Image.new("RGB", (400, 500), "white")
        canvas.paste(image.resize((280, 280)), (17, 90))
        large.append(tmp_path / path.name)
        canvas.save(large[-1])
    _, out, _ = ended(main, kept_run, *large)
    found = np.array([CLASSES.index(guesses(line)[0][0]) for line in out.splitlines()])
    assert (found == np.load(kept_run / "predictions.npy")[:40]).mean() > 0.5  # a guess has 0.1


def test_lines_are_aligned_and_best_first(kept_run, exported, ended):
    status, out, _ = ended(main, kept_run, exported[3], exported[10], "--top", "2")
    assert status == 0
    first, second = out.splitlines()
    assert first.startswith(f"{exported[3]} ")
    assert [m.end() for m in re.finditer("%", first)] == [m.end() for m in re.finditer("%", second)]
    for line in (first, second):
        ((_, best), (_, next_best)) = guesses(line)
        assert float(best) >= float(next_best)


def test_top_takes_up_to_all_classes(kept_run, exported, ended):
    assert len(guesses(ended(main, kept_run, exported[0])[1])) == 3
    every = guesses(ended(main, kept_run, exported[0], "--top", "10")[1])
    assert sorted(name for name, _ in every) == sorted(CLASSES)
    assert sum(float(share) for _, share in every) == pytest.approx(100, abs=1)
    for wrong in ("0", "-1", "11", "x", "1.5", "²"):
        status, _, err = ended(main, kept_run, exported[0], "--top", wrong)
        assert status == 2
        assert "--top" in err


def test_bad_pictures_are_named_and_the_others_classified(kept_run, exported, ended, tmp_path):
    (tmp_path / "a.txt").write_text("no picture")
    Image.new("L", (99, 99), 9).save(tmp_path / "grey.png")
    bad = [tmp_path / "gone.png", tmp_path / "a.txt", tmp_path, tmp_path / "grey.png"]
    status, out, err = ended(main, kept_run, *bad[:2], exported[0], *bad[2:], exported[1])
    assert status == 3
    assert [line.split()[0] for line in out.splitlines()] == [str(exported[0]), str(exported[1])]
    assert len(err.splitlines()) == 4
    for path, line in zip(bad, err.splitlines(), strict=True):
        assert line.startswith(f"fmbench.predict: {path}: ")


def test_a_wrong_folder_is_one_line(kept_run, exported, ended, tmp_path):
    for folder, wanted, part in (
        (tmp_path / "gone", 2, "is not a folder"),
        (exported[0], 2, "is not a folder"),
        (tmp_path, 3, "keep_model=true"),
    ):
        status, out, err = ended(main, folder, exported[0])
        assert (status, out) == (wanted, "")
        assert err.count("\n") == 1
        assert part in err
    assert ended(main, kept_run)[0] == 2  # no picture


def test_names_do_not_act_in_a_terminal(kept_run, exported, ended, tmp_path):
    for name in ("a\x1b[2J.png", "b\n.png"):
        (tmp_path / name).write_bytes(exported[0].read_bytes())
    _, out, _ = ended(main, kept_run, tmp_path / "a\x1b[2J.png", tmp_path / "b\n.png")
    assert "\x1b" not in out
    assert "\\x1b[2J" in out
    assert len(out.splitlines()) == 2
    _, _, err = ended(main, kept_run, tmp_path / "\x1b[2J\n")
    assert "\x1b" not in err
    assert err.count("\n") == 1


def test_what_the_model_saw_is_written(kept_run, exported, ended, tmp_path):
    gone = tmp_path / "gone.png"
    seen = tmp_path / "seen.png"
    assert ended(main, kept_run, gone, "--seen", seen)[0] == 3
    assert not seen.exists()
    assert ended(main, kept_run, exported[4], gone, exported[7], "--seen", seen)[0] == 3
    assert ended(main, kept_run, exported[4], gone, exported[7], "--seen", seen)[0] == 3  # again
    small = np.asarray(Image.open(seen))[3::6, 3::6]
    assert small.shape == (30, 60)
    for place, path in enumerate((exported[4], exported[7])):
        left = 30 * place + 1
        assert np.array_equal(small[1:29, left : left + 28], np.asarray(Image.open(path)))
    status, out, err = ended(main, kept_run, exported[4], "--seen", tmp_path / "no" / "seen.png")
    assert status == 5
    assert out.count("\n") == err.count("\n") == 1
    assert "cannot be written" in err


@pytest.mark.parametrize("name", ["mine.png", "new.jpg"])
def test_a_sheet_takes_no_place_of_a_picture_that_is_classified(kept_run, ended, tmp_path, name):
    mine = tmp_path / "mine.png"
    Image.new("L", (40, 30), 200).save(mine)
    before = mine.read_bytes()
    status, out, err = ended(main, kept_run, mine, "--seen", tmp_path / name)
    assert (status, out) == (2, "")
    assert "must end in .png, and be none of the pictures" in err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.png"]
    assert mine.read_bytes() == before


def test_a_background_that_is_said_counts(kept_run, exported, ended):
    assert (
        ended(main, kept_run, exported[0], "--background", "light")[1]
        != ended(main, kept_run, exported[0], "--background", "dark")[1]
    )
    assert ended(main, kept_run, exported[0], "--background", "red")[0] == 2


def test_help_says_what_is_done(ended):
    out = ended(main, "--help")[1]
    for part in ("inverted", "keep_model=true", "exit status"):
        assert part in out


@pytest.mark.slow
def test_the_command_is_quiet_in_a_pipe_and_ends_well_when_it_is_cut(kept_run, exported, tmp_path):
    shell = f"{sys.executable} -W error -m fmbench.predict {kept_run} {exported[0]} {exported[1]}"
    environment = {"PYTHONPATH": str(CHECKOUT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}

    def bash(line):
        return subprocess.run(
            ["bash", "-o", "pipefail", "-c", line],
            capture_output=True, check=False, text=True, cwd=tmp_path, env=environment,
        )  # fmt: skip

    cut = bash(f"{shell} | head -1")
    assert (cut.returncode, cut.stderr) == (0, "")
    assert cut.stdout.startswith(str(exported[0]))
    full = bash(f"{shell} > /dev/full")
    assert full.returncode == 5
    assert full.stderr == (
        "fmbench.predict: standard output: cannot be written: No space left on device\n"
    )
