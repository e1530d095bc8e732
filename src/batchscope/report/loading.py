"""How long a step waits for its data, in words: terminal, page and message share the sentence."""

from __future__ import annotations

from ..fits.step_time import step_time_of
from ..store.records import Bench
from ..wording import count, duration, percent, times

__all__ = ["waiting_in_words"]


def waiting_in_words(bench: Bench | None, batch_size: int) -> str:
    """Remark on a step that waits for its data: how long, and what would help; empty where computing takes longer.

    Help can bring at most a step whose batch is there. How long that takes is known where loading and computing were
    timed apart.
    """
    if (
        bench is None
        or not bench.profile.step_time_s
        or (step_time := step_time_of(bench)).binds(batch_size) != "loading"
    ):
        return ""
    whole, (compute, loading) = step_time.of_batch(batch_size), step_time.parts_of_batch(batch_size)
    step = f"a step of batch size {count(batch_size)} takes {duration(whole)}"
    workers = f"more loader workers than {bench.loader_workers}" if bench.loader_workers else "loader workers"
    help_ = f"{workers}, caching prepared examples or a smaller batch would help"
    if step_time.loading_is == "included":
        return f"loading the data sets the time of a step: {step}, and loading its batch {duration(loading)}; {help_}"
    return (
        f"loading the data sets the time of a step: {step}, {percent(1 - compute / whole)} of it waiting; {help_}, at "
        f"most {times(whole / compute)}, down to the {duration(compute)} of computing"
    )
