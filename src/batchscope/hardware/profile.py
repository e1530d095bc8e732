"""Hardware profiles: a device's step time and memory in a file, so that a search here can answer for another machine.

```
{"name": "A100", "step_time_s": [[micro_batch_size, seconds], ...],
 "peak_memory_bytes": [[micro_batch_size, bytes], ...], "capacity_bytes": 85899345920,
 "loading_time_s": [[micro_batch_size, seconds], ...], "num_threads": [[micro_batch_size, threads], ...]}
```

The memory members may be left out, `loading_time_s`, `num_threads` and `schema` too. A step time is that of a whole
step, the next batch from the loader included; `loading_time_s` says how long the loader takes for it, and is not added.
A profile holds for the model it was measured with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from ..errors import ProfileError, StoreError, UsageError
from ..fits.memory import HEADROOM, fit_memory
from ..store.codec import decode
from ..store.files import read_json, write_json
from ..store.quantities import whole_number
from ..store.records import SCHEMA, Bench, HardwareProfile, Reading
from ..wording import bytes_

__all__ = ["bench_from_profile", "load_profile", "save_profile"]

_EXPECTED = "--hardware expects a hardware profile, a file that `batchscope bench TASK --save FILE` writes"

_LARGEST_SMALLEST = 4
"""A bench begins at 1, 2 or 4 examples; a table that begins higher was not begun at the smallest size that runs."""


def save_profile(profile: HardwareProfile, path: str | Path) -> None:
    """Write a profile; a file that stood there is replaced whole or not at all.

    Raises:
        StoreError: the file cannot be written.
    """
    write_json(Path(path), profile)


def load_profile(path: str | Path) -> HardwareProfile:
    """Read a profile and check every number in it.

    Raises:
        ProfileError: the file cannot be read, is truncated, is of another schema, or holds impossible numbers.
    """
    try:
        data = read_json(Path(path), advice=_EXPECTED)
    except StoreError as error:
        raise ProfileError(f"the profile cannot be read: {error}") from error
    if isinstance(data, dict) and data.get("schema", SCHEMA) != SCHEMA:
        raise ProfileError(
            f"the profile {path} has schema {data['schema']!r}, and this version reads {SCHEMA}; "
            "make it again with bench --save"
        )
    try:
        profile = decode(HardwareProfile, data, where="profile")
    except ValueError as error:
        raise ProfileError(f"the profile {path} cannot be used: {error}; {_EXPECTED}") from error
    try:
        _check(profile)
    except ValueError as error:
        raise ProfileError(f"the profile {path} cannot be used: {error}") from error
    return profile


def bench_from_profile(
    profile: HardwareProfile,
    *,
    examples: int,
    max_batch_size: int | None = None,
    memory_limit: int | None = None,
) -> Bench:
    """Bench that the profile's machine would have.

    Args:
        profile: of that machine, measured with this model.
        examples: in the training set.
        max_batch_size: no larger micro-batch is considered.
        memory_limit: bytes; default: the profile's capacity.

    Returns:
        The bench. Where the profile has no memory table or no capacity, memory sets no limit, and a note says so.

    Raises:
        UsageError: not even the smallest micro-batch fits, or a limit is not positive.
    """
    for name, value in (("--max-batch-size", max_batch_size), ("--memory-limit", memory_limit)):
        if value is not None:
            whole_number(value, name)
    top = min(examples, max_batch_size or examples)
    limits = [value for value in (profile.capacity_bytes, memory_limit) if value is not None]
    limit = min(limits, default=None)
    largest, verified, notes = top, False, [f"step time and memory are those of the profile {profile.name!r}"]
    if limit is None or not profile.peak_memory_bytes:
        notes.append("the profile has no memory table or no capacity: whether a micro-batch fits is not known")
    else:
        usable = limit * (1.0 - HEADROOM)
        largest = fit_memory(profile.peak_memory_bytes).largest_for(usable, most=top)
        run = {size for size, peak in profile.peak_memory_bytes if peak <= usable}
        verified = largest in run
        if largest < 1:
            size, peak = profile.peak_memory_bytes[0]
            raise UsageError(
                f"not even one example fits on {profile.name}: a step of {size} needs {bytes_(peak)}, and of the "
                f"limit of {bytes_(limit)} {HEADROOM:.0%} stay free; use a smaller model or raise --memory-limit"
            )
        if largest > (reached := max(run, default=0)):
            notes.append(f"the memory of {largest} examples is predicted from steps of up to {reached} examples")
    first = profile.step_time_s[0][0]
    return Bench(
        profile=profile,
        readings=_readings(profile),
        split=None,
        largest_micro_batch_size=largest,
        largest_verified=verified,
        smallest_micro_batch_size=first if first <= min(_LARGEST_SMALLEST, largest) else 1,
        limit_bytes=limit,
        memory_bound=largest < top,
        notes=tuple(notes),
    )


def _readings(profile: HardwareProfile) -> tuple[Reading, ...]:
    times, peaks, loading = (
        dict(table) for table in (profile.step_time_s, profile.peak_memory_bytes, profile.loading_time_s)
    )
    threads = dict(profile.num_threads)
    method = f"profile {profile.name}"
    return tuple(
        Reading(
            micro_batch_size=size,
            step_time_s=times.get(size),
            loading_time_s=loading.get(size),
            num_threads=threads.get(size),
            peak_memory_bytes=round(peaks[size]) if size in peaks else None,
            memory_method=method if size in peaks else "",
        )
        for size in sorted({*times, *peaks, *loading, *threads})
    )


def _check(profile: HardwareProfile) -> None:
    """Refuse numbers that no measurement gives.

    Raises:
        ValueError: names the table, the row, and what would be right.
    """
    if not profile.step_time_s:
        raise ValueError("step_time_s is empty; give at least one [micro_batch_size, seconds]")
    _check_table("step_time_s", profile.step_time_s, "seconds")
    _check_table("peak_memory_bytes", profile.peak_memory_bytes, "bytes")
    _check_table("loading_time_s", profile.loading_time_s, "seconds")
    _check_table("num_threads", profile.num_threads, "threads")
    if profile.capacity_bytes is not None and profile.capacity_bytes < 1:
        raise ValueError(
            f"capacity_bytes is {profile.capacity_bytes}; give a positive number, or null where it is unknown"
        )


def _check_table(name: str, table: Sequence[tuple[int, float]], unit: str) -> None:
    before = 0
    for row, (size, value) in enumerate(table):
        if size <= before:
            raise ValueError(
                f"{name}[{row}] has micro-batch size {size} after {before}; sizes must be at least 1 and increase"
            )
        if not math.isfinite(value) or value <= 0:
            raise ValueError(f"{name}[{row}] has {value} {unit}; give a positive finite number")
        before = size
