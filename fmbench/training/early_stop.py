"""When a run ends before its last epoch, because validation brings nothing better any more."""

import math
from dataclasses import KW_ONLY, dataclass
from typing import Any

from fmbench.optim.schedules import METRICS


@dataclass
class EarlyStop:
    """Ends a run after epochs without a better validation value, or after a number of epochs.

    Better is better than after any epoch before, by however little.
    """

    _: KW_ONLY
    patience: int | None = None  # epochs without a better value; None: validation ends no run
    metric: str = "accuracy"  # or loss, on the validation images
    after: int | None = None  # epochs after which it ends in any case, whatever its schedule's
    best: float = -math.inf  # so far; of a loss the negative
    waited: int = 0  # epochs since
    why: str | None = None  # once it has ended

    def ends(self, epochs: int, value: float | None) -> str | None:
        """Why the run ends now that so many epochs are done, with this value; None if not."""
        if self.after is not None and epochs >= self.after:
            return f"early_stop.after={self.after}"
        if self.patience is None or value is None or self._value(value) > self.best:
            return None
        if self.waited + 1 < self.patience:
            return None
        epoch = "epoch" if self.patience == 1 else "epochs"
        return f"no better validation {self.metric} for {self.patience} {epoch}"

    def note(self, epochs: int, value: float | None) -> None:
        """Take notice of an epoch that has ended."""
        self.why = self.ends(epochs, value)
        if self.patience is None or value is None:
            return
        better = self._value(value) > self.best
        self.best = max(self.best, self._value(value))
        self.waited = 0 if better else self.waited + 1

    def _value(self, value: float) -> float:
        return value if METRICS[self.metric] else -value

    def state_dict(self) -> dict[str, Any]:
        """What it has seen."""
        return {"best": self.best, "waited": self.waited, "why": self.why or ""}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.best, self.waited = state["best"], state["waited"]
        self.why = state["why"] or None
