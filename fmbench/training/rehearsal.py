"""One batch through a model before its first step: where it fails, its memory format.

What is wrong with a user's model is reported in one line before training, rather than by a
traceback after the first epoch. The trial leaves nothing behind: see
`fmbench.training.checkpoint.preserved`.
"""

import io
import random
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode

from fmbench.core.console import logger
from fmbench.core.errors import ConfigError, UserError, described, is_out_of_memory, place
from fmbench.data.augmentation import Augmentation
from fmbench.data.loader import TrainLoader
from fmbench.training import losses
from fmbench.training.attributes import (
    attributes,
    numbers,
    put_numbers,
    refuse_counting,
)
from fmbench.training.checkpoint import (
    preserved,
    random_states,
    read_state,
    restore_random_states,
    write_state,
)
from fmbench.training.compiled import sizes_of_parts
from fmbench.training.device import MEMORY_FORMATS, Device
from fmbench.training.losses import Loss
from fmbench.training.restore import load_optimizer
from fmbench.training.step import micro_batches

log = logger(__name__)

#: Input channels, of a group, from which a 1 x 1 convolution with a stride is sound in
#: channels_last on every CPU.
SOUND_CHANNELS = 8

#: Sides of the parameters on which an optimizer of one's own is tried first.
SMALL_SIDE = 4

#: Uniform numbers that a transform of one's own may take for each image.
MOST_DRAWS = 1000


class UnsoundConvolutionError(ConfigError):
    """A model calls a convolution that damages memory on some processors."""


class ConvolutionWatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses, before it is computed, each convolution that is not sound on a CPU.

    On processors without AVX-512 oneDNN 3.13 (PyTorch 2.15) writes beyond its memory in the
    backward pass of a 1 x 1 convolution with a stride above 1 and fewer than 8 input channels whose
    images or weights lie in channels_last. It is refused on all, so that a run is the same
    everywhere; seen at the operator, by whatever name the model calls it.
    """

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Called by PyTorch for every operator; an UnsoundConvolutionError stops it."""
        if func is torch.ops.aten.convolution.default:
            images, weight, _, stride, _, _, transposed = args[:7]
            channels = weight.shape[1]  # of a group
            if (
                not transposed
                and images.device.type == "cpu"
                and weight.shape[2:] == (1, 1)
                and max(stride) > 1
                and channels < SOUND_CHANNELS
                and (_is_channels_last(images) or _is_channels_last(weight))
            ):
                raise UnsoundConvolutionError(
                    f"the model calls a 1 x 1 convolution with stride {max(stride)} and "
                    f"{channels} input channel{'s' if channels > 1 else ''}, which in "
                    "channels_last damages memory on processors without AVX-512"
                )
        return func(*args, **(kwargs or {}))


def _is_channels_last(tensor: Tensor) -> bool:
    """Whether PyTorch takes it to be, which goes by strides where a size of 1 leaves it open."""
    least = 0
    for axis in (1, 3, 2, 0):
        if tensor.stride(axis) < least or (axis == 0 and least == tensor.stride(1)):
            return False
        least = tensor.stride(axis) * tensor.shape[axis]
    return True


def rehearse(
    model: nn.Module,
    loader: TrainLoader,
    *,
    loss: Loss,
    classes: int,
    evaluated: Collection[int],
    device: Device,
    micro_batch: int | None = None,
    own: bool = False,
) -> tuple[Device, bool]:
    """Move a model to its device and try it on a batch; the model is left as it is, to the bit.

    It must give a number for each of the classes, and the loss of a batch a number. `evaluated`
    says how many images there are in the batches of evaluation. Where the memory format of the
    device is `auto`, channels_last is tried first. A model of the user's `own` must remember
    nothing outside its buffers.

    Returns:
        The device with the memory format that the model runs in, and whether the last batch of an
        epoch, one image, must be joined to the one before it, because the model fails on it.

    Raises:
        ConfigError: the model or the loss fails, or its outputs are not those of a classifier.
        Exception: there is too little memory.
    """
    asked = device.memory_format
    formats = list(MEMORY_FORMATS) if asked == "auto" else [asked]
    failed: ConfigError | None = None  # what is said only where the model runs in another format
    batch = next(loader.epoch(0))
    # The first part of a batch that is trained on in parts, and all of one that is not.
    batch = next(iter(micro_batches(*batch, micro_batch)))
    for memory_format in formats:
        device = replace(device, memory_format=memory_format)
        try:
            with _reported("cannot be moved there"):
                device.place(model)
            with preserved(model, device=device.torch) as (tried, _):
                with (
                    losses.tried(loss, recorded=device.cuda_graphs) as tried_loss,
                    _recordable(tried, device),
                ):
                    _train(model, tried, batch, device, classes, loss=tried_loss)
                if own:
                    _refuse_hidden(tried, batch[0], device, classes)
                left = len(loader.labels) % loader.batch_size
                joins = left == 1 and _fails_on_one(tried, batch[0], device, classes)
                last = loader.batch_size + 1 if joins else left
                trained = {*sizes_of_parts({loader.batch_size, last}, micro_batch)}
                _sizes(tried, batch[0], trained - {0, len(batch[0])}, device, classes)
                for one in (model, tried):
                    one.eval()
                with torch.no_grad():
                    _sizes(tried, batch[0], evaluated, device, classes)
            break
        except ConfigError as error:
            if asked == "channels_last":
                raise ConfigError(
                    f"memory_format=channels_last: {error}; must be auto or contiguous"
                ) from error.__cause__
            if memory_format == formats[-1]:
                raise
            failed = error
    if failed is not None:
        log.info("runs in %s memory, since in %s %s", formats[-1], formats[0], failed)
    if joins:
        log.info(
            "the last image of an epoch is joined to the batch before it: alone the model cannot "
            "be trained on it"
        )
    return device, joins


def rehearse_transforms(
    augmentation: Augmentation, shape: tuple[int, int, int], device: Device
) -> None:
    """Try one's own transforms of images on a few random ones (C, H, W), with random draws.

    What an image becomes may depend on its draws alone, so that it is the same at any batch size
    and in a run that is resumed.

    Raises:
        ConfigError: they fail, have parameters, give another shape or dtype, numbers that are not
            finite, other images for the same draws, or others for an image alone, or among others
            in another order, than in a batch.
    """
    if not augmentation.transforms:
        return
    count, drawn = 4, torch.Generator().manual_seed(0)
    images = torch.rand(count, *shape, generator=drawn)
    images *= torch.linspace(0.5, 1, count).view(-1, 1, 1, 1)  # with a range of their own
    images, options = images.to(device.torch), augmentation.parts.own or ()
    order = torch.randperm(count, generator=drawn).to(device.torch)
    devices = [device.torch] if device.torch.type == "cuda" else []
    for transform, option in zip(augmentation.transforms, options, strict=True):
        name = f"augmentation.own ({option['_target_']})"
        needed: Any = getattr(transform, "draws", 1)
        if type(needed) is not int or not 0 <= needed <= MOST_DRAWS:
            raise ConfigError(
                f"{name}: draws is {needed}, must be a whole number, 0 to {MOST_DRAWS}"
            )
        if isinstance(transform, nn.Module):
            transform.to(device.torch)
            for parameter, _ in transform.named_parameters():
                raise ConfigError(
                    f"{name}: has a parameter, {parameter}, which no optimizer would train; a "
                    "tensor that stays belongs in a buffer"
                )
        draws = torch.rand(count, needed, generator=drawn).to(device.torch)
        with (
            _reported(
                f"fails, called with images {tuple(images.shape)} and draws {tuple(draws.shape)}",
                f"{name}: it",
            ),
            torch.random.fork_rng(devices),
            torch.no_grad(),
        ):
            given, again, turned, *each = (
                transform(images[some].clone(), draws[some].clone())
                for some in (slice(None), slice(None), order, *order[:, None])
            )
        if not isinstance(given, Tensor):
            raise ConfigError(f"{name}: gives a {type(given).__name__}, must be a tensor")
        for what, found, must in (
            ("shape", tuple(given.shape), tuple(images.shape)),
            ("dtype", given.dtype, images.dtype),
            ("device", given.device, images.device),
        ):
            if found != must:
                raise ConfigError(f"{name}: gives images of {what} {found}, must be {must}")
        if not given.isfinite().all():
            raise ConfigError(f"{name}: gives numbers that are not finite")
        if not torch.equal(given, again):
            raise ConfigError(
                f"{name}: gives other images for the same draws; random numbers must be made of "
                "the draws that it is called with"
            )
        for where, others in (("alone", torch.cat(each)), ("in another order", turned)):
            if not torch.allclose(given[order], others, atol=1e-4):
                raise ConfigError(
                    f"{name}: gives another image {where} than in a batch; what an image becomes "
                    "may depend on nothing but itself and its draws"
                )


def rehearse_optimizer(
    make: Callable[[int | None], Optimizer], device: torch.device, *, recorded: bool = False
) -> None:
    """Try one's own optimizer: some steps, and as many where it resumes on the way.

    On small parameters, which take no time and no memory; where it fails on these, on those of the
    model's shapes. The global random numbers stay where they are.

    Args:
        make: makes it anew, over parameters of zeros of its own, whose sides are no longer than
            what it is called with; None for the model's.
        device: of these parameters.
        recorded: whether steps will be recorded as a CUDA graph.

    Raises:
        ConfigError: it refuses its arguments, a step fails, its state is not to be had or does not
            load back, or it remembers what is not in its state, nor a number.
    """
    drawn = random_states(device)
    try:
        for side in (SMALL_SIDE, None):
            try:
                _try_optimizer(partial(make, side), device, drawn, recorded=recorded)
                break
            except ConfigError:
                if side is None:
                    raise
    finally:
        restore_random_states(drawn, device)


def _try_optimizer(
    make: Callable[[], Optimizer], device: torch.device, drawn: dict[str, Any], *, recorded: bool
) -> None:
    def made() -> tuple[Optimizer, list[Tensor]]:
        restore_random_states(drawn, device)
        optimizer = make()
        if callable(getattr(optimizer, "eval", None)) and hasattr(optimizer, "train"):
            optimizer.train()  # see OptimizerAverage
        return optimizer, [one for group in optimizer.param_groups for one in group["params"]]

    def step(optimizer: Optimizer, weights: list[Tensor], number: int) -> None:
        restore_random_states(drawn, device)
        drawn_from = torch.Generator().manual_seed(number)
        for one in weights:
            if one.requires_grad:
                one.grad = torch.randn(one.shape, generator=drawn_from).to(device)
        how = "fails in step(), which is called without arguments, outside torch.no_grad()"
        with _reported(how, "optimizer: it"):
            optimizer.step()

    optimizer, weights = made()
    drawn_from = torch.Generator().manual_seed(0)
    for one in weights:
        one.data.copy_(torch.randn(one.shape, generator=drawn_from))
    before = dict(attributes(optimizer))
    for number in (1, 2):
        counted = numbers(optimizer)
        step(optimizer, weights, number)
    if recorded:
        refuse_counting(optimizer, counted, "cuda_graphs", "optimizer:")
    with _reported("fails in state_dict()", "optimizer: it"):
        saved: Any = optimizer.state_dict()
    resumed, others = made()
    for one, other in zip(weights, others, strict=True):
        other.data.copy_(one.data)
    with _reported("has a state that does not load back", "optimizer: it"):
        state = {"optimizer": saved, "numbers": numbers(optimizer)}
        write_state(state, file := io.BytesIO())
        state = read_state(file)
        load_optimizer(resumed, state["optimizer"])
        put_numbers(resumed, state["numbers"])
    step(optimizer, weights, 3)
    step(resumed, others, 3)
    after, found = dict(attributes(optimizer)), dict(attributes(resumed))
    for name, value in after.items():
        # Of what is made once, as a function that is kept, only another run has another.
        if value not in (before.get(name), found.get(name)) and name not in numbers(optimizer):
            raise ConfigError(
                f"optimizer: changes {name} in a step, which no checkpoint holds; what an "
                "optimizer remembers must be in self.state, in its param_groups, or numbers"
            )
    for one, other in zip(weights, others, strict=True):
        if not torch.allclose(one, other, rtol=1e-4, atol=1e-6, equal_nan=True):
            raise ConfigError(
                "optimizer: steps otherwise after it has loaded its state_dict, so that no run "
                "could resume; what it remembers must be in self.state, in its param_groups, or "
                "numbers"
            )


def materialize(model: nn.Module, shape: tuple[int, int, int]) -> None:
    """Give lazy layers their shapes and weights, by two black images (C, H, W) in evaluation mode.

    Raises:
        ConfigError: the model fails, or a lazy layer is not called in evaluation mode.
    """
    if not any(map(is_lazy, chain(model.parameters(), model.buffers()))):
        return
    modes = [(module, module.training) for module in model.modules()]
    with _reported("fails on the two images that give lazy layers their shapes"), torch.no_grad():
        model.eval()(torch.zeros(2, *shape))
    for module, mode in modes:
        module.training = mode
    left = [name for name, tensor in model.named_parameters() if is_lazy(tensor)]
    if left:
        raise ConfigError(f"the model has a lazy layer that evaluation does not call: {left[0]}")


def _train(
    model: nn.Module,
    tried: nn.Module,
    batch: tuple[Tensor, Tensor],
    device: Device,
    classes: int,
    *,
    loss: Loss,
) -> None:
    """One step of training without the optimizer's part."""
    images, targets = batch
    known = dict(tried.named_parameters())
    for one in (model, tried):  # what a model holds as a closure leads from its copy to itself
        one.train()
    logits = _forward(tried, images, device, classes)
    for name, _ in tried.named_parameters():
        if name not in known:
            raise ConfigError(
                f"the model makes {name} in its forward pass, where no optimizer sees it; make it "
                "in __init__, or take a lazy layer"
            )
    found = _loss(loss, logits.float(), targets)
    with _reported(f"or the loss fails in the backward pass of {_images(len(images))}"):
        found.backward()  # type: ignore[no-untyped-call]


@contextmanager
def _recordable(tried: nn.Module, device: Device) -> Iterator[None]:
    """Refuse in a step of training what a CUDA graph would repeat as it was when it was recorded.

    Raises:
        ConfigError: the model puts another tensor in place of a buffer, or it or the loss draws
            random numbers on the host.
    """

    def drawn() -> tuple[Any, ...]:
        name, keys, *rest = np.random.get_state(legacy=True)
        torchs = torch.get_rng_state().tolist() if device.torch.type == "cuda" else None
        return random.getstate(), name, np.asarray(keys).tobytes(), rest, torchs

    if not device.cuda_graphs:
        yield
        return
    buffers, before = dict(tried.named_buffers()), drawn()
    yield
    for name, buffer in tried.named_buffers():
        if buffer is not buffers.get(name, buffer):
            raise ConfigError(
                f"cuda_graphs=true: the model puts another tensor in place of its buffer {name}, "
                "which a recorded step cannot follow; change it in place, or take cuda_graphs=false"
            )
    if drawn() != before:
        raise ConfigError(
            "cuda_graphs=true: the model or the loss draws random numbers outside the GPU, which a "
            "recorded step would repeat; take cuda_graphs=false"
        )


def _refuse_hidden(tried: nn.Module, images: Tensor, device: Device, classes: int) -> None:
    """Refuse a model that changes an attribute in training which no checkpoint holds.

    Called again with the same images, buffers, numbers and random numbers it must leave the same
    behind. So what is made in the first call may stay, and what the last batch has given.

    Raises:
        ConfigError: it does not.
    """
    images = _some(images, 2)
    with suppress(ConfigError):
        _forward(tried, images, device, classes)
    drawn, saved = random_states(device.torch), tried.state_dict().keys()
    buffers = {name: one.clone() for name, one in tried.named_buffers() if name in saved}
    counted = numbers(tried)
    left = []
    for _ in range(2):
        restore_random_states(drawn, device.torch)
        for name, buffer in tried.named_buffers():
            there = buffers.get(name, buffer)
            if buffer.shape == there.shape and not torch.equal(buffer, there):
                buffer.data.copy_(there)
        put_numbers(tried, counted)
        with suppress(ConfigError):  # of one that was written for another batch size
            _forward(tried, images, device, classes)
        left.append(dict(attributes(tried)))
    if device.cuda_graphs:
        refuse_counting(tried, counted, "cuda_graphs", "the model")
    after = numbers(tried)
    usual = nn.Module.get_extra_state  # of others, what it gives is in the checkpoint
    extra = {path for path, one in tried.named_modules() if type(one).get_extra_state is not usual}
    for name, value in left[1].items():
        kept = name in after or name.rpartition(".")[0] in extra
        if (name in counted or left[0].get(name) != value) and not kept:
            raise ConfigError(
                f"the model changes {name} when it is called, which no checkpoint holds; what a "
                "model remembers must be in buffers, see register_buffer of torch.nn.Module, or "
                "numbers"
            )


def _loss(loss: Loss, logits: Tensor, targets: Tensor) -> Tensor:
    """The loss of a batch.

    Raises:
        ConfigError: it fails, or gives no number that has a gradient.
    """
    kind = "labels" if targets.dim() == 1 else "the shares of classes that augmentation gives"
    with _reported(f"fails on {kind}, {tuple(targets.shape)}", "loss: it"):
        found: Any = loss(logits, targets)
    if not isinstance(found, Tensor) or found.shape != () or not found.requires_grad:
        given = str(tuple(found.shape)) if isinstance(found, Tensor) else type(found).__name__
        if given == "()":
            given += " without a gradient, as of logits that are detached"
        raise ConfigError(f"loss: gives {given}, must be () with a gradient, the mean of a batch")
    return found


def _fails_on_one(tried: nn.Module, images: Tensor, device: Device, classes: int) -> bool:
    """Whether a model cannot be trained on one image, as with batch norm of single numbers."""
    try:
        _forward(tried, images[:1], device, classes)
    except ConfigError:
        return True
    return False


def _sizes(
    tried: nn.Module,
    images: Tensor,
    sizes: Collection[int],
    device: Device,
    classes: int,
) -> None:
    """Try batches of other sizes than the first, with few images where that is enough.

    A model that was written for one batch size fails on any other. One that takes only multiples of
    four, say, and is given no others, is not refused: it is tried again with the run's sizes.
    """
    for few, given in ((1, [1]), (2, sorted(set(sizes) - {1}))):
        if not set(given) & set(sizes):
            continue
        try:
            _forward(tried, _some(images, few), device, classes)
        except ConfigError:
            for size in given:
                _forward(tried, _some(images, size), device, classes)


def _forward(model: nn.Module, images: Tensor, device: Device, classes: int) -> Tensor:
    count, phase = len(images), "training" if model.training else "evaluation"
    watch = ConvolutionWatch()  # type: ignore[no-untyped-call]
    with _reported(f"fails in {phase} on {_images(count)}"), watch, device.autocast():
        logits: Any = model(images)
    where = "" if phase == "training" else f" in {phase}"
    if not isinstance(logits, Tensor):
        given = f"a {type(logits).__name__}"
        given += f" of {len(logits)}" if isinstance(logits, (tuple, list)) else ""
    elif tuple(logits.shape) != (count, classes):
        given = str(tuple(logits.shape))
    elif not logits.is_floating_point():
        given = str(logits.dtype)
    else:
        return logits
    raise ConfigError(f"the model gives {given}{where}, must be ({count}, {classes})")


def _images(count: int) -> str:
    return f"{count} image{'s' if count > 1 else ''}"


def _some(images: Tensor, count: int) -> Tensor:
    """So many images, some of them again where there are fewer."""
    return images[torch.arange(count, device=images.device) % len(images)]


@contextmanager
def _reported(what: str, who: str = "the model") -> Iterator[None]:
    """Report what a model raises in one line, a ConfigError with the place in its file.

    `what` it does is "fails in training", say. A lack of memory stays what it is.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise ConfigError(f"{who} {what}: {described(error, 300)}{place(error)}") from error
