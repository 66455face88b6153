"""What of the machine this process may use: cores and memory, as Linux limits them.

Nothing here needs PyTorch: launchers ask before any run has imported it.
"""

import contextlib
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

#: The variable in which launchers say how many runs of a sweep share this machine.
RUNS_AT_ONCE = "FMBENCH_RUNS_AT_ONCE"


class Usable(NamedTuple):
    """What a process may use."""

    cores: int  # 1 or more; of a share of a core too
    memory: int | None  # bytes; None where the system does not tell


def usable(root: Path = Path("/")) -> Usable:
    """The cores and the memory that this process may use.

    The least of what the machine has, the processor affinity, and the CPU quotas and memory limits
    of the control groups that the process is in, of version 1 and 2, and of all groups around them
    (cgroups(7), Documentation/admin-guide/cgroup-v2.rst). A quota of 1.5 cores counts as 2: two
    threads can use all of it.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    memory = []
    with contextlib.suppress(OSError, ValueError, AttributeError):
        memory.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for folder in _groups(root):
        if (quota := _quota(folder)) is not None:
            cores = min(cores, math.ceil(quota))
        for name in ("memory.max", "memory.limit_in_bytes"):
            with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
                memory.append(int((folder / name).read_text("ascii")))
    return Usable(max(1, cores), min(memory, default=None))


def threads() -> int:
    """The most threads that a run may use: those that the environment asks for, or the cores."""
    return threads_asked() or usable().cores


def threads_asked() -> int | None:
    """OMP_NUM_THREADS, where it asks for no more threads than there are cores.

    Of a list (OpenMP 6.0, section 4.1.3) the first. A number above the cores was meant for another
    machine.
    """
    found = re.match(r"\s*([1-9]\d*)\s*(,|$)", os.environ.get("OMP_NUM_THREADS", ""))
    asked = int(found[1]) if found else None
    return None if asked is None or asked > usable().cores else asked


def share(count: int) -> int:
    """The threads of each of so many runs at once."""
    return min(threads(), max(1, usable().cores // count))


def runs_at_once() -> int | None:
    """How many runs of a sweep share this machine, where its launcher says so."""
    said = os.environ.get(RUNS_AT_ONCE, "")
    return int(said) if said.isdecimal() and int(said) > 0 else None


def _groups(root: Path) -> Iterator[Path]:
    """The folders of this process's control groups, and those of the groups around them.

    In a container the name of a group may be the host's: then only the outermost folder is there.
    """
    mounted = root / "sys/fs/cgroup"
    try:
        groups = (root / "proc/self/cgroup").read_text("utf-8", "surrogateescape")
    except OSError:  # not Linux
        return
    for controllers, group in re.findall(r"^\d+:(.*?):/(.*)$", groups, re.MULTILINE):
        # Version 2 may be mounted beside version 1.
        tops = [mounted / controllers] if controllers else [mounted, mounted / "unified"]
        for inner in (Path(group), *Path(group).parents):
            yield from (top / inner for top in tops)


def _quota(folder: Path) -> float | None:
    """The cores that a group may use, by its time in each period."""
    with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
        quota, period = map(int, (folder / "cpu.max").read_text("ascii").split())
        return quota / period
    with contextlib.suppress(OSError, ValueError):
        quota, period = (
            int((folder / f"cpu.cfs_{name}_us").read_text("ascii")) for name in ("quota", "period")
        )
        return quota / period if quota > 0 else None
    return None
