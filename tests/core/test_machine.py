"""What of the machine a process may use, on trees of /proc and /sys written as kernels write them.

Groups themselves can only be made by whoever owns the machine.
"""

import os

import pytest

from fmbench.core import machine

V2 = "31 23 0:28 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
NO_LIMIT = "9223372036854771712\n"  # of version 1: the largest number of whole pages


def v1(name, top="/"):
    return f"33 31 0:31 {top} /sys/fs/cgroup/{name} rw - cgroup cgroup rw,{name}\n"


@pytest.fixture
def usable(tmp_path, monkeypatch):
    """What a process of this machine may use that has 8 cores, in these groups."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(8)), raising=False)

    def call(groups, mounts, files):
        written = {"proc/self/cgroup": groups, "proc/self/mountinfo": mounts, **files}
        for name, content in written.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return machine.usable(tmp_path)

    return call


@pytest.mark.parametrize(("groups", "mounts", "files", "cores"), [
    # The group itself.
    ("0::/a\n", V2, {"a/cpu.max": "50000 100000\n"}, 1),
    ("0::/a\n", V2, {"a/cpu.max": "150000 100000\n"}, 2),
    ("0::/a\n", V2, {"a/cpu.max": "max 100000\n"}, 8),
    ("0::/a\n", V2, {"a/cpu.max": "1600000 100000\n"}, 8),
    # A container that sees its own group as the root.
    ("0::/\n", V2, {"cpu.max": "200000 100000\n"}, 2),
    # Nested: the least of all around it.
    ("0::/a/b/c\n", V2, {"a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000",
                         "a/b/c/cpu.max": "500000 100000"}, 3),
    ("0::/a/b\n", V2, {"a/cpu.max": "500000 100000", "a/b/cpu.max": "20000 10000"}, 2),
    # Of a group beside it nothing counts.
    ("0::/a\n", V2, {"b/cpu.max": "100000 100000"}, 8),
    # Version 1: own hierarchies, several controllers in one, both versions at once.
    ("4:cpu,cpuacct:/a\n0::/\n", v1("cpu,cpuacct"),
     {"cpu,cpuacct/a/cpu.cfs_quota_us": "250000", "cpu,cpuacct/a/cpu.cfs_period_us": "100000"}, 3),
    ("4:cpu:/a/b\n", v1("cpu"), {
        "cpu/a/cpu.cfs_quota_us": "100000", "cpu/a/cpu.cfs_period_us": "50000",
        "cpu/a/b/cpu.cfs_quota_us": "-1", "cpu/a/b/cpu.cfs_period_us": "100000"}, 2),
    ("4:cpu:/a\n0::/a\n", v1("cpu") + V2.replace("/cgroup rw", "/cgroup/unified rw"), {
        "cpu/a/cpu.cfs_quota_us": "400000", "cpu/a/cpu.cfs_period_us": "100000",
        "unified/a/cgroup.procs": ""}, 4),
    # A container whose mount shows its own group under the name that the host has for it.
    ("4:cpu:/docker/1f\n", v1("cpu", "/docker/1f"),
     {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
    # And one whose name for it is of no use there.
    ("0::/../x\n", V2, {"cpu.max": "100000 100000"}, 1),
    ("0::/kubepods/pod/1f\n", V2, {"cpu.max": "100000 100000"}, 1),
    ("0::/\n", V2.replace(" / ", " /../.. "), {"cpu.max": "100000 100000"}, 1),
    # What cannot be read limits nothing.
    ("", "", {}, 8),
    ("0::/a\n", V2, {"a/cpu.max": "two\n"}, 8),
    ("0::/a\n", "", {"a/cpu.max": "100000 100000"}, 8),
    ("nonsense\n", "more\n", {}, 8),
])  # fmt: skip
def test_the_cores_of_a_quota(usable, groups, mounts, files, cores):
    files = {f"sys/fs/cgroup/{name}": content for name, content in files.items()}
    assert usable(groups, mounts, files).cores == cores


@pytest.mark.parametrize(("groups", "mounts", "files", "limit"), [
    ("0::/a\n", V2, {"a/memory.max": "1000000\n"}, 10**6),
    ("0::/a/b\n", V2, {"a/memory.max": "1000000", "a/b/memory.max": "max"}, 10**6),
    ("0::/a/b\n", V2, {"a/memory.max": "2000000", "a/b/memory.max": "1000000"}, 10**6),
    ("0::/a\n", V2, {"a/memory.max": "max\n"}, None),
    ("5:memory:/a\n", v1("memory"), {"memory/a/memory.limit_in_bytes": "1000000"}, 10**6),
    ("5:memory:/a/b\n", v1("memory"), {
        "memory/a/memory.limit_in_bytes": "1000000",
        "memory/a/b/memory.limit_in_bytes": NO_LIMIT}, 10**6),
    ("5:memory:/a\n", v1("memory"), {"memory/a/memory.limit_in_bytes": NO_LIMIT}, None),
])  # fmt: skip
def test_the_memory_of_a_limit(usable, groups, mounts, files, limit):
    files = {f"sys/fs/cgroup/{name}": content for name, content in files.items()}
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert usable(groups, mounts, files).memory == (limit or whole)


def test_a_blank_in_the_name_of_a_mount(usable):
    mounts = V2.replace("/sys/fs/cgroup", r"/my\040groups")
    assert usable("0::/a b\n", mounts, {"my groups/a b/cpu.max": "100000 100000"}).cores == 1


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
