"""What killed a process before is not tried in the same way again; the deaths are those of the results folder.

A process that dies leaves the note of what it was at (`store.attempts`). Where the kernel killed nothing for want of
memory meanwhile, it may have been killed from outside: the next command does what it was at, and all steps whose memory
is measured, in a copy of itself first (`forked_trial`), if it can be copied. What follows, by what killed:

    a step whose memory is measured    no larger step than the largest that had gone well, or goes well in a copy
    the timing of steps                half as many examples, where another measurement is refused
    another measurement                refused where its copy dies; without a copy where the kernel killed for want of
                                       memory, else after the second death, the fourth where the kernel is known to
                                       have killed nothing
    a run whose memory grew            refused after the second death at about the same place, and the leak named
    another run                        refused where the kernel killed for want of memory, else after the second death
                                       at the same place, the third where the kernel is known to have killed nothing

A run that is refused counts as one that did not fit: a search goes on with smaller micro-batches. A death no longer
counts once half as much memory again is free as when it was tried.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from ..errors import OutOfMemory, TaskError
from ..hardware.control_groups import kills
from ..hardware.device import Device
from ..hardware.trying import STEP, STEP_TIMES
from ..store.attempts import Attempt, Growth
from ..store.records import RunConfig
from ..store.runs import Store
from ..wording import plural
from .forked_trial import CopyDied, can_be_copied, first_in_a_copy
from .memory_growth import MemoryGrowth, growth_in_words, is_leak

__all__ = ["CHECK", "CONSTANT", "Trials"]

_MORE_MEMORY = 1.5
_SAME_PLACE, _SAME_STEPS, _NEAR_STEPS = 0.25, 0.05, 64
"""Shares by which the places of two deaths may differ, with a growth of the memory and without; steps that always may:
not each is written down."""
_MOST_FROM_OUTSIDE = 3
"""Deaths for which the kernel had no reason that are taken for somebody else's doing."""
_LEAK_SHARE = 0.25
"""Share of the memory that was free by which it must have grown, for the growth to be why it ran out."""
_ROOT = Path("/")
_RUN, CHECK, CONSTANT = "a run", "the check of the task", "the evaluation of a constant prediction"
_COPIED = (CHECK, CONSTANT)
"""Measurements, beside steps, that a copy of the process can do: they change no number of threads."""
_KEEPS = (
    "something is kept that should be let go: losses or outputs with their graphs (keep loss.item() or "
    "tensor.detach()), a list that every call appends to, a cache of examples"
)


class Trials:
    """What is tried on a device, with the deaths of a results folder in view.

    Args:
        store: of the folder; `None`: nothing is written down, and nothing known.
        device: whose memory it takes.
    """

    def __init__(self, store: Store | None, device: Device) -> None:
        self._store, self._device = store, device
        if store is not None and (own := kills(_ROOT)) is not None:
            store.attempts.settle(*own)

    def __call__(self, what: str, micro_batch_size: int, survived: int = 0) -> AbstractContextManager[object]:
        """Announce a part of a bench; see `hardware.trying`. Its deaths are looked at before, in `most`."""
        attempt = Attempt(what=what, micro_batch_size=micro_batch_size, survived=survived)
        return self._in_a_copy_first(attempt) if what == STEP else self._tried(attempt)

    @property
    def most(self) -> int | None:
        """The largest micro-batch that a bench may try; `None`: all that are thought to fit."""
        steps = [death.survived or 0 for death in self._steps_that_kill()]
        timed = self._deaths(STEP_TIMES)
        halved = [(death.micro_batch_size or 1) // 2 for death in timed] if _counts(timed) else []
        return min([*steps, *halved], default=None)

    def _steps_that_kill(self) -> list[Attempt]:
        """Deaths in steps that are not tried again, not even in a copy."""
        deaths = self._deaths(STEP)
        from_outside = [death for death in deaths if death.killed is False]
        if can_be_copied(self._device) or len(from_outside) <= _MOST_FROM_OUTSIDE:
            return [death for death in deaths if death.killed is not False]
        return deaths

    @property
    def most_unproven(self) -> int | None:
        """The largest micro-batch to take where larger ones are not tried; `None`: no step killed."""
        return min([death.survived or 1 for death in self._deaths(STEP)], default=None)

    def note(self, bench: str = "bench") -> str:
        """Sentence on why a bench ends below what may fit; empty where it does not.

        Args:
            bench: name of the file that keeps it.
        """
        if self._store is None:
            return ""
        if self.most is not None:
            deaths = [*self._deaths(STEP), *self._deaths(STEP_TIMES)]
        else:
            deaths = [d for d in self._store.attempts.deaths if d.what != _RUN and self._may_be_copied(d)]
        if not deaths:
            return ""
        death = min(deaths, key=lambda death: (death.what != STEP, death.micro_batch_size or 0))
        of = f" of {plural(death.micro_batch_size, 'example')}" if death.micro_batch_size else ""
        if self.most is None:
            begins = "each step is tried in a copy of the process first"
        else:
            begins = f"no more than {plural(self.most, 'example')} at once are tried"
        return (
            f"an earlier command died in {death.what}{of}{_killer(deaths)}: {begins} (to try as much as before, remove "
            f"{self._store.attempts.file} and {bench}.json beside it)"
        )

    def refuse_all(self, smallest: int = 1) -> None:
        """Refuse a bench of which no step is left that may be tried.

        Args:
            smallest: micro-batch that the model can be trained with.

        Raises:
            OutOfMemory: even the smallest step killed a process, or the timing of it.
        """
        if self.most is not None and self.most < smallest:
            steps = [death for death in self._steps_that_kill() if (death.survived or 0) < smallest]
            raise self._refusal(STEP if steps else STEP_TIMES, steps or self._deaths(STEP_TIMES))

    def refusal(self, what: str, *, kept: str = "") -> OutOfMemory | None:
        """Why `of` would refuse a measurement without trying it; `None`: it would not.

        Args:
            what: in words.
            kept: name of the file, beside the deaths, in which the refusal will stand.
        """
        deaths = self._deaths(what)
        return self._refusal(what, deaths, kept) if _counts(deaths) else None

    @contextmanager
    def of(self, what: str, micro_batch_size: int | None = None, *, run: str = "") -> Generator[None]:
        """Try something that is not to be tried where it killed before.

        Args:
            what: in words.
            micro_batch_size: examples at once; `None`: smaller ones are no way out.
            run: id of the run that it belongs to.

        Raises:
            OutOfMemory: it killed a process before.
        """
        attempt = Attempt(what=what, micro_batch_size=micro_batch_size, run=run)
        deaths = self._deaths(what, micro_batch_size, run)
        if what in _COPIED and all(map(self._may_be_copied, deaths)):
            with self._in_a_copy_first(attempt):
                yield
            return
        if _counts(deaths):
            raise self._refusal(what, deaths)
        with self._tried(attempt):
            yield

    @contextmanager
    def _tried(self, attempt: Attempt) -> Generator[None]:
        with self._announced(attempt):
            yield
        self._came_through(attempt)

    @contextmanager
    def _in_a_copy_first(self, attempt: Attempt) -> Generator[None]:
        """Try something, in a copy of this process first where one died that may have died of it.

        Raises:
            OutOfMemory: the copy died.
        """
        copied = self._store is not None and any(map(self._may_be_copied, self._store.attempts.deaths))
        try:
            with self._announced(attempt), first_in_a_copy() if copied else nullcontext():
                yield
        except CopyDied as error:
            raise self._refusal(attempt.what, [attempt]) from error
        self._came_through(attempt)

    @contextmanager
    def of_run(self, name: str, config: RunConfig, watch: MemoryGrowth | None = None) -> Generator[MemoryGrowth]:
        """Train a run, whose memory is watched by the observer that this yields.

        Args:
            name: id of the run.
            config: of the run.
            watch: the observer that watches it already, where it goes on in memory.

        Raises:
            OutOfMemory: it killed a process before, or did not fit.
            TaskError: memory grew until there was none left, in earlier processes or in this one.
        """
        attempt = Attempt(what=_RUN, micro_batch_size=config.micro_batch_size, run=name)
        deaths = self._deaths(_RUN, config.micro_batch_size, name)
        self._refuse_leak(name, deaths)
        if _counts(deaths, apart=_SAME_STEPS):
            raise self._refusal(f"the run {name}", deaths)
        free = self._device.free_bytes()
        with self._announced(attempt) as announced:
            watch = watch or MemoryGrowth(self._device.taken_bytes, announced.update)
            watch.write = announced.update
            try:
                yield watch
            except OutOfMemory as error:
                growth = watch.growth
                if not is_leak(growth) or growth.grown_bytes < _LEAK_SHARE * free:
                    raise
                raise TaskError(f"{growth_in_words(growth)} of {name}, until none was free: {_KEEPS}") from error
        self._came_through(attempt)

    def _refuse_leak(self, name: str, deaths: Sequence[Attempt]) -> None:
        leaks = [death for death in deaths if is_leak(death.growth)]
        if self._store is None or len(leaks) < 2 or not _alike(leaks[-2], leaks[-1]):
            return
        last = leaks[-1]
        assert last.growth is not None
        raise TaskError(
            f"the process died {_times(deaths)} while it trained {name}, the last time after step {last.step}, and "
            f"{growth_in_words(last.growth)}: {_KEEPS}; correct it, and remove {self._store.attempts.file} to try "
            "the run again"
        )

    def _refusal(self, what: str, deaths: Sequence[Attempt], kept: str = "") -> OutOfMemory:
        last = deaths[-1]
        size = last.micro_batch_size if (last.micro_batch_size or 0) > 1 else None
        of = f" of {plural(last.micro_batch_size, 'example')} at once" if last.micro_batch_size else ""
        file = f"{self._store.attempts.file if self._store else ''}{f' and {kept} beside it' if kept else ''}"
        if last.what != _RUN and all(death.killed is False for death in deaths):
            return OutOfMemory(
                f"{what}{of}: the process ended here {_times(deaths)}, not for want of memory; see what ends it (a "
                f"limit of the machine's, a crash in native code), and remove {file} to try it again"
            )
        return OutOfMemory(
            f"{what}{of} killed the process {_times(deaths)}{_killer(deaths)}; give it more memory, or a task that "
            f"needs less (smaller model, evaluation in smaller parts, fewer loader workers), or remove {file} to try "
            "it again",
            micro_batch_size=size,
        )

    def _deaths(self, what: str, micro_batch_size: int | None = None, run: str = "") -> list[Attempt]:
        """Deaths that count now, oldest first; of all micro-batches where none is given."""
        if self._store is None or not self._store.attempts.deaths:
            return []
        free = self._device.free_bytes()
        return [
            death
            for death in self._store.attempts.deaths
            if death.what == what
            and death.run == run
            and micro_batch_size in (None, death.micro_batch_size)
            and (death.free_bytes is None or free < _MORE_MEMORY * death.free_bytes)
        ]

    def _may_be_copied(self, death: Attempt) -> bool:
        """Whether what killed may be tried in a copy: it need not have been memory."""
        return death.killed is False and can_be_copied(self._device)

    def _announced(self, attempt: Attempt) -> _Announced:
        return _Announced(self._store, replace(attempt, free_bytes=self._device.free_bytes()))

    def _came_through(self, attempt: Attempt) -> None:
        if self._store is not None:
            self._store.attempts.forget(lambda death: _shown_harmless(death, attempt))


class _Announced:
    """An attempt that stands in the folder while it is inside."""

    def __init__(self, store: Store | None, attempt: Attempt) -> None:
        self._store, self._attempt = store, attempt
        self._outer: Attempt | None = None

    def __enter__(self) -> _Announced:
        if self._store is not None:
            self._outer = self._store.attempts.now
            try:
                self._attempt = self._store.attempts.begin(_counted(self._attempt))
            except BaseException:  # a signal too: it may be written already
                self.__exit__()
                raise
        return self

    def __exit__(self, *error: object) -> None:
        if self._store is not None:
            self._store.attempts.end(self._outer and _counted(self._outer))

    def update(self, step: int, growth: Growth) -> None:
        """Write down how far it is."""
        if self._store is not None:
            self._attempt = replace(self._attempt, step=step, growth=growth)
            self._store.attempts.update(self._attempt)


def _counted(attempt: Attempt) -> Attempt:
    """An attempt with what the kernel counts in this process's control group."""
    group, count = kills(_ROOT) or ("", None)
    return replace(attempt, group=group, group_kills=count)


def _shown_harmless(death: Attempt, attempt: Attempt) -> bool:
    """Whether a death is refuted by an attempt that came through: the same, or a step of as many examples or more."""
    if (death.what, death.run) != (attempt.what, attempt.run):
        return False
    if attempt.what in (STEP, STEP_TIMES):
        return (death.micro_batch_size or 0) <= (attempt.micro_batch_size or 0)
    return death.micro_batch_size == attempt.micro_batch_size


def _counts(deaths: Sequence[Attempt], *, apart: float | None = None) -> bool:
    """Whether deaths are reason enough not to try again.

    Args:
        deaths: of the same thing, oldest first.
        apart: share by which their steps may differ; `None`: they have none.
    """
    if not deaths:
        return False
    last = deaths[-1]
    if last.killed:
        return True
    if apart is None:
        unexplained = [death for death in deaths if death.killed is not False]
        return len(unexplained) > 1 or len(deaths) > _MOST_FROM_OUTSIDE
    there = [death for death in deaths if abs(death.step - last.step) <= max(_NEAR_STEPS, apart * last.step)]
    return len(there) > (1 if last.killed is None else 2)


def _alike(one: Attempt, other: Attempt) -> bool:
    """Whether memory had grown about as much in two deaths, or they came after about as many steps."""
    assert one.growth is not None
    assert other.growth is not None
    pairs = ((one.growth.grown_bytes, other.growth.grown_bytes), (one.growth.steps, other.growth.steps))
    return any(abs(a - b) <= _SAME_PLACE * max(a, b) for a, b in pairs)


def _killer(deaths: Sequence[Attempt]) -> str:
    """Who killed, as far as that is known."""
    return " (the kernel killed it for want of memory)" if any(death.killed for death in deaths) else ""


def _times(deaths: Sequence[Attempt]) -> str:
    return {1: "once", 2: "twice"}.get(len(deaths), plural(len(deaths), "time"))
