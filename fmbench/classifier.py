"""A trained net, ready to be used."""

import os
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from fmbench.assembly import make_model, model_on_meta
from fmbench.device import MEMORY_FORMATS, settings_kept
from fmbench.errors import ConfigError, DataError, UserError, one_line
from fmbench.loader import Normalization
from fmbench.record import MODEL_NAME
from fmbench.rehearsal import ConvolutionWatch, UnsoundConvolutionError
from fmbench.storage import open_regular
from fmbench.streams import logger, typed_path
from fmbench.usercode import own_source
from fmbench.weights import compare, not_far_beyond, read_header, refuse_long_header

log = logger(__name__)


class Classifier(nn.Module):
    """A trained net with all that it takes to use it: images as they are stored in, logits out.

    In evaluation mode, on the CPU, in float32. Other input, such as floats that carry a gradient,
    goes to `net` itself: images (N, 1, 28, 28) float32 as `normalization` gives them.

    Attributes:
        net: The net that was trained.
        normalization: From pixels, 0 to 255, to what the net was trained on.
        classes: The name of each logit.
        config: Of the run, as its record has it.
        key: Of the run.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        normalization: Normalization,
        classes: Sequence[str],
        config: Mapping[str, Any],
        key: str,
    ) -> None:
        super().__init__()
        self.net = net
        self.normalization = normalization
        self.classes = tuple(classes)
        self.config = dict(config)
        self.key = key
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 28, 28) or (N, 1, 28, 28) uint8, 0 black to 255 white, to logits (N, 10).

        Raises:
            DataError: They are not of that type and shape.
        """
        if images.dtype != torch.uint8 or images.shape[1:] not in ((28, 28), (1, 28, 28)):
            raise DataError(
                f"images are {images.dtype} {tuple(images.shape)}; must be torch.uint8 "
                "(N, 28, 28) or (N, 1, 28, 28)"
            )
        pixels = self.normalization(images.reshape(-1, 28, 28))
        kind = images.device.type
        caller = torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else None
        with caller or nullcontext():  # in float32, as it says
            logits: Tensor = self.net(pixels.unsqueeze(1))
        return logits

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """Map images as `forward` takes them to probabilities (N, 10), rows adding up to 1.

        Raises:
            DataError: They are not of that type and shape.
        """
        logits: Tensor = self(images)
        return logits.float().softmax(1)


def load_model(run_folder: str | Path) -> Classifier:
    """The trained net of a run that was made with `keep_model=true`.

    After a run in fp32 it predicts, on the machine of the run, what the run predicted; after a run
    in bf16, or on other hardware, logits differ in their last bits. Nets of one's own need the same
    trust as in a run (`FMBENCH_TRUST`). PyTorch's settings and random numbers are left alone.

    Args:
        run_folder: The folder that holds `model.safetensors`. It may be a stranger's: nothing in it
            is run, and a net is made in memory only if its shapes are those of the file.

    Raises:
        ConfigError: The folder does not exist, or its config may not start the net that it names.
        DataError: There is no `model.safetensors`, or it is damaged, or does not fit its config.
    """
    run_folder = typed_path(str(run_folder))
    path = run_folder / MODEL_NAME
    # Not by Path, which raises on too long a name.
    if not os.path.isdir(run_folder):  # noqa: PTH112
        raise ConfigError(f"{run_folder} is not a folder: give that of a run")
    if not os.path.isfile(path):  # noqa: PTH113
        raise DataError(
            f"{run_folder}: holds no {MODEL_NAME}; make the run again with keep_model=true"
        )
    try:
        with open_regular(path, 2**63) as begin:
            refuse_long_header(begin)
        with settings_kept(), safe_open(path, framework="pt") as file:
            return _read(file)
    except UserError as error:
        raise type(error)(f"{path}: {one_line(str(error), 500)}") from error
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: not a whole safetensors file ({_line(error)})") from error
    # The config is a stranger's, and so may be the net: it can fail in any way.
    except Exception as error:
        raise DataError(
            f"{path}: its net cannot be made ({type(error).__name__}: {_line(error)})"
        ) from error


def _read(file: Any) -> Classifier:
    """The net in an open file; raises whatever is wrong with it."""
    header = read_header(file.metadata() or {})
    parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    found = {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in parts.items()}
    config = header.config
    with not_far_beyond(found):
        with _seeded(config["seed"]):
            model = model_on_meta(config)
        if model is not None:
            compare(found, model)
        elif config["model"]["_target_"].startswith("fmbench."):
            raise DataError("the net of its config cannot be")  # ours can all be made there
        # What a net draws or works out when it is made, and does not count to its state, must be
        # what it was in the run.
        with _seeded(config["seed"]):
            model = make_model(config)
    compare(found, model)
    now = own_source({"model": config["model"]}, model).digest
    if header.source not in (None, now):
        log.warning(
            "the code of %s is another than that it was trained with: its answers may be others",
            config["model"]["_target_"],
        )
    model.load_state_dict({name: file.get_tensor(name) for name in found})
    classifier = Classifier(
        model,
        normalization=header.normalization,
        classes=header.classes,
        config=config,
        key=header.key,
    )
    try:
        shape = _placed(classifier, header.memory_format)  # as in the run
    except UnsoundConvolutionError:  # which was on a GPU, or of an older version
        shape = _placed(classifier, "contiguous")
    if shape != (1, len(header.classes)):
        raise DataError(f"its net gives {list(shape)} for 1 image of {len(header.classes)} classes")
    return classifier


def _placed(classifier: Classifier, memory_format: str) -> torch.Size:
    """Move a net into a memory format; returns the shape of its answer to one image.

    Raises:
        UnsoundConvolutionError: It may not run in it.
    """
    classifier.to(memory_format=MEMORY_FORMATS[memory_format])
    with ConvolutionWatch():  # type: ignore[no-untyped-call]
        return classifier.probabilities(torch.zeros(1, 28, 28, dtype=torch.uint8)).shape


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Random numbers as a run has them when it makes its net; afterwards they are as they were."""
    python, arrays = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(arrays)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
