"""Load the trained model of a run folder."""

import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fmbench.core.console import logger, typed_path
from fmbench.core.errors import ConfigError, DataError, UserError, described, one_line
from fmbench.data.loader import Normalization
from fmbench.records.record import MODEL_NAME
from fmbench.runs.prepare import ImageFacts, make_model, model_on_meta
from fmbench.runs.source_code import own_source
from fmbench.training.device import MEMORY_FORMATS, settings_kept
from fmbench.training.rehearsal import ConvolutionWatch, UnsoundConvolutionError
from fmbench.training.weights import bounded_by, read_weights

log = logger(__name__)


class Classifier(nn.Module):
    """A trained model that takes images as they are stored and gives logits.

    It is in evaluation mode, on the CPU, in float32. Other input, such as floats that carry a
    gradient, goes to `model` itself: images (N, C, H, W) float32 as `normalization` gives them.

    Attributes:
        model: The model that was trained.
        normalization: Maps pixels, 0 to 255, to the range that the model was trained on.
        classes: The name of each logit.
        shape: Channels, height and width of an image.
        config: The config of the run, as in its record.
        key: The key of the run.
    """

    def __init__(self, model: nn.Module, description: Mapping[str, Any]) -> None:
        super().__init__()
        self.model = model
        self.normalization = Normalization(description["mean"], description["std"])
        self.classes = tuple(description["classes"])
        self.shape = tuple(description["shape"])
        self.config = dict(description["config"])
        self.key = description["key"]
        self.eval()

    @property
    def net(self) -> nn.Module:
        """`model`, by its name in 0.1.0; it goes with the release after the next."""
        return self.model

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, C, H, W) uint8, 0 black to 255 white, to logits (N, classes).

        Those of one channel may be (N, H, W) too.

        Raises:
            DataError: The images have another type or shape.
        """
        grey = images.ndim == 3 and self.shape[0] == 1
        given = tuple(images.unsqueeze(1).shape if grey else images.shape)
        if images.dtype != torch.uint8 or given[1:] != self.shape:
            wanted = ", ".join(map(str, self.shape))
            raise DataError(
                f"images are {images.dtype} {tuple(images.shape)}; must be torch.uint8 "
                f"(N, {wanted})"
            )
        pixels = self.normalization(images.reshape(given))
        with torch.autocast(images.device.type, enabled=False):  # whatever the caller has set
            logits: Tensor = self.model(pixels)
        return logits

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """Map images, as `forward` takes them, to probabilities (N, classes) that add up to 1.

        Raises:
            DataError: The images have another type or shape.
        """
        logits: Tensor = self(images)
        return logits.float().softmax(1)


def load_model(run_folder: str | Path) -> Classifier:
    """Load the trained model of a run that was made with `keep_model=true`.

    After a run in fp32 it predicts, on the machine of the run, what the run predicted; after a run
    in bf16, or on other hardware, logits differ in their last bits. Models of your own need the
    same trust as in a run (`FMBENCH_TRUST`). PyTorch's settings and random numbers do not change.

    Args:
        run_folder: The folder that holds `model.safetensors`. It may come from a stranger: no code
            in it runs, and a model is built in memory only if its shapes are those of the file.

    Raises:
        ConfigError: The folder does not exist, or its config names a model that may not be built.
        DataError: `model.safetensors` is missing, damaged, or does not fit its config.
    """
    folder = typed_path(str(run_folder))
    path = folder / MODEL_NAME
    # Not by Path, which raises on a long name.
    if not os.path.isdir(folder):  # noqa: PTH112
        raise ConfigError(f"{folder} is not a folder: give that of a run")
    if not os.path.isfile(path):  # noqa: PTH113
        raise DataError(f"{folder}: holds no {MODEL_NAME}; make the run again with keep_model=true")
    try:
        with settings_kept():
            return _build(*read_weights(path))
    except UserError as error:
        raise type(error)(f"{path}: {one_line(str(error), 500)}") from error
    # The config comes from a stranger and so may the model: it can fail in any way.
    except Exception as error:
        said = described(error, 300)
        raise DataError(f"{path}: its model cannot be built ({said})") from error


def _build(description: Mapping[str, Any], state: Mapping[str, Tensor]) -> Classifier:
    """Build the model that a file describes; raises whatever is wrong with it."""
    config, classes = description["config"], description["classes"]
    images = ImageFacts(tuple(description["shape"]), len(classes))
    with bounded_by(state):
        _seed(config["seed"])
        model = model_on_meta(config, images)
        if model is not None:
            shapes = {name: value.to("meta") for name, value in state.items()}
            model.load_state_dict(shapes, assign=True)  # raises where one does not fit
        elif config["model"]["_target_"].startswith("fmbench."):  # can all be built on meta
            raise DataError("the model of its config cannot be built")
        # What a model draws or computes when it is built, outside of its state, must be what it
        # was in the run.
        _seed(config["seed"])
        model = make_model(config, images)
    model.load_state_dict(state)
    if description["source"] not in (None, own_source({"model": config["model"]}, model).digest):
        log.warning(
            "the code of %s has changed since it was trained: its predictions may differ",
            config["model"]["_target_"],
        )
    classifier = Classifier(model, description)
    try:
        shape = _tried(classifier, description["memory_format"])  # as in the run
    except UnsoundConvolutionError:  # the run was on a GPU, or of an older version
        shape = _tried(classifier, "contiguous")
    if shape != (1, len(classes)):
        raise DataError(f"its model gives {list(shape)} for 1 image of {len(classes)} classes")
    return classifier


def _tried(classifier: Classifier, memory_format: str) -> torch.Size:
    """Move a model into a memory format; returns the shape that it gives for one image.

    Raises:
        UnsoundConvolutionError: It may not run in this memory format.
    """
    classifier.to(memory_format=MEMORY_FORMATS[memory_format])
    with ConvolutionWatch():  # type: ignore[no-untyped-call]
        return classifier.probabilities(torch.zeros(1, *classifier.shape, dtype=torch.uint8)).shape


def _seed(seed: int) -> None:
    """Seed as a run does before it builds its model; `settings_kept` undoes it."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)  # torch's own would reach the GPU as well
