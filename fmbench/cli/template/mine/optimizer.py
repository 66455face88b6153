"""An optimizer: a `torch.optim.Optimizer` over parameters, with an argument `lr`."""

import torch


class SignSGD(torch.optim.Optimizer):
    """Steps of one length against the sign of each gradient (Bernstein et al., 2018)."""

    def __init__(self, params, lr: float = 0.001) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    weight.sub_(group["lr"] * weight.grad.sign())
