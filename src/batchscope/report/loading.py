"""How long a step waits for its data, in words: terminal, page and message share the sentence."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..fits.step_time import step_time_of
from ..store.records import Bench
from ..wording import count, duration, percent, plural, times

__all__ = ["loader_arguments", "loader_in_words", "waiting_in_words"]


def loader_arguments(options: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Arguments of `DataLoader` and their values as Python.

    What cannot be written as a literal (a function, a context of processes) is left out.
    """
    plain = {name: value for name, value in options.items() if isinstance(value, bool | int | float | str)}
    return [(name, json.dumps(value) if isinstance(value, str) else repr(value)) for name, value in plain.items()]


def loader_in_words(bench: Bench | None) -> str:
    """Remark on the loader that the step time holds for; empty where torch's defaults load at that pace."""
    arguments = ", ".join(f"{name}={value}" for name, value in loader_arguments(bench.loader_options if bench else {}))
    if not arguments:
        return ""
    return f"step times hold for a loader with {arguments}, whose workers start once in a training"


def waiting_in_words(bench: Bench | None, batch_size: int) -> str:
    """Remark on a step that waits for its data: how long, and what would help; empty where computing takes longer.

    Help can bring at most a step whose batch is there. How long that takes is known where loading and computing were
    timed apart.
    """
    if bench is None or not bench.profile.step_time_s:
        return ""
    step_time = step_time_of(bench)
    if step_time.binds(batch_size) != "loading":
        return ""
    sizes = [size for size, _ in bench.profile.step_time_s if size <= batch_size and step_time.binds(size) == "loading"]
    since = f" from batch size {count(sizes[0])} on" if sizes and sizes[0] < batch_size else ""
    whole, (compute, loading) = step_time.of_batch(batch_size), step_time.parts_of_batch(batch_size)
    workers = f" with {plural(bench.loader_workers, 'loader worker')}" if bench.loader_workers else ""
    step = (
        f"loading sets the time of a step{since}: at batch size {count(batch_size)} it takes {duration(whole)}{workers}"
    )
    means = f"{'more' if workers else 'loader'} workers, caching prepared examples, or a smaller batch would help"
    if step_time.loading_is == "included":
        return f"{step}, and loading its batch {duration(loading)}; {means}"
    return (
        f"{step}, {percent(1 - compute / whole)} of it waiting for data; {means}, by {times(whole / compute)} at most "
        f"(computing takes {duration(compute)})"
    )
