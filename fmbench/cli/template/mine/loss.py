"""A loss: from logits (B, classes) and labels (B,), or shares (B, classes), to a mean."""

from torch import nn
from torch.nn import functional


class LogitNorm(nn.Module):
    """Cross entropy of logits that are divided by their norm (Wei et al., 2022)."""

    def __init__(self, temperature: float = 0.04) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, logits, targets):
        return functional.cross_entropy(functional.normalize(logits) / self.temperature, targets)
