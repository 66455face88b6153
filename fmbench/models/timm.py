"""Any model of timm (PyTorch Image Models), by name, with random weights."""

from functools import partial

from torch import Tensor, nn

from fmbench.core.errors import require_package
from fmbench.models.checks import require_positive
from fmbench.models.upsample import require_known, require_runs, resizing


class Timm(nn.Module):
    """A model of timm for images (N, channels, H, W); the extra `timm` brings the package.

    The papers are those that timm names for each model. It is timm's own for these channels and
    classes, and for the size of the images where it takes one. Weights start as timm draws them:
    none are downloaded; names that ask for some (`resnet18.a1_in1k`, `hf-hub:...`) are refused.

    Args:
        name: One of `timm.list_models()`.
        upsample: Side in pixels to which images are resized first, bilinearly; None leaves them.

    Raises:
        ConfigError: If timm is not installed, there is no such model, it cannot take images of that
            size, or a number is out of range.
    """

    def __init__(
        self,
        *,
        name: str = "mobilenetv3_small_100",
        upsample: int | None = None,
        channels: int = 1,
        classes: int = 10,
        image_size: tuple[int, int] = (28, 28),
    ) -> None:
        super().__init__()
        require_positive(channels=channels, classes=classes)
        require_package("model=timm", "timm", "timm")
        import timm

        names = timm.list_models()
        plain = str(name).lower().rpartition("/")[2].partition(".")[0]
        which = f"timm's {len(names)} models, which are trained from random weights"
        require_known(name, names, plain, which)
        self.upsample = resizing(upsample)
        size = (upsample, upsample) if upsample else image_size
        build = partial(_build, name, channels=channels, classes=classes)
        require_runs(name, build, size, channels)
        self.net = build(size)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, channels, H, W) to logits (N, classes)."""
        logits: Tensor = self.net(self.upsample(images))
        return logits


def _build(name: str, size: tuple[int, int], *, channels: int, classes: int) -> nn.Module:
    """Build the model for images of a size, on the default device."""
    import timm

    make = partial(timm.create_model, name, num_classes=classes, in_chans=channels)
    try:
        net: nn.Module = make(img_size=size)
    except TypeError:  # most take images of any size, and no such argument
        net = make()
    return net
