"""A model compiled by `torch.compile`, before its clocks run."""

import time
from collections.abc import Collection, Iterator

import torch
from torch import Tensor, nn

from fmbench.core.errors import ConfigError, described, is_out_of_memory
from fmbench.training.attributes import numbers, refuse_counting
from fmbench.training.checkpoint import preserved
from fmbench.training.device import Device


def compile_model(
    model: nn.Module,
    images: Tensor,
    *,
    trained: Collection[int],
    evaluated: Collection[int],
    device: Device,
) -> float:
    """Compile a model, in place, for batches of some sizes; its weights stay as they are.

    Its state has the same names as before, and copies of it are not compiled. PyTorch keeps what it
    compiles by the code of a model, for a few sizes in all, and computes what is more uncompiled.
    So what earlier runs of the process have compiled is thrown away.

    `images` is a batch of training, (B, C, H, W) float32; `trained` and `evaluated` are the sizes.
    Returns the seconds that it took.

    Raises:
        ConfigError: it cannot be compiled here, for want of a compiler, say.
        Exception: there is too little memory.
    """
    import torch._dynamo  # which takes a while
    import torch._inductor.config

    start = time.perf_counter()
    torch.compiler.reset()
    whole = torch._dynamo.config.patch(fail_on_recompile_limit_hit=True)  # noqa: SLF001
    deterministic = torch._inductor.config.patch(deterministic=device.deterministic)  # noqa: SLF001
    try:
        model.compile(dynamic=False)
        with whole, deterministic, preserved(model, device=device.torch):
            model.train()
            counted = numbers(model)
            for count in sorted(trained):
                with device.autocast():
                    logits = model(_some(images, count))
                logits.float().sum().backward()
            model.eval()
            with torch.no_grad(), device.autocast():
                for count in sorted(evaluated):
                    model(_some(images, count))
            refuse_counting(model, counted, "compile", "the model")
    except ConfigError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise ConfigError(
            f"compile=true: the model cannot be compiled here ({described(error, 200)}); take "
            "compile=false"
        ) from error
    return time.perf_counter() - start


def sizes_of_parts(batches: Collection[int], most: int | None) -> Iterator[int]:
    """The sizes that parts of such batches have, as `micro_batches` cuts them."""
    for count in batches:
        parts = 1 if most is None else -(-count // most)
        yield from {count // parts, -(-count // parts)}


def _some(images: Tensor, count: int) -> Tensor:
    """So many images, some of them again where there are fewer."""
    return images[torch.arange(count, device=images.device) % len(images)]
