"""Control groups of this process that limit memory, as the kernel tells of them (Linux; versions 1 and 2, and mixed).

`/proc/self/mountinfo` says where a hierarchy of groups is mounted, and which group is the root of that mount;
`/proc/self/cgroup` says which group the process is in. Schedulers, service managers and containers set the limit at the
process's own group or at any above it, so all of them up to the root of the mount are read. A container may see no
group but its own, under a path that does not exist in there: then the root of the mount is that group.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

__all__ = ["Limit", "kills", "limits"]

_UNLIMITED = 2**60
"""Bytes from which on a figure of version 1 means that there is no limit."""
_FILES = (
    ("memory.max", "memory.current"),
    ("memory.high", "memory.current"),  # beyond it the kernel slows the group down until it stands still
    ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    ("memory.memsw.limit_in_bytes", "memory.memsw.usage_in_bytes"),  # swap included
)
_ABOVE = "hierarchical_memory_limit"
"""Row of version 1: the least limit of the group and those above it, which may lie outside the mount."""
_ESCAPED = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, kw_only=True)
class Limit:
    """One limit on the memory of a control group."""

    limit_bytes: int
    used_bytes: int
    """What the group takes, without what the kernel gives up first."""

    @property
    def free_bytes(self) -> int:
        """What the group may still take; negative beyond the limit."""
        return self.limit_bytes - self.used_bytes


@dataclass(frozen=True, kw_only=True)
class _Mount:
    """A hierarchy of groups where it can be read."""

    folder: Path
    root: PurePosixPath
    """The group at `folder`."""
    version: int


def limits(root: Path) -> Iterator[Limit]:
    """Every limit that holds this process, in its own control group and those above it.

    Args:
        root: of the file system in which the kernel says so.
    """
    for folder in _folders(root):
        rows = _table(folder / "memory.stat")
        reclaimable = _reclaimable(rows)
        for most, now in _FILES:
            limit, used = _number(folder / most), _number(folder / now)
            if limit is not None and used is not None and limit < _UNLIMITED:
                yield Limit(limit_bytes=limit, used_bytes=max(0, used - min(reclaimable, used)))
        above, used = rows.get(_ABOVE, _UNLIMITED), _number(folder / "memory.usage_in_bytes")
        if above < _UNLIMITED and used is not None:
            yield Limit(limit_bytes=above, used_bytes=max(0, used - min(reclaimable, used)))


def kills(root: Path) -> tuple[str, int] | None:
    """This process's own control group, and how many of its processes the kernel killed for want of memory.

    Args:
        root: of the file system in which the kernel says so.

    Returns:
        The group's folder and the count; `None`: the kernel keeps none.
    """
    for folder in _own_folders(root):
        for file in ("memory.events", "memory.oom_control"):  # of version 2, of version 1
            count = _table(folder / file).get("oom_kill")
            if count is not None:
                return str(folder), count
    return None


def _reclaimable(rows: dict[str, int]) -> int:
    """Bytes of a group that the kernel gives up before it kills: cached files, and half of those in use.

    Half is what `MemAvailable` counts of a cache: programs run from the other half.
    """

    def of(name: str) -> int:
        return rows.get(f"total_{name}", rows.get(name, 0))  # version 1 has its subgroups under `total_`

    return of("inactive_file") + (of("active_file") + of("slab_reclaimable")) // 2


def _folders(root: Path) -> list[Path]:
    """Folders of this process's groups and of those above them, each once; the process's own come first."""
    found = dict[Path, None]()
    for mount, inside in _own_places(root):
        found |= dict.fromkeys(mount.folder / part for part in (inside, *inside.parents))
    return list(found)


def _own_folders(root: Path) -> list[Path]:
    """Folders of this process's own groups, without those above them."""
    return [mount.folder / inside for mount, inside in _own_places(root)]


def _own_places(root: Path) -> Iterator[tuple[_Mount, PurePosixPath]]:
    """Every hierarchy, with the path of this process's group in it."""
    own = _own_groups(root)
    for mount in _mounts(root):
        yield mount, _inside(own.get(mount.version, PurePosixPath("/")), mount.root)


def _inside(group: PurePosixPath, top: PurePosixPath) -> PurePosixPath:
    """Path of a group below the root of a mount; the root itself where the group lies outside, as in a container."""
    if ".." in group.parts or ".." in top.parts or not group.is_relative_to(top):
        return PurePosixPath()
    return group.relative_to(top)


def _own_groups(root: Path) -> dict[int, PurePosixPath]:
    """Group of this process by the version of the hierarchy, of those that can limit memory."""
    found: dict[int, PurePosixPath] = {}
    for line in _lines(root / "proc/self/cgroup"):
        number, _, rest = line.partition(":")
        controllers, _, name = rest.partition(":")
        if number == "0" and not controllers:
            found[2] = PurePosixPath(name or "/")
        elif "memory" in controllers.split(","):
            found[1] = PurePosixPath(name or "/")
    return found


def _mounts(root: Path) -> Iterator[_Mount]:
    """Hierarchies that may limit memory; where the kernel lists none, the places in which they usually are."""
    seen = False
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or len(kind) < 3 or kind[0] not in ("cgroup", "cgroup2"):
            continue
        version = 2 if kind[0] == "cgroup2" else 1
        if version == 1 and "memory" not in kind[-1].split(","):
            continue
        seen = True
        top, where = (_ESCAPED.sub(lambda code: chr(int(code[1], 8)), part) for part in fields[3:5])
        yield _Mount(folder=root / where.lstrip("/"), root=PurePosixPath(top), version=version)
    if not seen:
        usual = root / "sys/fs/cgroup"
        yield _Mount(folder=usual, root=PurePosixPath("/"), version=2)
        yield _Mount(folder=usual / "memory", root=PurePosixPath("/"), version=1)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []


def _number(path: Path) -> int | None:
    """Bytes in a file; `None` where there is none, or no limit (`max`)."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _table(path: Path) -> dict[str, int]:
    """Rows of a file whose value is a number."""
    rows = (line.split() for line in _lines(path))
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdecimal()}
