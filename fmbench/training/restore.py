"""Checks of a checkpoint, which may be a stranger's, before a trainer resumes from it.

PyTorch's optimizers and schedulers do not check the state they load. It is checked here: it must
be of the kind that they have themselves.
"""

import inspect
import math
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fmbench.core.errors import ConfigError
from fmbench.optim.schedules import Plateau, Schedule
from fmbench.training.checkpoint import DamagedError, copied, is_torchs

#: Numbers of an optimizer that a schedule of `fmbench.optim.schedules` changes.
_SCHEDULED = ("lr", "momentum", "betas")

#: What such a schedule itself keeps count of.
_COUNTED = ("last_epoch", "_step_count", "_last_lr", "best", "num_bad_epochs", "drops")


def require_like(found: object, own: object, where: str) -> None:
    """Refuse what cannot take the place of a value: another type, shape or length.

    Of a list or a dictionary each part is checked. `where` it is, the error says.

    Raises:
        DamagedError: it is of another kind.
    """
    if isinstance(own, Tensor):
        if type(found) is not Tensor:
            raise DamagedError(f"{where} is no tensor")
        kinds = [(one.dtype, one.layout, tuple(one.shape)) for one in (found, own)]
        if kinds[0] != kinds[1]:
            raise DamagedError(f"{where} is {kinds[0]}, must be {kinds[1]}")
    elif isinstance(own, Mapping):
        if not isinstance(found, Mapping) or found.keys() != own.keys():
            raise DamagedError(f"{where} has other keys")
        for key, value in own.items():
            require_like(found[key], value, f"{where}.{key}")
    elif isinstance(own, (list, tuple)):
        if not isinstance(found, (list, tuple)) or len(found) != len(own):
            raise DamagedError(f"{where} is no list of {len(own)}")
        for index, value in enumerate(own):
            require_like(found[index], value, f"{where}.{index}")
    elif isinstance(own, float):
        require_number(found, where)
    elif type(found) is not type(own):
        raise DamagedError(f"{where} is of type {type(found).__name__}, not {type(own).__name__}")


def require_number(
    found: object, where: str, *, least: float = -math.inf, most: float = math.inf
) -> None:
    """Refuse what is no number, or out of a range, by a DamagedError."""
    if type(found) not in (int, float) or not least <= cast("float", found) <= most:
        raise DamagedError(f"{where} is no number that it can be")


def load_optimizer(optimizer: Optimizer, saved: Any, *, any_number: bool = False) -> None:
    """Restore the state of an optimizer from a checkpoint.

    PyTorch checks nothing of it, and its fused steps read and write as many numbers as a parameter
    has. So each tensor must be as the optimizer, which has not stepped yet, makes it in its first
    step, in memory of its own. The settings are the optimizer's, but for what the schedule changes
    (one of the user's own may change `any_number`) and for what the optimizer itself notes there
    in a step, such as how many it took.

    Raises:
        DamagedError: it is of another optimizer, or of other parameters.
    """
    after, own = _after_a_step(optimizer), optimizer.state_dict()
    made = after["state"]
    groups, state = saved["param_groups"], saved["state"]
    if len(groups) != len(own["param_groups"]) or not isinstance(state, dict):
        raise DamagedError("the optimizer has other groups of parameters")
    settings = [
        _settings(*three, optimizer, any_number=any_number)
        for three in zip(groups, own["param_groups"], after["param_groups"], strict=True)
    ]
    known = {index for group in own["param_groups"] for index in group["params"]}
    filled: dict[int, dict[str, Any]] = {}
    taken: set[int] = set()
    for index, found in state.items():
        if type(index) is not int or index not in known:
            raise DamagedError("the optimizer has other parameters")
        there = made.get(index, {})
        if is_torchs(optimizer) and found and found.keys() != there.keys():
            raise DamagedError(f"optimizer.state.{index} has other keys")
        filled[index] = {
            key: _filled(value, there.get(key), f"optimizer.state.{index}.{ascii(key)[:80]}", taken)
            for key, value in found.items()
        }
    optimizer.load_state_dict({"state": filled, "param_groups": settings})


def _after_a_step(optimizer: Optimizer) -> dict[str, Any]:
    """The `state_dict` after an optimizer's first step; without state where none can be tried."""
    parameters = [one for group in optimizer.param_groups for one in group["params"]]
    for device in ("meta", "cpu"):  # there it takes no memory, but not every optimizer runs there
        twins = {id(one): nn.Parameter(torch.zeros_like(one, device=device)) for one in parameters}
        try:
            twin = copied(optimizer, dict(twins))
            for group in twin.param_groups if device == "meta" and is_torchs(optimizer) else ():
                group["fused"] = False  # has the same state
            for one in twins.values():
                one.grad = torch.ones_like(one)
            twin.step()
            made: dict[str, Any] = twin.state_dict()
        except Exception:
            if device == "cpu" and is_torchs(optimizer):
                raise
        else:
            return made
    return {"state": {}, "param_groups": optimizer.state_dict()["param_groups"]}


def refuse_unrecordable(optimizer: Optimizer) -> None:
    """Refuse an optimizer whose steps a CUDA graph cannot hold.

    A graph repeats what was asked of the GPU. What an optimizer counts in Python, or on the CPU,
    would stay as it was when the graph was recorded.

    Raises:
        ConfigError: it counts so, as far as its first step shows, or reads its learning rate there.
    """
    kind, own = type(optimizer), optimizer.state_dict()["param_groups"]
    # PyTorch wraps the `step` of each class of which there is an optimizer.
    sgds = inspect.unwrap(kind.step) is inspect.unwrap(torch.optim.SGD.step)
    if sgds and not all(group["fused"] for group in own):
        raise ConfigError(
            f"cuda_graphs=true: {kind.__name__} with fused=false reads its learning rate from the "
            "GPU, which a recorded step cannot; take fused=true, or cuda_graphs=false"
        )
    if all("capturable" in group for group in own):  # set by a step that is recorded
        return
    after = _after_a_step(optimizer)
    kept = [value for state in after["state"].values() for value in state.values()]
    numbers = any(not isinstance(one, Tensor) for one in kept)
    on_host = {one.device.type for one in kept if isinstance(one, Tensor)} == {"cpu", "meta"}
    # Adafactor's first step cannot be tried on the meta device.
    torchs = is_torchs(optimizer) and kind.__name__ != "SGD"
    changed = not is_torchs(optimizer) and after["param_groups"] != own
    if numbers or on_host or torchs or changed:
        raise ConfigError(
            f"cuda_graphs=true: {kind.__name__} counts its steps outside the GPU, which a recorded "
            "step cannot follow; take cuda_graphs=false"
        )


def _settings(
    found: Mapping[str, Any],
    own: Mapping[str, Any],
    after: Mapping[str, Any],
    optimizer: Optimizer,
    *,
    any_number: bool,
) -> dict[str, Any]:
    """The settings of a group of parameters: the optimizer's, but for what changes in training.

    `after` are those after the optimizer's first step.
    """
    settings = dict(own)
    noted = {}
    if not is_torchs(optimizer):
        noted = {key: value for key, value in after.items() if own.get(key, ...) != value}
    if found["params"] != own["params"] or not found.keys() <= {**own, **noted}.keys():
        raise DamagedError("the optimizer has other groups of parameters")
    for key, value in {**noted, **own}.items():
        if key not in own and key not in found:
            continue  # it has not stepped yet
        there = found.get(key, value)
        if key == "capturable":  # set by a step that is recorded as a CUDA graph
            on_gpu = optimizer.param_groups[0]["params"][0].is_cuda
            settings[key] = value or (there is True and on_gpu)
        elif key in noted and key not in _SCHEDULED:
            require_like(there, noted[key], f"optimizer.{key}")
            settings[key] = there
        elif any_number or key in _SCHEDULED:
            require_like(there, value, f"optimizer.{key}")
            for number in there if isinstance(there, (list, tuple)) else (there,):
                if not any_number:
                    require_number(number, f"optimizer.{key}", least=0, most=1e30)
            settings[key] = tuple(there) if isinstance(value, tuple) else there
        elif type(there) is not type(value) or there != value:
            raise DamagedError(f"optimizer.{key} is another")
    return settings


def _filled(found: Any, own: Any, where: str, taken: set[int]) -> Any:
    """What is found in a checkpoint, laid out in memory as `own`, what the optimizer makes.

    `taken` says where the memory of the parts begins that were filled before, and is added to.
    """
    if own is not None:
        require_like(found, own, where)
    if not isinstance(found, Tensor):
        return found
    if own is None:
        if found.layout != torch.strided or found.nbytes > found.untyped_storage().nbytes():
            raise DamagedError(f"{where} is not stored number by number")
        return found.clone()
    if not own.dim():  # a count of steps, or a product of what they do
        require_number(found.item(), where, least=-1e30, most=1e30)
    memory = found.untyped_storage()
    alone = memory.nbytes() == found.nbytes and memory.data_ptr() not in taken
    if not alone or found.stride() != own.stride():  # a step writes into it, and nowhere else
        found = torch.empty_strided(own.shape, own.stride(), dtype=own.dtype).copy_(found)
    taken.add(found.untyped_storage().data_ptr())
    return found


def load_schedule(schedule: Schedule, saved: Any, *, epochs: int, batches: int) -> None:
    """Restore the state of a schedule, of so many epochs of so many batches, from a checkpoint.

    Raises:
        DamagedError: it is of another schedule.
    """
    own = schedule.state_dict()
    if type(saved) is not dict or not all(type(key) is str for key in saved):
        raise DamagedError("the schedule has no state")
    if is_ours(schedule):
        steps = epochs * (batches if schedule.interval == "batch" else 1)
        for key, value in saved.items():
            if key not in own or (key not in _COUNTED and value != own[key]):
                raise DamagedError("the schedule is another")
        if isinstance(schedule, Plateau):
            drops = saved["drops"]
            if type(drops) is not list or len(drops) > epochs:
                raise DamagedError("schedule.drops is no list of epochs")
            for epoch in drops:
                require_like(epoch, 0, "schedule.drops")
                require_number(epoch, "schedule.drops", least=1, most=epochs)
            own["drops"] = list(drops)
        require_like({**own, **saved}, own, "schedule")
        for key in {"last_epoch", "_step_count", "num_bad_epochs"} & own.keys():
            require_number(saved[key], f"schedule.{key}", least=0, most=steps + 1)
    schedule.load_state_dict(saved)


def is_ours(schedule: Schedule) -> bool:
    """Whether a schedule is one of `fmbench.optim.schedules`, and no code of the user's."""
    if type(schedule) not in (Schedule, Plateau):
        return False
    own = type(schedule.scheduler).__module__ == Schedule.__module__
    return own or is_torchs(schedule.scheduler)
