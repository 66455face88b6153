"""A model: an `nn.Module` from images (N, channels, H, W) to logits (N, classes)."""

from torch import nn


class MLP(nn.Sequential):
    """One hidden layer. fmbench gives `channels` and `classes`, which the images decide."""

    def __init__(self, channels: int, classes: int, hidden: int = 128) -> None:
        del channels  # a lazy layer finds out how many numbers an image has
        hidden_layer = (nn.Flatten(), nn.LazyLinear(hidden), nn.ReLU())
        super().__init__(*hidden_layer, nn.Linear(hidden, classes))
