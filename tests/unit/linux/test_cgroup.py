"""The cgroup driver: layouts read from recorded mountinfo, v2 against a temporary tree, v1 against the real kernel."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linux.cgroup import UNLIMITED, Cgroups, Layout, Limits, parse_flat, parse_layout, plan_writes, shares_to_weight

V1 = """\
34 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct
35 30 0:31 / /sys/fs/cgroup/memory rw,nosuid shared:10 - cgroup cgroup rw,memory
36 30 0:32 / /sys/fs/cgroup/pids rw,nosuid shared:11 - cgroup cgroup rw,pids
37 30 0:33 / /sys/fs/cgroup/freezer rw,nosuid shared:12 - cgroup cgroup rw,freezer
"""
UNIFIED = "38 30 0:34 / /sys/fs/cgroup/unified rw,nosuid shared:13 - cgroup2 cgroup2 rw,nsdelegate\n"
V2 = "25 23 0:27 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"


@pytest.mark.parametrize(
    ("mountinfo", "offered", "mode", "unified"),
    [
        pytest.param(V1, "", "v1", False, id="v1"),
        pytest.param(V1 + UNIFIED, "", "hybrid", False, id="hybrid"),
        pytest.param(V1 + UNIFIED, "hugetlb", "hybrid", False, id="hybrid-with-a-v2-controller"),
        pytest.param(V2, "cpuset cpu io memory hugetlb pids rdma", "v2", True, id="v2"),
        pytest.param("", "", "none", False, id="nothing-mounted"),
    ],
)
def test_layout(mountinfo: str, offered: str, mode: str, unified: bool) -> None:
    layout = parse_layout(mountinfo.splitlines(), offered)
    assert (layout.mode, layout.unified) == (mode, unified)


def test_combined_controllers_share_a_folder() -> None:
    layout = parse_layout(V1.splitlines(), "")
    assert Cgroups(layout).folders("a/b")["cpu"] == Cgroups(layout).folders("/a/b/")["cpuacct"]


@pytest.mark.parametrize(
    ("limits", "unified", "expected"),
    [
        pytest.param(Limits(), True, [], id="nothing"),
        pytest.param(Limits(cpu_quota_us=50000), True, [("cpu", "cpu.max", "50000 100000")], id="v2-quota"),
        pytest.param(
            Limits(cpu_quota_us=UNLIMITED, cpu_period_us=50000), True, [("cpu", "cpu.max", "max 50000")], id="v2-lift"
        ),
        pytest.param(Limits(cpu_period_us=50000), True, [], id="v2-period-alone-keeps-the-quota"),
        pytest.param(
            Limits(memory_bytes=100, memory_swap_bytes=100),
            True,
            [("memory", "memory.max", "100"), ("memory", "memory.swap.max", "0")],
            id="v2-swap-is-the-difference",
        ),
        pytest.param(
            Limits(cpu_quota_us=5000, cpu_period_us=10000, cpu_shares=2, pids=UNLIMITED),
            False,
            [
                ("cpu", "cpu.cfs_period_us", "10000"),
                ("cpu", "cpu.cfs_quota_us", "5000"),
                ("cpu", "cpu.shares", "2"),
                ("pids", "pids.max", "max"),
            ],
            id="v1",
        ),
    ],
)
def test_plan_writes(limits: Limits, unified: bool, expected: list[tuple[str, str, str]]) -> None:
    assert plan_writes(limits, unified) == expected


@given(st.integers(min_value=2, max_value=262144))
def test_weight_stays_in_range_and_keeps_order(shares: int) -> None:
    assert 1 <= shares_to_weight(shares) <= 10000
    assert shares_to_weight(shares) <= shares_to_weight(min(262144, shares + 1000))


@pytest.mark.parametrize(
    ("shares", "weight"),
    [pytest.param(2, 1, id="min"), pytest.param(1024, 39, id="one-cpu"), pytest.param(262144, 10000, id="max")],
)
def test_weight_known_values(shares: int, weight: int) -> None:
    assert shares_to_weight(shares) == weight


def v2_folder(path: Path) -> None:
    """Give a folder the files a v2 group has."""
    path.mkdir(parents=True, exist_ok=True)
    for file, text in {
        "cgroup.controllers": "cpuset cpu io memory pids\n",
        "cgroup.subtree_control": "",
        "cgroup.procs": "",
        "cpu.max": "max 100000\n",
        "cpu.weight": "100\n",
        "memory.max": "max\n",
        "memory.swap.max": "max\n",
        "pids.max": "max\n",
        "cgroup.freeze": "0\n",
        "cpu.stat": "usage_usec 2500\nuser_usec 1\nsystem_usec 1\nnr_periods 0\nnr_throttled 3\nthrottled_usec 7\n",
        "memory.current": "1000\n",
        "memory.stat": "anon 300\nfile 500\ninactive_file 400\npgfault 11\npgmajfault 2\n",
        "pids.current": "4\n",
        "memory.events": "low 0\nhigh 0\nmax 0\noom 1\noom_kill 1\n",
    }.items():
        (path / file).write_text(text)


@pytest.fixture
def v2(tmp_path: Path) -> Cgroups:
    for part in ("", "nanokube", "nanokube/demo", "nanokube/demo/pod"):
        v2_folder(tmp_path / part)
    return Cgroups(Layout({}, str(tmp_path), frozenset({"cpu", "memory", "pids"})))


def test_v2_hands_controllers_down_but_not_to_the_leaf(v2: Cgroups, tmp_path: Path) -> None:
    v2.create("nanokube/demo/pod", Limits(cpu_quota_us=20000, memory_bytes=4096, memory_swap_bytes=4096, pids=9))
    assert (tmp_path / "nanokube/demo/cgroup.subtree_control").read_text() != ""
    leaf = tmp_path / "nanokube/demo/pod"
    assert (leaf / "cgroup.subtree_control").read_text() == ""
    assert (leaf / "cpu.max").read_text().startswith("20000 100000")
    assert (leaf / "memory.max").read_text().startswith("4096")
    assert (leaf / "memory.swap.max").read_text().startswith("0")
    assert (leaf / "pids.max").read_text().startswith("9")


def test_v2_sample(v2: Cgroups) -> None:
    sampler = v2.sampler("nanokube/demo/pod")
    sample = sampler.sample()
    sampler.close()
    assert (sample.cpu_ns, sample.memory, sample.working_set, sample.rss) == (2_500_000, 1000, 600, 300)
    assert (sample.pids, sample.oom_kills, sample.throttled, sample.throttled_ns) == (4, 1, 3, 7000)
    assert (sample.page_faults, sample.major_page_faults) == (11, 2)


def test_v2_freeze(v2: Cgroups, tmp_path: Path) -> None:
    v2.freeze("nanokube/demo")
    assert (tmp_path / "nanokube/demo/cgroup.freeze").read_text().startswith("1")
    v2.thaw("nanokube/demo")
    assert (tmp_path / "nanokube/demo/cgroup.freeze").read_text().startswith("0")


def test_only_an_empty_group_is_removed(tmp_path: Path) -> None:
    (tmp_path / "memory/nanokube/demo").mkdir(parents=True)
    (tmp_path / "cpu/nanokube").mkdir(parents=True)
    mounts = {kind: str(tmp_path / kind) for kind in ("memory", "cpu", "pids")}
    Cgroups(Layout(mounts)).remove_if_empty("nanokube")
    assert (tmp_path / "memory/nanokube/demo").exists()
    assert not (tmp_path / "cpu/nanokube").exists()


def test_flat_file_with_odd_tail_is_no_crash() -> None:
    assert parse_flat(b"a 1\nb 2\nc") == {b"a": 1, b"b": 2}


@pytest.mark.skipif(os.geteuid() != 0, reason="makes real control groups")
def test_real_group_lives_and_dies() -> None:
    groups = Cgroups()
    if groups.layout.mode == "none":
        pytest.skip("no control groups here")
    name = f"nanokube-test-{os.getpid()}"
    process = subprocess.Popen(["sleep", "60"])
    try:
        groups.create(f"{name}/a", Limits(memory_bytes=64 << 20, cpu_quota_us=50000, pids=20))
        groups.update(f"{name}/a", Limits(memory_bytes=128 << 20, memory_swap_bytes=128 << 20))
        groups.update(f"{name}/a", Limits(memory_bytes=32 << 20, memory_swap_bytes=32 << 20))
        groups.attach(f"{name}/a", process.pid)
        assert groups.processes(name) == [process.pid]
        sampler = groups.sampler(f"{name}/a")
        assert sampler.sample().pids == 1
        sampler.close()
        groups.freeze(name)
        assert not groups.try_remove(name)
        assert groups.kill(name)
        assert process.wait(timeout=5) == -9
    finally:
        process.kill()
        process.wait()
        assert groups.remove(name)
    assert not groups.exists(name)


def _real_v2() -> str | None:
    with Path("/proc/self/mountinfo").open() as lines:
        point = parse_layout(lines).v2
    return point if point and os.geteuid() == 0 and os.access(point, os.W_OK) else None


@pytest.mark.skipif(_real_v2() is None, reason="needs root and a mounted v2 hierarchy")
def test_a_real_v2_group_killed_while_frozen_serves_again() -> None:
    """`node freeze`, `node kill`, `node start`: what is attached after that must run, not hang in a frozen group."""
    cgroups, name = Cgroups(Layout({}, _real_v2(), frozenset({"memory"}))), f"nanokube-test-{os.getpid()}"
    for folder in (name, f"{name}/inner"):
        os.mkdir(f"{_real_v2()}/{folder}")
    try:
        victim = subprocess.Popen(["sleep", "60"])
        cgroups.attach(f"{name}/inner", victim.pid)
        cgroups.freeze(name)
        assert cgroups.kill(name)
        assert victim.wait(5) == -9
        later = subprocess.Popen(["sh", "-c", "read line; exit 7"], stdin=subprocess.PIPE)
        cgroups.attach(f"{name}/inner", later.pid)
        later.communicate(b"go\n", timeout=5)
        assert later.returncode == 7
    finally:
        cgroups.thaw(name)
        cgroups.kill(name)
        assert cgroups.remove(name)
