"""What of the machine a process may use, on trees of /proc and /sys written as kernels write them.

Groups themselves can only be made by whoever owns the machine.
"""

import os

import pytest

from fmbench.core import machine

NO_LIMIT = "9223372036854771712\n"  # of version 1: the largest number of whole pages


@pytest.fixture
def usable(tmp_path, monkeypatch):
    """What a process of this machine may use that has 8 cores, in these groups."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(8)), raising=False)

    def call(groups, files):
        written = {f"sys/fs/cgroup/{name}": content for name, content in files.items()}
        for name, content in {"proc/self/cgroup": groups, **written}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return machine.usable(tmp_path)

    return call


@pytest.mark.parametrize(("groups", "files", "cores"), [
    # The group itself.
    ("0::/a\n", {"a/cpu.max": "50000 100000\n"}, 1),
    ("0::/a\n", {"a/cpu.max": "150000 100000\n"}, 2),
    ("0::/a\n", {"a/cpu.max": "max 100000\n"}, 8),
    ("0::/a\n", {"a/cpu.max": "1600000 100000\n"}, 8),
    # A container that sees its own group as the root.
    ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
    # Nested: the least of all around it.
    ("0::/a/b/c\n", {"a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000",
                     "a/b/c/cpu.max": "500000 100000"}, 3),
    ("0::/a/b\n", {"a/cpu.max": "500000 100000", "a/b/cpu.max": "20000 10000"}, 2),
    # Of a group beside it nothing counts.
    ("0::/a\n", {"b/cpu.max": "100000 100000"}, 8),
    # Version 1: own hierarchies, several controllers in one, both versions at once.
    ("4:cpu,cpuacct:/a\n0::/\n", {
        "cpu,cpuacct/a/cpu.cfs_quota_us": "250000",
        "cpu,cpuacct/a/cpu.cfs_period_us": "100000"}, 3),
    ("4:cpu:/a/b\n", {
        "cpu/a/cpu.cfs_quota_us": "100000", "cpu/a/cpu.cfs_period_us": "50000",
        "cpu/a/b/cpu.cfs_quota_us": "-1", "cpu/a/b/cpu.cfs_period_us": "100000"}, 2),
    ("4:cpu:/a\n0::/a\n", {
        "cpu/a/cpu.cfs_quota_us": "400000", "cpu/a/cpu.cfs_period_us": "100000",
        "unified/a/cpu.max": "300000 100000"}, 3),
    # A container that sees the name that the host has for its group.
    ("4:cpu:/docker/1f\n", {
        "cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
    ("0::/../x\n", {"cpu.max": "100000 100000"}, 1),
    ("0::/kubepods/pod/1f\n", {"cpu.max": "100000 100000"}, 1),
    ("0::/a b\n", {"a b/cpu.max": "100000 100000"}, 1),
    # What cannot be read limits nothing.
    ("", {}, 8),
    ("0::/a\n", {"a/cpu.max": "two\n"}, 8),
    ("nonsense\n", {}, 8),
])  # fmt: skip
def test_the_cores_of_a_quota(usable, groups, files, cores):
    assert usable(groups, files).cores == cores


@pytest.mark.parametrize(("groups", "files", "limit"), [
    ("0::/a\n", {"a/memory.max": "1000000\n"}, 10**6),
    ("0::/a/b\n", {"a/memory.max": "1000000", "a/b/memory.max": "max"}, 10**6),
    ("0::/a/b\n", {"a/memory.max": "2000000", "a/b/memory.max": "1000000"}, 10**6),
    ("0::/a\n", {"a/memory.max": "max\n"}, None),
    ("5:memory:/a\n", {"memory/a/memory.limit_in_bytes": "1000000"}, 10**6),
    ("5:memory:/a/b\n", {
        "memory/a/memory.limit_in_bytes": "1000000",
        "memory/a/b/memory.limit_in_bytes": NO_LIMIT}, 10**6),
    ("5:memory:/a\n", {"memory/a/memory.limit_in_bytes": NO_LIMIT}, None),
])  # fmt: skip
def test_the_memory_of_a_limit(usable, groups, files, limit):
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert usable(groups, files).memory == (limit or whole)


def test_this_machine():
    found = machine.usable()
    assert 1 <= found.cores <= (os.cpu_count() or 1)
    assert 2**28 < found.memory < 2**50


@pytest.mark.parametrize(("asked", "threads", "share_of_two", "share_of_nine"), [
    (None, 8, 4, 1),
    ("3", 3, 3, 1),
    ("5", 5, 4, 1),
    ("64", 8, 4, 1),
    ("4,2", 4, 4, 1),
    (" 2 ", 2, 2, 1),
    ("many", 8, 4, 1),
    ("0", 8, 4, 1),
    ("-1", 8, 4, 1),
    ("", 8, 4, 1),
])  # fmt: skip
def test_the_environment_may_ask_for_fewer_threads(
    monkeypatch, asked, threads, share_of_two, share_of_nine
):
    monkeypatch.setattr(machine, "usable", lambda: machine.Usable(8, None))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert machine.threads() == threads
    assert (machine.share(2), machine.share(9)) == (share_of_two, share_of_nine)
