"""Lion: the sign of an interpolated momentum."""

from typing import Any

import torch
from torch.optim import Optimizer


class Lion(Optimizer):
    """Lion, Chen et al., "Symbolic Discovery of Optimization Algorithms" (2023), algorithm 2.

    Each weight moves by the learning rate, by the sign of the momentum and the gradient together;
    the weight decay is decoupled.

    Args:
        params: parameters, or groups of them.
        lr: learning rate; a third to a tenth of AdamW's, with a larger decay (section 5).
        betas: of the update, and of the momentum that is kept.
        weight_decay: times the learning rate.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        if not all(0 <= beta < 1 for beta in betas) or len(betas) != 2:
            raise ValueError(f"betas={betas}: must be two numbers from 0 to below 1")
        if weight_decay < 0:
            raise ValueError(f"weight_decay={weight_decay}: must be 0 or more")
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Take one step."""
        for group in self.param_groups:
            lr, (beta1, beta2) = group["lr"], group["betas"]
            for one in (one for one in group["params"] if one.grad is not None):
                if not self.state[one]:
                    self.state[one]["momentum"] = torch.zeros_like(one)
                momentum = self.state[one]["momentum"]
                one.mul_(1 - lr * group["weight_decay"])
                one.sub_(momentum.lerp(one.grad, 1 - beta1).sign_().mul_(lr))
                momentum.lerp_(one.grad, 1 - beta2)
