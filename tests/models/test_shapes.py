"""Every model takes images of other sizes, channels and classes, or says which it needs."""

import functools
import inspect

import pytest
import torch
from commands import CHECKOUT, compose
from small_models import SMALL, of_each
from torch.nn import functional

from fmbench.core.errors import ConfigError
from fmbench.runs import prepare

OPTIONS = sorted(path.stem for path in (CHECKOUT / "conf" / "model").glob("*.yaml"))
SHAPES = [(1, 28, 28), (3, 32, 32), (3, 64, 64)]

#: The smallest square images that a model takes, where `prepare` works it out.
LEAST = {"alexnet": 15, "alexnet_light": 12, "lenet": 12, "lenet5": 28, "vgg_light": 8}

composed = functools.cache(lambda option: compose(f"model={option}"))


def facts(shape, classes):
    return prepare.ImageFacts(shape, classes)


@pytest.mark.parametrize(
    "classes",
    [pytest.param(2, marks=pytest.mark.slow), 10, pytest.param(100, marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("option", of_each({name: name for name in OPTIONS}))
def test_every_option_is_built_for_every_shape(option, classes):
    config = composed(option)
    for shape in SHAPES:
        if (option, shape) == ("torchvision", (1, 28, 28)):
            continue  # its own tests have it
        model = prepare.model_on_meta(config, facts(shape, classes))
        with torch.device("meta"), torch.no_grad():
            assert model.eval()(torch.empty(2, *shape)).shape == (2, classes)


@pytest.mark.parametrize("shape", SHAPES[1:])
@pytest.mark.parametrize("name", of_each({name: name for name in SMALL}))
def test_every_model_trains_two_steps(name, shape):
    channels, *size = shape
    options = {"channels": channels, "classes": 7}
    if "image_size" in inspect.signature(SMALL[name]).parameters and name != "torchvision":
        options["image_size"] = tuple(size)
    torch.manual_seed(0)
    model = SMALL[name](**options)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    images, labels = torch.rand(4, *shape), torch.arange(4)
    for _ in range(2):
        loss = functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.isfinite()


@pytest.mark.parametrize(("option", "least"), LEAST.items())
def test_a_model_says_the_smallest_size_that_it_takes(option, least):
    config = composed(option)
    said = rf"cannot take images of 3 x 3; the smallest size that works is {least} x {least}"
    with pytest.raises(ConfigError, match=said):
        prepare.model_on_meta(config, facts((1, 3, 3), 10))
    assert prepare.model_on_meta(config, facts((1, least, least), 10)) is not None


def test_images_need_not_be_square():
    model = prepare.model_on_meta(composed("lenet"), facts((1, 20, 36), 4))
    with torch.device("meta"):
        assert model(torch.empty(2, 1, 20, 36)).shape == (2, 4)
