"""Weight initialisation shared by the residual and the dense networks."""

from torch import nn


def init_he_fan_out(model: nn.Module) -> None:
    """Draw a model's weights anew as the Torch code of ResNet and of DenseNet does.

    Convolution weights are normal with variance 2 / (kernel height x kernel width x output
    channels), the form of He et al. 2015 (arXiv:1502.01852, section 2.2) that keeps the variance
    of gradients going backward; batch norms start as the identity; linear biases start at zero
    and linear weights keep PyTorch's uniform(+-1 / sqrt(inputs)), which is also Torch's.

    Args:
        model: Changed in place; its convolutions have no bias.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
