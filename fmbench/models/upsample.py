"""What models of other libraries have in common: made for larger images, or for theirs alone."""

from collections.abc import Callable, Sequence
from difflib import get_close_matches

import torch
from torch import nn

from fmbench.core.errors import ConfigError, DataError
from fmbench.models.checks import require_positive

SIZES = (32, 64, 96, 128, 224, 240, 256, 299, 384, 512)  # tried in this order when one is refused
MOST = 1024  # more than any model is made for; a mistyped size would take all memory

#: Builds a model for images of a height and width, on the default device.
Build = Callable[[tuple[int, int]], nn.Module]


def require_known(name: str, names: Sequence[str], plain: str, which: str) -> None:
    """Refuse a name that is none of a library's models; the closest to `plain` are said.

    Raises:
        ConfigError: it is none; `which` says what there are.
    """
    if name not in names:
        closest = ", ".join(get_close_matches(plain, names, n=5, cutoff=0))
        raise ConfigError(f"model.name={name} is not one of {which}; the closest are {closest}")


def resizing(upsample: int | None) -> nn.Module:
    """A layer that resizes images to a side in pixels, bilinearly; None leaves them.

    Raises:
        ConfigError: it is out of range.
    """
    if upsample is None:
        return nn.Identity()
    require_positive(upsample=upsample)
    if upsample > MOST:
        raise ConfigError(f"model.upsample={upsample} is not allowed: at most {MOST}")
    return nn.Upsample(size=(upsample, upsample), mode="bilinear", align_corners=False)


def require_runs(name: str, build: Build, size: tuple[int, int], channels: int) -> None:
    """Refuse a model that cannot take images of a size, before its weights exist.

    Raises:
        ConfigError: names the smallest usual size that works.
    """
    if _runs(build, size, channels):
        return
    asked = f"model.name={name} cannot take images of {size[0]} x {size[1]}"
    works = next((s for s in SIZES if (s, s) != size and _runs(build, (s, s), channels)), None)
    if works is None:
        raise ConfigError(f"{asked}, nor of any usual size up to {SIZES[-1]}")
    raise ConfigError(f"{asked}; the smallest usual size that works is model.upsample={works}")


def _runs(build: Build, size: tuple[int, int], channels: int) -> bool:
    """Say whether the model takes images of a size, from shapes alone.

    Raises:
        DataError: it has more weights than may be built now (`training.weights.bounded_by`).
    """
    try:
        with torch.device("meta"), torch.no_grad():
            logits = build(size).eval()(torch.empty(1, channels, *size))
    except DataError:  # of a file whose weights are far fewer than this model has
        raise
    except Exception:  # noqa: BLE001 - as the model's code happens to object
        return False
    return isinstance(logits, torch.Tensor) and logits.ndim == 2  # else it is no classifier
