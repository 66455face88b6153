"""What a run computes on: device, precision, memory format, threads; and their names."""

import contextlib
import ctypes
import gc
import os
import platform
import random
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from fmbench._version import __version__
from fmbench.core import machine
from fmbench.core.console import logger
from fmbench.core.errors import ConfigError

log = logger(__name__)

#: Forward FLOPs per image from which `precision=auto` takes bfloat16. Below it the conversions cost
#: more than the faster arithmetic saves. Images/s of bf16 over fp32, training in batches of 64 on
#: two cores with AVX-512 BF16: LeNet (0.8 M) 1.0x, MobileNet V3 small (4 M) 0.5x, ResNet-18 of a
#: quarter of its width (57 M) 1.4x, DenseNet-BC-40 (110 M) 1.6x, ResNet-18 (0.9 G) 1.9x. On a GPU
#: it was not measured: the same number is used, and the log tells it.
BF16_FLOPS = 20_000_000

#: Asked for by cuBLAS before its first call, where it is to give the same bits (PyTorch's notes on
#: reproducibility).
_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"

#: Bytes left by earlier runs from which a garbage collection is worth its time.
_MUCH = 50_000_000

#: How the numbers of a batch of images may lie in memory, by the names that a config has for them.
#: In channels_last, which oneDNN and cuDNN are fastest in, the channels of a pixel lie together.
MEMORY_FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}

#: Packages whose classes a run may be built of, and most are not.
_EXTRAS = ("timm", "schedulefree", "pytorch_optimizer")


@dataclass(frozen=True)
class Device:
    """A device and the way a model is run on it."""

    torch: torch.device
    precision: str  # "fp32" or "bf16": of the forward pass; weights are always float32
    threads: int
    deterministic: bool
    memory_format: str = "channels_last"  # "auto" until `fmbench.training.rehearsal` has chosen one
    cuda_graphs: bool = False  # steps are recorded once and replayed

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The context that a forward pass runs in."""
        if self.precision == "bf16":
            return torch.autocast(self.torch.type, torch.bfloat16)
        return contextlib.nullcontext()

    def place(self, model: nn.Module) -> nn.Module:
        """Move a model to the device, its weights into the memory format."""
        return model.to(self.torch).to(memory_format=MEMORY_FORMATS[self.memory_format])

    def synchronize(self) -> None:
        """Wait until the device has done all it was given, so that a clock may be read."""
        if self.torch.type == "cuda":
            torch.cuda.synchronize(self.torch)

    def memory(self) -> int | None:
        """Bytes of memory that a run may use, or None where the system does not tell.

        Runs of a sweep on one machine share it; of GPUs each has its own, as far as is known here.
        """
        if self.torch.type == "cuda":
            return int(torch.cuda.get_device_properties(self.torch).total_memory)
        memory = machine.usable().memory
        return None if memory is None else memory // (machine.runs_at_once() or 1)

    @property
    def name(self) -> str:
        """The hardware as a reader knows it."""
        if self.torch.type == "cuda":
            return torch.cuda.get_device_name(self.torch)
        return f"{processor()}, {self.threads} thread{'s' if self.threads > 1 else ''}"

    def fingerprint(self, *parts: object) -> dict[str, Any]:
        """All that may change the bits or the speed of a run without changing its meaning.

        With the versions of packages that brought its parts: model, optimizer, schedule and so on.
        """
        found = {
            "fmbench": __version__,
            "python": platform.python_version(),
            "torch": str(torch.__version__),  # a text, of no class of its own
            "torchvision": metadata.version("torchvision"),
            "numpy": np.__version__,
            "system": f"{platform.system()} {platform.machine()}",
            "device": self.torch.type,
            "processor": processor(),
            "gpu": torch.cuda.get_device_name(self.torch) if self.torch.type == "cuda" else None,
            "threads": self.threads,
            "precision": self.precision,
            "memory_format": self.memory_format,
            "deterministic": self.deterministic,
            "cuda_graphs": self.cuda_graphs if self.torch.type == "cuda" else None,
        }
        modules = (one.modules() if isinstance(one, nn.Module) else (one,) for one in parts)
        kinds = {kind for one in chain.from_iterable(modules) for kind in type(one).__mro__}
        brought = {kind.__module__.partition(".")[0] for kind in kinds}
        return found | {name: metadata.version(name) for name in _EXTRAS if name in brought}


def select(
    device: str,
    *,
    threads: int | None,
    deterministic: bool,
    memory_format: str = "auto",
    cuda_graphs: bool = False,
) -> Device:
    """The device asked for, set up for this process; its precision is chosen later.

    Raises:
        ConfigError: the device is not there, or has no CUDA graphs.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        chosen = torch.device("cpu")
    else:
        # Parsed here: torch.device keeps 8 bits of the index, so that cuda:256 would be cuda:0.
        index = int(device.partition(":")[2] or 0)
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if index >= count:
            there = ", ".join(["cpu", *(f"cuda:{number}" for number in range(count))])
            raise ConfigError(f"device={device}: no such device here; there are: {there}")
        chosen = torch.device("cuda", index)
        torch.cuda.set_device(chosen)
    if cuda_graphs and chosen.type != "cuda":
        raise ConfigError(f"cuda_graphs=true: device={chosen} has none; must be false there")
    threads = threads or machine.threads()
    torch.set_num_threads(threads)
    # Not by `use_deterministic_algorithms`, which imports the compiler to tell it too.
    torch.set_deterministic_debug_mode("error" if deterministic else "default")
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = not deterministic
    # fp32 means fp32: by default cuDNN rounds the factors of a convolution to TF32, 10 bits.
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    if deterministic:
        os.environ.setdefault(_WORKSPACE, ":4096:8")
    return Device(chosen, "fp32", threads, deterministic, memory_format, cuda_graphs)


#: Settings that decide how a model is computed, beside those of `select`: the holder, the name, the
#: value during a run. Those that follow from others come later.
_FLAGS: tuple[tuple[Any, str, Any], ...] = (
    (torch.backends, "fp32_precision", "none"),
    (torch.backends.cudnn, "fp32_precision", "none"),
    (torch.backends.cudnn.conv, "fp32_precision", "ieee"),  # type: ignore[attr-defined]
    (torch.backends.cuda.matmul, "fp32_precision", "ieee"),
    (torch.backends.cuda.matmul, "allow_bf16_reduced_precision_reduction", True),
    (torch.backends.cudnn, "enabled", True),
    (torch.backends.cudnn, "deterministic", False),
    (torch.backends.cudnn, "benchmark", False),
    (torch.backends.mkldnn, "enabled", True),
    (torch.backends.mkldnn, "deterministic", False),
    (torch.backends.mkldnn, "fp32_precision", "none"),
    (torch.backends.mkldnn.matmul, "fp32_precision", "none"),  # type: ignore[attr-defined]
    (torch.backends.mkldnn.conv, "fp32_precision", "none"),  # type: ignore[attr-defined]
)


@contextlib.contextmanager
def settings_kept() -> Iterator[None]:
    """PyTorch as it comes, whatever is set in the process; afterwards all is as it was.

    The random numbers of PyTorch, NumPy and Python are put back too.
    """
    flags = [(holder, name, getattr(holder, name)) for holder, name, _ in _FLAGS]
    workspace = os.environ.get(_WORKSPACE)
    with contextlib.ExitStack() as kept:
        kept.callback(_set_flags, flags)
        _set_flags(_FLAGS)
        kept.callback(torch.set_num_threads, torch.get_num_threads())
        mode = torch.get_deterministic_debug_mode()
        kept.callback(torch.set_deterministic_debug_mode, mode)  # sets some of the flags
        if workspace is None:
            kept.callback(os.environ.pop, _WORKSPACE, None)
        kept.callback(torch.set_default_dtype, torch.get_default_dtype())
        torch.set_default_dtype(torch.float32)
        kept.callback(torch.set_autocast_cache_enabled, torch.is_autocast_cache_enabled())
        torch.set_autocast_cache_enabled(True)
        if _flushes_denormals():
            kept.callback(torch.set_flush_denormal, True)
            torch.set_flush_denormal(False)
        kept.enter_context(torch.autograd.set_detect_anomaly(False))
        if torch.get_default_device().type != "cpu":
            kept.enter_context(torch.device("cpu"))
        kept.enter_context(torch.inference_mode(False))
        kept.enter_context(torch.enable_grad())
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                kept.enter_context(torch.autocast(kind, enabled=False))
        on_gpu = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        kept.callback(random.setstate, random.getstate())
        kept.callback(np.random.set_state, np.random.get_state())
        kept.callback(_leave_gpu, torch.cuda.current_device() if on_gpu else None)
        gpus = range(torch.cuda.device_count()) if on_gpu else ()
        kept.enter_context(torch.random.fork_rng(gpus))
        yield


def _leave_gpu(current: int | None) -> None:
    """Make a GPU the current one again; None where no GPU was used before."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        if current is None:
            torch.cuda.manual_seed_all(torch.initial_seed())
        torch.cuda.set_device(current or 0)


def _set_flags(flags: Sequence[tuple[Any, str, Any]]) -> None:
    for holder, name, value in flags:
        if getattr(holder, name) != value:
            setattr(holder, name, value)


def _flushes_denormals() -> bool:
    """Whether numbers below the smallest normal one count as 0 in this thread."""
    return bool(np.float64(sys.float_info.min) / np.float64(2) == 0)


def choose_precision(precision: str, device: torch.device, flops: int | None) -> str:
    """What `auto` resolves to: bf16 where the hardware has it and the model is large, else fp32.

    `flops` are of a forward pass, per image; None where they could not be counted.
    """
    if precision != "auto":
        return precision
    if not _has_bf16(device):
        return "fp32"
    if device.type == "cuda":
        log.info(
            "precision=auto: from how many FLOPs on bf16 is faster was measured on a CPU and is "
            "not known of a GPU; precision=fp32 or bf16 decides it"
        )
    return "bf16" if (flops or 0) >= BF16_FLOPS else "fp32"


def _has_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 itself, rather than emulating it."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16"))


def processor() -> str:
    """The processor's model name."""
    name = torch.cpu.get_capabilities().get("cpu_name")
    return str(name or platform.processor() or platform.machine())


def give_back(device: torch.device) -> None:
    """Have freed memory given back to the system, which the allocators would rather keep."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    else:
        with contextlib.suppress(OSError, AttributeError):  # only glibc has it
            ctypes.CDLL("libc.so.6").malloc_trim(0)


class PeakMemory:
    """The most memory held since construction: the GPU's for a GPU run, else the process's.

    The processes of a sweep run many models one after the other. What earlier ones have freed is
    given back and the mark set back first; what they have left (kernels that are kept for another
    time, above all) is not counted. There is no number where the system does not let the mark be
    set back (only Linux does), and where the number might be wrong by more than a tenth.

    Args:
        device: of the run.
        own: bytes that the run holds already, of its data and its model.
    """

    #: Bytes that the process held beside its own when its first run got so far.
    before: ClassVar[int | None] = None

    def __init__(self, device: torch.device, own: int = 0) -> None:
        self.device = device
        self.left: int | None = None  # by earlier runs; None where that is not known
        if device.type == "cuda":
            gc.collect()
            torch.cuda.reset_peak_memory_stats(device)
            return
        with contextlib.suppress(OSError):
            self.left = self._mark(own)
            if self.left > _MUCH:
                gc.collect()  # takes a while, and most models are gone without
                self.left = self._mark(own)

    def _mark(self, own: int) -> int:
        give_back(self.device)
        beside = _status("VmRSS") - own
        if PeakMemory.before is None:
            PeakMemory.before = beside
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        return max(0, beside - PeakMemory.before)

    @property
    def bytes(self) -> int | None:
        """Bytes, or None where they are not known."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        if self.left is None or 11 * self.left > (peak := _status("VmHWM")):
            return None
        return peak - self.left


def _status(field: str) -> int:
    """Bytes, by a field of /proc/self/status; OSError where there is no such file or field."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text("ascii"))
    if found is None:
        raise OSError(f"no {field}")
    return int(found[1]) * 1024
