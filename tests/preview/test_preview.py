"""The command that shows an augmentation: that its pictures are what a run trains on."""

import functools
import io
import shlex

import matplotlib as mpl
import numpy as np
import pytest
import torch
from commands import CHECKOUT, TINY, compose, python, write_option
from PIL import Image

from fmbench.preview import __main__ as preview
from fmbench.preview import images
from fmbench.preview.images import GAP, LEFT, MARGIN, SQUARE, Grid, draw
from fmbench.runs import prepare

#: The smallest run whose images can be shown; nothing of the model is looked at.
DATA = ["data=synthetic", "data.train_size=200", "data.test_size=50", "threads=1"]
ALL = ["augmentation=crop_flip_cutout", "augmentation.erasing={}"]


@pytest.fixture
def command(command):
    """Run `fmbench.preview ARGUMENTS`."""
    return functools.partial(command, main=preview.main)


def collect(*overrides, rows=10, draws=3):
    config, option = preview.compose([*DATA, *overrides])
    return images.collect(config, option, images=rows, draws=draws)


@pytest.mark.slow
def test_it_writes_one_picture_prints_its_path_and_makes_no_run_folder(command, tmp_path):
    assert command(*DATA, "augmentation=flip", "--draws", "2") == (0, "preview.png\n", "")
    assert [path.name for path in tmp_path.iterdir()] == ["preview.png"]
    first = (tmp_path / "preview.png").read_bytes()
    assert first.startswith(b"\x89PNG")
    arguments = ["--output", "b.png", *DATA, "--images=3", "augmentation=flip", "hydra.run.dir=x"]
    assert command(*arguments) == (0, "b.png\n", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.png", "preview.png"]


@pytest.mark.slow
def test_the_page_of_defaults_is_about_900_pixels_wide_and_under_300_kb(command, tmp_path):
    assert command(*DATA, *ALL)[0] == 0
    path = tmp_path / "preview.png"
    assert path.stat().st_size < 300_000
    with Image.open(path) as image:
        assert 880 <= image.width / 2 <= 940


@pytest.mark.parametrize("how", [
    [],
    ["data.split=holdout", "batch_size=7", "seed=3"],
    ["augmentation.affine={}", "augmentation.mixup={alpha: 8}"],
], ids=str)  # fmt: skip
def test_the_pictures_are_what_the_model_of_a_run_gets(monkeypatch, how):
    """Trains the run, listening to what its model is given, and looks for the pictures there."""
    overrides = [*TINY, *ALL, "precision=fp32", *how]
    config = compose(*overrides)
    inputs = prepare.read_inputs(config)
    given = []

    class Listener(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(784, 10)

        def forward(self, images):
            if self.training:
                given.append(images.detach().clone())
            return self.layer(images.flatten(1))

    trainer = prepare.make_trainer(config, inputs, Listener(), inputs.device, flops=1)
    given.clear()  # what it was tried on
    for _ in trainer.fit(lambda *_sums: None):
        pass
    normalization = inputs.normalization
    trained = normalization.undo(torch.cat(given)).reshape(2, -1, 28 * 28).numpy()
    shown = collect(*overrides, draws=2).images
    for row in range(10):
        for epoch in range(2):
            image = shown[row, epoch + 1].reshape(-1)
            assert (trained[epoch] == image).all(axis=1).sum() == 1, (row, epoch)


def test_rows_are_the_first_image_of_each_class_as_it_is(monkeypatch):
    config, _ = preview.compose([*DATA, *ALL, "data.split=custom"])
    inputs = prepare.read_inputs(config)
    found = collect(*ALL, "data.split=custom")
    assert found.rows == inputs.dataset.classes
    assert found.columns == ("as it is", "epoch 1", "epoch 2", "epoch 3")
    labels = inputs.dataset.labels[inputs.split.train]
    stored = inputs.dataset.images[inputs.split.train]
    for label in range(10):
        assert np.array_equal(found.images[label, 0], stored[np.argmax(labels == label)])


def test_fewer_images_are_spread_over_the_classes():
    assert collect(rows=3, draws=1).rows == ("T-shirt/top", "Coat", "Ankle boot")
    assert collect(rows=1, draws=1).images.shape == (1, 2, 1, 28, 28)


def test_without_parts_every_epoch_is_the_image_and_with_them_none_is():
    found = collect("augmentation=none").images
    assert (found == found[:, :1]).all()
    found = collect(*ALL, "augmentation.erasing.probability=1").images
    assert not (found[:, 1:] == found[:, :1]).all(axis=(2, 3, 4)).any()


@pytest.mark.parametrize(("part", "least"), [
    ("cutout={size: 28, inside: true}", 1.0),
    ("erasing={probability: 1, scale: [0.8, 0.9], ratio: [1, 1]}", 0.75),
])  # fmt: skip
def test_blanked_pixels_have_the_grey_of_the_mean(part, least):
    found = collect(f"augmentation.{part}", "data.mean=0.4", draws=1).images[:, 1]
    assert (found == round(0.4 * 255)).mean(axis=(1, 2, 3)).min() >= least


def test_the_seed_and_the_numbers_act():
    first = collect(*ALL).images
    assert np.array_equal(first, collect(*ALL, "batch_size=3").images)
    for other in ("seed=1", "augmentation.cutout.size=3", "augmentation.crop.padding=1"):
        assert not np.array_equal(first, collect(*ALL, other).images), other


def test_the_title_says_the_option_and_every_number():
    found = collect(*ALL, "augmentation.cutout.size=8", "seed=7", "data.mean=0.25", draws=1)
    assert found.title == "augmentation=crop_flip_cutout"
    numbers, rest = found.subtitle.splitlines()
    assert numbers == (
        "crop: {padding: 4}, flip: {probability: 0.5}, "
        "cutout: {size: 8, probability: 1.0, inside: false}, "
        "erasing: {probability: 0.5, scale: [0.02, 0.33], ratio: [0.3, 3.3]}"
    )
    assert rest == "synthetic, seed 7; blanked pixels have the mean, 0.25"
    plain = collect(draws=1)
    assert plain.title == "augmentation=none"
    assert "as they are" in plain.subtitle
    assert "mean" not in plain.subtitle


def grid(rows=2, columns=3, **changes):
    shape = (rows, columns, 1, 28, 28)
    return Grid(
        title="augmentation=$none$",
        subtitle="numbers\nmore",
        rows=tuple(f"row {row}" for row in range(rows)),
        columns=tuple(f"column {column}" for column in range(columns)),
        images=np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8),
    )._replace(**changes)


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("L"))


@pytest.mark.parametrize(("rows", "columns"), [(1, 2), (3, 8)])
def test_every_pixel_is_a_sharp_square_of_its_own_grey(rows, columns):
    given = grid(rows, columns)
    shown = pixels(draw(given))
    step = 28 * SQUARE + GAP
    top = shown.shape[0] - MARGIN - rows * step
    left = shown.shape[1] - MARGIN - columns * step if columns == 8 else LEFT
    for row, column in np.ndindex(rows, columns):
        found = shown[top + row * step :, left + column * step :][: step - GAP, : step - GAP]
        assert np.array_equal(
            found, np.kron(given.images[row, column, 0], np.ones((SQUARE, SQUARE)))
        )


def test_names_and_long_lines_stay_within_the_margins():
    subtitle = "probability 0.123456, " * 20
    shown = pixels(draw(grid(rows=1, columns=2, subtitle=subtitle)))
    around = np.ones(shown.shape, dtype=bool)
    around[MARGIN - 6 : 6 - MARGIN, MARGIN - 6 : 6 - MARGIN] = False
    assert (shown[around] == 255).all()
    without = pixels(draw(grid(rows=1, columns=2, subtitle=subtitle)._replace(rows=("",))))
    changed = np.argwhere(shown != without)
    assert changed[:, 1].max() < LEFT
    assert changed[:, 0].min() > shown.shape[0] - MARGIN - 28 * SQUARE - GAP


def test_the_user_s_settings_for_figures_change_nothing():
    expected = draw(grid())
    with mpl.rc_context({"font.size": 30, "figure.facecolor": "red", "savefig.dpi": 10}):
        assert draw(grid()) == expected
        assert mpl.rcParams["font.size"] == 30
    assert b"Software" not in expected


#: Draws, then says what backend the program has.
DRAWS = """
import logging, os, numpy as np
from fmbench.preview.images import Grid, draw

draw(Grid("a", "b", ("c",), ("d",), np.zeros((1, 1, 1, 28, 28), np.uint8)))
import matplotlib
assert logging.getLogger("matplotlib").level == logging.NOTSET
print(os.environ["MPLBACKEND"], matplotlib.get_backend())
"""


@pytest.mark.slow
@pytest.mark.parametrize(("asked", "there"), [("not-there", "agg"), ("svg", "svg")])
def test_a_backend_that_jupyter_names_neither_stops_a_picture_nor_is_changed(
    asked, there, tmp_path
):
    done = python("-c", DRAWS, cwd=tmp_path, environment={"MPLBACKEND": asked})
    assert (done.stdout.lower(), done.stderr) == (f"{asked} {there}\n", "")


def test_options_of_one_s_own(command, tmp_path):
    write_option("augmentation/strong.yaml", "crop: {padding: 9}\n")
    arguments = [*DATA, "augmentation=strong", "--images=1", "--draws=1"]
    status, _, err = command(*arguments)
    assert status == 2
    assert "augmentation=strong: no such option" in err
    assert command(*arguments, "--config-dir", "mine")[0] == 0
    config, option = preview.compose(["augmentation=strong"], [tmp_path / "mine"])
    assert option == "strong"
    assert config["augmentation"]["crop"] == {"padding": 9}


@pytest.mark.parametrize(
    ("arguments", "status", "parts"),
    [
        (["augmentation=crop_flp"], 2, ["did you mean crop_flip?", "crop_flip_erasing"]),
        (["augmentation=flip,none"], 2, ["augmentation=flip,none", "one value"]),
            (["seed=interval(0,1)"], 2, ["seed=interval(0,1)", "one value"]),
        (["-m", "augmentation=flip"], 2, ["-m", "--help explains"]),
        (["augmentation=flip", "augmentation.flip.probability=2"], 2, ["probability=2", "0 to 1"]),
                    ([*DATA, "batch_size=201"], 2, ["batch_size=201", "200 images"]),
        (["+hydra.job.env_set.PATH=/tmp"], 2, ["env_set"]),
        (["--nonsense"], 2, ["--nonsense", "--help"]),
            (["--images", "11"], 2, ["--images", "choose from 1, 2"]),
        (["--draws", "x"], 2, ["--draws", "x"]),
        (["--output", "x.pdf"], 2, ["x.pdf", ".png"]),
        (["--config-dir", "nowhere"], 2, ["nowhere"]),
        (["data.root=/nowhere", "data.mirrors=[]"], 3, ["/nowhere", "data=synthetic"]),
        ([*DATA, "--output", "nowhere/x.png"], 5, ["nowhere/x.png", "cannot be written"]),
    ],
)  # fmt: skip
def test_mistakes_get_one_line_and_leave_nothing(command, tmp_path, arguments, status, parts):
    code, out, err = command(*arguments)
    assert code == status, err
    assert out == ""
    assert err.startswith("fmbench.preview: ")
    assert err.count("\n") == 1
    for part in parts:
        assert part in err
    assert list(tmp_path.iterdir()) == []


def test_a_picture_that_cannot_be_replaced_stays_as_it_was(command, tmp_path, monkeypatch):
    (tmp_path / "preview.png").write_bytes(b"old")

    def broken(_grid):
        raise OSError(28, "No space left on device", "preview.png")

    monkeypatch.setattr(images, "draw", broken)
    status, _, err = command(*DATA, "--draws=1", "--images=1")
    assert status == 5
    assert "No space left" in err
    assert (tmp_path / "preview.png").read_bytes() == b"old"


def test_help_names_what_there_is(command, tmp_path):
    status, out, err = command("--help")
    assert (status, err) == (0, "")
    for option in ("--output", "--images", "--draws", "--config-dir", "augmentation=crop_flip"):
        assert option in out
    assert list(tmp_path.iterdir()) == []


def test_the_examples_of_the_help_compose():
    lines = [line for line in preview.EXAMPLES.splitlines() if "python -m" in line]
    assert len(lines) == 3
    for line in lines:
        arguments = preview._arguments(shlex.split(line)[3:])
        assert preview.compose(arguments.overrides)


@pytest.mark.slow
def test_a_module_of_its_own_name_runs(tmp_path):
    arguments = [*DATA, "--images=1", "--draws=1", "--output=a.png"]
    done = python("-W", "error", "-m", "fmbench.preview", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "a.png\n", "")


@pytest.mark.slow
@pytest.mark.real_data
def test_the_picture_of_the_readme_is_what_its_command_makes(fashion_mnist_root):
    path = CHECKOUT / "docs" / "images" / "augmentation.png"
    (line,) = [
        line
        for line in (CHECKOUT / "README.md").read_text("utf-8").splitlines()
        if line.startswith("python -m fmbench.preview") and path.name in line
    ]
    arguments = preview._arguments(shlex.split(line, comments=True)[3:])
    assert CHECKOUT / arguments.output == path
    root = [f"data.root={fashion_mnist_root}", "threads=1"]
    config, option = preview.compose([*arguments.overrides, *root])
    grid = images.collect(config, option, images=arguments.images, draws=arguments.draws)
    made, kept = (
        np.asarray(Image.open(file).convert("L")) for file in (io.BytesIO(draw(grid)), path)
    )
    # Another release of matplotlib may set the names a little differently.
    assert made.shape == kept.shape
    assert (made != kept).mean() < 0.02
    assert path.stat().st_size < 300_000
