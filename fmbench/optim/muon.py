"""Muon for convolutional networks: orthogonalized momentum; AdamW for what is no matrix."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adamw import adamw

from fmbench.core.errors import ConfigError
from fmbench.optim.groups import Named

#: Of the quintic Newton-Schulz iteration; Jordan et al., "Muon" (2024).
COEFFICIENTS, STEPS, EPS = (3.4445, -4.7750, 2.0315), 5, 1e-7


def orthogonalized(matrix: Tensor) -> Tensor:
    """About the nearest semi-orthogonal matrix: its singular values become 0.7 to 1.2.

    `torch.optim.Muon` does the same in bfloat16 everywhere, which processors without it emulate,
    slowly; here that is on GPUs alone, and float32 elsewhere.

    Args:
        matrix: (rows, columns), any real type.

    Returns:
        Of the same shape, in bfloat16 or float32.
    """
    a, b, c = COEFFICIENTS
    found = matrix.to(torch.bfloat16 if matrix.is_cuda else torch.float32)
    tall = found.size(0) > found.size(1)
    found = found.T if tall else found
    found = found / found.norm().clamp(min=EPS)
    for _ in range(STEPS):
        gram = found @ found.T
        found = torch.addmm(found, torch.addmm(gram, gram, gram, beta=b, alpha=c), found, beta=a)
    return found.T if tall else found


class Muon(Optimizer):
    """Muon on matrices and convolutions, AdamW on the rest; Jordan et al., "Muon" (2024).

    A convolution is a matrix of output channels x all else. The first and the last matrix by the
    order of their use in a forward pass are AdamW's, as the paper advises, and so is all that is no
    weight of a linear layer or convolution: norms, biases, embeddings, scales of layers. With
    the scale of Liu et al., "Muon is Scalable for LLM Training" (2025), equation 4, a step of Muon
    is about as long as one of AdamW, so that both share a learning rate and a weight decay. Takes
    the arguments of `torch.optim.Muon` where it has the same, which takes matrices alone.

    Args:
        named_parameters: with their names, in the order of their use.
        lr: learning rate of both.
        weight_decay: of both, times the learning rate.
        momentum: of Muon.
        nesterov: whether Muon looks ahead.
        betas: of AdamW.
        eps: of AdamW.
        matrices: the names of the weights of linear layers and convolutions that a forward pass
            uses, in that order; None: of all parameters of two dimensions or more.

    Raises:
        ConfigError: there is no matrix between the first and the last layer.
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        named_parameters: Named,
        *,
        lr: float = 2e-3,
        weight_decay: float = 0.01,
        momentum: float = 0.95,
        nesterov: bool = True,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        matrices: Sequence[str] | None = None,
    ) -> None:
        for name, value in (("momentum", momentum), *(("betas", beta) for beta in betas)):
            if not 0 <= value < 1:
                raise ValueError(f"{name}={value}: must be from 0 to below 1")
        if weight_decay < 0:
            raise ValueError(f"weight_decay={weight_decay}: must be 0 or more")
        if matrices is None:
            matrices = [name for name, one in named_parameters if one.ndim >= 2]
        names = {*matrices[1:-1]}
        if not names:
            raise ConfigError(
                "optimizer=muon: this model has no matrix or convolution between its first and its "
                "last layer; take optimizer=adamw"
            )
        inner = [one for name, one in named_parameters if name in names]
        rest = [one for name, one in named_parameters if name not in names]
        defaults = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum,
                    "nesterov": nesterov, "betas": tuple(betas), "eps": eps,
                    "capturable": False}  # fmt: skip
        groups = [{"params": inner, "muon": True}, {"params": rest, "muon": False}]
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Take one step."""
        for group in self.param_groups:
            parameters = [one for one in group["params"] if one.grad is not None]
            if group["muon"]:
                for one in parameters:
                    self._muon(one, group)
            elif parameters:
                self._adamw(parameters, group)

    def _muon(self, one: Tensor, group: dict[str, Any]) -> None:
        lr, momentum, gradient = group["lr"], group["momentum"], one.grad
        assert gradient is not None
        if not self.state[one]:
            self.state[one]["momentum"] = torch.zeros_like(one)
        kept = self.state[one]["momentum"]
        kept.mul_(momentum).add_(gradient)
        update = gradient.add(kept, alpha=momentum) if group["nesterov"] else kept
        matrix = orthogonalized(update.reshape(len(update), -1))
        scale = 0.2 * math.sqrt(max(matrix.shape))
        one.mul_(1 - lr * group["weight_decay"])
        one.sub_(matrix.reshape(one.shape).to(one.dtype).mul(scale * lr))

    def _adamw(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        for one in parameters:
            if not self.state[one]:
                device = one.device if group["capturable"] else "cpu"
                self.state[one] = {
                    "step": torch.zeros((), dtype=torch.float32, device=device),
                    "exp_avg": torch.zeros_like(one),
                    "exp_avg_sq": torch.zeros_like(one),
                }
        states = [self.state[one] for one in parameters]
        beta1, beta2 = group["betas"]
        adamw(
            parameters,
            [one.grad for one in parameters],  # type: ignore[misc]
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            capturable=group["capturable"],
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )
