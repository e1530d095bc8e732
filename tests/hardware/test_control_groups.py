"""Limits of control groups, read from trees of files as kernels, schedulers and containers leave them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from batchscope.hardware.control_groups import kills, limits
from batchscope.hardware.host_memory import available_bytes, total_bytes

MIB = 2**20
UNLIMITED = 9223372036854771712
V1 = "35 31 0:32 {root} {at} rw,relatime shared:9 - cgroup cgroup rw,memory"
V2 = "41 31 0:38 {root} {at} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"


@dataclass(frozen=True, kw_only=True)
class Tree:
    """What the kernel shows, and the limits and uses (MiB) that hold the process."""

    group: str
    mounts: tuple[str, ...] = ()
    files: Mapping[str, object] = field(default_factory=dict[str, object])
    seen: tuple[tuple[int, int], ...] = ()


TREES = {
    "version 2, a scope below a slice": Tree(
        group="0::/user.slice/user-1.slice/run-r1.scope\n",
        mounts=(V2.format(root="/", at="/sys/fs/cgroup"),),
        files={
            "sys/fs/cgroup/user.slice/user-1.slice/run-r1.scope/memory.max": 300 * MIB,
            "sys/fs/cgroup/user.slice/user-1.slice/run-r1.scope/memory.current": 100 * MIB,
            "sys/fs/cgroup/user.slice/user-1.slice/memory.max": "max\n",
            "sys/fs/cgroup/user.slice/memory.max": 500 * MIB,
            "sys/fs/cgroup/user.slice/memory.current": 400 * MIB,
        },
        seen=((300, 100), (500, 400)),
    ),
    "version 2, slowed down before the limit": Tree(
        group="0::/job\n",
        mounts=(V2.format(root="/", at="/sys/fs/cgroup"),),
        files={
            "sys/fs/cgroup/job/memory.max": 900 * MIB,
            "sys/fs/cgroup/job/memory.high": 700 * MIB,
            "sys/fs/cgroup/job/memory.current": 100 * MIB,
        },
        seen=((900, 100), (700, 100)),
    ),
    "version 2, mounted elsewhere": Tree(
        group="0::/job\n",
        mounts=(V2.format(root="/", at="/my\\040groups"),),
        files={"my groups/job/memory.max": 9 * MIB, "my groups/job/memory.current": 2 * MIB},
        seen=((9, 2),),
    ),
    "version 2, in a container that sees its own path from outside": Tree(
        group="0::/docker/abc\n",
        mounts=(V2.format(root="/docker/abc", at="/sys/fs/cgroup"),),
        files={"sys/fs/cgroup/memory.max": 8 * MIB, "sys/fs/cgroup/memory.current": MIB},
        seen=((8, 1),),
    ),
    "version 2, a group inside a container": Tree(
        group="0::/docker/abc/inner\n",
        mounts=(V2.format(root="/docker/abc", at="/sys/fs/cgroup"),),
        files={"sys/fs/cgroup/inner/memory.max": 6 * MIB, "sys/fs/cgroup/inner/memory.current": MIB},
        seen=((6, 1),),
    ),
    "version 2, in a name space of its own": Tree(
        group="0::/\n",
        mounts=(V2.format(root="/", at="/sys/fs/cgroup"),),
        files={"sys/fs/cgroup/memory.max": 8 * MIB, "sys/fs/cgroup/memory.current": 3 * MIB},
        seen=((8, 3),),
    ),
    "version 2, outside its name space": Tree(
        group="0::/../other\n",
        mounts=(V2.format(root="/..", at="/sys/fs/cgroup"),),
        files={"sys/fs/cgroup/memory.max": 8 * MIB, "sys/fs/cgroup/memory.current": 3 * MIB},
        seen=((8, 3),),
    ),
    "version 1, a scheduler's step in a job": Tree(
        group="11:cpu,cpuacct:/slurm/uid_1/job_2\n9:memory:/slurm/uid_1/job_2/step_0\n0::/\n",
        mounts=(V1.format(root="/", at="/sys/fs/cgroup/memory"), V2.format(root="/", at="/sys/fs/cgroup/unified")),
        files={
            "sys/fs/cgroup/memory/slurm/uid_1/job_2/step_0/memory.limit_in_bytes": UNLIMITED,
            "sys/fs/cgroup/memory/slurm/uid_1/job_2/step_0/memory.usage_in_bytes": 20 * MIB,
            "sys/fs/cgroup/memory/slurm/uid_1/job_2/memory.limit_in_bytes": 70 * MIB,
            "sys/fs/cgroup/memory/slurm/uid_1/job_2/memory.usage_in_bytes": 30 * MIB,
        },
        seen=((70, 30),),
    ),
    "version 1, a limit above what a container sees": Tree(
        group="9:memory:/docker/abc\n",
        mounts=(V1.format(root="/docker/abc", at="/sys/fs/cgroup/memory"),),
        files={
            "sys/fs/cgroup/memory/memory.limit_in_bytes": UNLIMITED,
            "sys/fs/cgroup/memory/memory.usage_in_bytes": 5 * MIB,
            "sys/fs/cgroup/memory/memory.stat": f"cache 4096\nhierarchical_memory_limit {40 * MIB}\n",
        },
        seen=((40, 5),),
    ),
    "version 1, with swap": Tree(
        group="9:memory:/job\n",
        mounts=(V1.format(root="/", at="/sys/fs/cgroup/memory"),),
        files={
            "sys/fs/cgroup/memory/job/memory.limit_in_bytes": 50 * MIB,
            "sys/fs/cgroup/memory/job/memory.usage_in_bytes": 10 * MIB,
            "sys/fs/cgroup/memory/job/memory.memsw.limit_in_bytes": 60 * MIB,
            "sys/fs/cgroup/memory/job/memory.memsw.usage_in_bytes": 45 * MIB,
        },
        seen=((50, 10), (60, 45)),
    ),
    "mixed, memory in version 2": Tree(
        group="5:cpu:/\n0::/job\n",
        mounts=(
            "33 31 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu",
            V2.format(root="/", at="/sys/fs/cgroup/unified"),
        ),
        files={
            "sys/fs/cgroup/unified/job/memory.max": 12 * MIB,
            "sys/fs/cgroup/unified/job/memory.current": 2 * MIB,
        },
        seen=((12, 2),),
    ),
    "no limit": Tree(
        group="0::/job\n",
        mounts=(V2.format(root="/", at="/sys/fs/cgroup"),),
        files={"sys/fs/cgroup/job/memory.max": "max", "sys/fs/cgroup/job/memory.current": MIB},
    ),
    "no control groups": Tree(group=""),
    "broken lines": Tree(
        group="garbage\n\n1:\n",
        mounts=("", "1 2", "1 2 3:4 / /x rw - cgroup2"),
        files={"sys/fs/cgroup/memory.max": "12x"},
    ),
}


def made(root: Path, tree: Tree) -> Path:
    files = {"proc/self/cgroup": tree.group, "proc/self/mountinfo": "\n".join(tree.mounts), **tree.files}
    files["proc/meminfo"] = f"MemAvailable: {2**30} kB\n"
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(str(content))
    return root


@pytest.mark.parametrize("tree", TREES.values(), ids=list(TREES))
def test_limits_of_the_own_group_and_those_above(tmp_path: Path, tree: Tree) -> None:
    root = made(tmp_path, tree)
    found = [(limit.limit_bytes // MIB, limit.used_bytes // MIB) for limit in limits(root)]
    assert sorted(found) == sorted(tree.seen)
    if tree.seen:
        assert available_bytes(root) == min(limit - used for limit, used in tree.seen) * MIB
        assert total_bytes(root) == min(limit for limit, _ in tree.seen) * MIB


@pytest.mark.parametrize("version", [1, 2])
def test_what_the_kernel_gives_up_first_counts_as_free(tmp_path: Path, version: int) -> None:
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if version == 1 else ("memory.max", "memory.current")
    before = "total_" if version == 1 else ""
    rows = {"inactive_file": 20 * MIB, "active_file": 8 * MIB, "slab_reclaimable": 4 * MIB, "shmem": 30 * MIB}
    at = "/sys/fs/cgroup"
    mount = (V1 if version == 1 else V2).format(root="/", at=at)
    group = "3:memory:/\n" if version == 1 else "0::/\n"
    stat = "".join(f"{before}{name} {number}\n" for name, number in rows.items())
    files = {f"{at[1:]}/{names[0]}": 100 * MIB, f"{at[1:]}/{names[1]}": 90 * MIB, f"{at[1:]}/memory.stat": stat}
    root = made(tmp_path, Tree(group=group, mounts=(mount,), files=files))
    assert available_bytes(root) == (100 - 90 + 20 + 4 + 2) * MIB


@pytest.mark.parametrize(("version", "file"), [(1, "memory.oom_control"), (2, "memory.events")])
def test_whom_the_kernel_killed_in_the_own_group(tmp_path: Path, version: int, file: str) -> None:
    at = "sys/fs/cgroup"
    mount = (V1 if version == 1 else V2).format(root="/", at=f"/{at}")
    group = "3:memory:/job\n" if version == 1 else "0::/job\n"
    files = {f"{at}/{file}": "oom_kill 9\n", f"{at}/job/{file}": "oom_kill_disable 0\noom 5\noom_kill 2\n"}
    assert kills(made(tmp_path / "told", Tree(group=group, mounts=(mount,), files=files))) == (
        str(tmp_path / "told" / at / "job"),
        2,
    )
    assert kills(made(tmp_path / "silent", Tree(group=group, mounts=(mount,)))) is None
