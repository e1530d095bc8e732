"""Number of threads to take a step with, at any micro-batch size, from those at which steps were timed."""

from __future__ import annotations

from ..store.records import Bench

__all__ = ["num_threads_at"]


def num_threads_at(bench: Bench, micro_batch_size: int) -> int | None:
    """Threads of the smallest measured size at or above; beyond the largest, those of the largest.

    `None` where the bench does not say: steps do not run on a CPU, or it is a profile without that member.

    Example:
        >>> from batchscope.store.records import HardwareProfile, Reading
        >>> readings = [Reading(micro_batch_size=m, step_time_s=1.0, num_threads=n) for m, n in ((8, 1), (64, 2))]
        >>> bench = Bench(
        ...     profile=HardwareProfile(name="A", step_time_s=()),
        ...     readings=tuple(readings),
        ...     split=None,
        ...     largest_micro_batch_size=64,
        ...     largest_verified=True,
        ... )
        >>> [num_threads_at(bench, size) for size in (1, 8, 9, 64, 100)]
        [1, 1, 2, 2, 2]
    """
    known = sorted((r.micro_batch_size, r.num_threads) for r in bench.readings if r.num_threads is not None)
    above = (threads for size, threads in known if size >= micro_batch_size)
    return next(above, known[-1][1] if known else None)
