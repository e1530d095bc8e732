"""The noise monitor: one object beside a model and its optimizer that reads the gradient noise scale of a training."""

from __future__ import annotations

import math
import statistics
import time
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from torch import nn
from torch.optim import Optimizer

from ..errors import TaskError, UsageError
from ..fits.noise_scale import estimate_layers, recent
from ..store.quantities import whole_number
from ..store.records import Estimate, Row
from ..tasks.batch_norm import has_batch_norm
from ..tasks.batches import first_dimension
from .choice import Choice
from .geometry import checked_geometry, geometry_of
from .guard import Guard
from .measured import in_geometry
from .overhead import Overhead
from .reading import Reading
from .scalers import loss_scale, stepping_scaler, unwrapped
from .sources import Situation, world_size
from .step_hooks import StepHooks
from .window import Window, watched_parameters

__all__ = ["NoiseMonitor"]

_KEPT = 4096
"""Rows in memory: twice as many as are looked back at."""
_LATEST = 32
"""Steps of which the most frequent batch size is the present one."""
_READINGS_IN_WINDOW = 64
"""Calls of `on_reading` while the readings that count for the present are replaced once."""


_HINT = (
    "the numbers come from the optimizer's moving averages: they are biased, by what the gradient has moved in the "
    "steps that these remember, and have no interval"
)


class NoiseMonitor:
    """Gradient noise scale of a training that goes on, from what its own steps compute.

    One line beside the model and the optimizer; it chooses by itself what to read (`reading.source`), measures as many
    steps as `share` allows, and never changes the training: parameters, optimizer state, random streams and data are
    bit for bit what they are without it. An error of its own switches it off with one warning.

    Args:
        model: that is trained.
        optimizer: that changes it; a *window* is what happens between two of its steps.
        batch_size: examples of one optimizer step, over all micro-batches and devices.
        scaler: the `torch.amp.GradScaler` of a float16 training: noise is measured unscaled.
        loss: `(model, batch) -> mean loss`, for the source that splits a batch (`micro_batch(batch=...)` gives it); see
            `sources.split`.
        loss_weight: `(batch) -> terms in the mean that loss returns`, such as tokens; default: its examples.
        geometry: `"euclidean"`, `"sign"` or `"spectral"`: norm in which noise is measured (`live.geometry`); default:
            the optimizer's own, or the Euclidean one as long as there is no number in that, which `reading.notes` says.
        source: name of the one source to use; default: the first that gives a number.
        layers: also keep the noise scale of each layer.
        share: of the training's time that it may take; 1 measures every step. The first two steps are measured whatever
            they cost, so that a short training may end above it; `reading.overhead` is what was in fact taken.
        data_set_size: examples of the training set where batches are drawn without replacement and are no small part
            of it; default: independent draws.
        on_reading: receives a reading after a measured window: each of the first 64, then 64 a stretch of
            `fits.noise_scale.recent`.
        clock: seconds, for the measured overhead.

    Raises:
        UsageError: `batch_size` is no positive number, `share` is not in (0, 1], or there is no such `source` or
            `geometry`.

    Cost: a step that is not measured costs some 20 µs of Python; a measured one what its source says. The
    first two windows are always measured.

    Valid when: examples are independent of one another and drawn at random, and the backward passes of a step are over
    different examples with one loss. Losses of several kinds that are passed back one after another (a discriminator's
    on real and on generated examples) look like micro-batches, and are none.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(3, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> with NoiseMonitor(model, optimizer, batch_size=8, share=1.0) as monitor:
        ...     for _ in range(6):
        ...         for _ in range(2):
        ...             (model(torch.randn(4, 3)).square().mean() / 2).backward()
        ...         optimizer.step()
        ...         optimizer.zero_grad()
        ...     reading = monitor.read()
        >>> reading.source, reading.step, reading.gradient_noise_scale.n
        ('accumulated micro-batches', 6, 6)
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        batch_size: int,
        scaler: Any = None,
        loss: Callable[[nn.Module, Any], Any] | None = None,
        loss_weight: Callable[[Any], float] | None = None,
        geometry: str | None = None,
        source: str | None = None,
        layers: bool = False,
        share: float = 0.01,
        data_set_size: int | None = None,
        on_reading: Callable[[Reading], object] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.batch_size = whole_number(batch_size, "batch_size")
        if not 0 < share <= 1:
            raise UsageError(f"share is {share}; it is a share of the training's time, above 0 and at most 1")
        self._model: nn.Module | None = model
        self._optimizer: Optimizer | None = unwrapped(optimizer)
        self._scaler, self._data_set_size, self._on_reading = scaler, data_set_size, on_reading
        self._geometry = geometry_of(optimizer) if geometry is None else checked_geometry(geometry)
        self._geometry_asked = geometry is not None
        compare = any(p.device.type != "cpu" for p in model.parameters())
        self._overhead = Overhead(share, clock=clock, compare=compare)
        self._guard = Guard(self._overhead.own)
        situation = Situation(
            model=model,
            optimizer=self._optimizer,
            loss=loss,
            loss_weight=loss_weight,
            loss_scale=lambda: loss_scale(self._scaler),
            geometry=self._geometry if self._geometry_asked else None,
            layers=layers,
            guard=self._guard,
            world_size=world_size(),
        )
        self._choice = Choice.of(situation, only=source)
        self._notes = _notes(model)
        self._notes_of_source: tuple[str, ...] = ()
        self._rows: deque[Row] = deque(maxlen=_KEPT)
        self._rows_from = ""
        self._reason, self._off = "no step has ended yet", ""
        self._steps = self._examples = self._quiet = 0
        self._sizes_of_steps: deque[int] = deque(maxlen=_LATEST)
        self._measuring = self._fresh = False
        self._calls = 0
        self._told: list[tuple[int | None, float | None]] = []
        self._scale_told = 1.0
        self._hooks = StepHooks(self._optimizer, before=self._before_step, after=self._after_step)
        if not watched_parameters(model, self._optimizer):
            self._switch_off("the optimizer has no parameter of this model that requires a gradient")
        elif self._choice.reason:
            self._switch_off(self._choice.reason)
        self._guarded(self._begin)

    def micro_batch(self, examples: int | None = None, weight: float | None = None, batch: Any = None) -> None:
        """Tell of the micro-batch whose backward pass comes next; needed where they differ in size or weight.

        Args:
            examples: in it; default: the first dimension of the first tensor in `batch`, or not told.
            weight: its weight in the gradient of the step: its number of terms (tokens) where the loss is a mean over
                those of the whole step, or 1 for each where the means of all micro-batches count the same whatever
                their size; default: the examples.
            batch: the micro-batch itself, for a source that needs it.

        Raises:
            UsageError: `examples` is no positive whole number, `weight` is negative or not finite, or `batch` holds no
                tensor by which to count its examples.

        Example:
            >>> import inspect; list(inspect.signature(NoiseMonitor.micro_batch).parameters)[1:]
            ['examples', 'weight', 'batch']
        """
        if self._off:
            return
        if examples is None and batch is not None:
            examples = _examples_in(batch)
        if examples is not None:
            examples = whole_number(examples, "micro_batch(examples=)")
        if weight is not None and not 0 <= weight < math.inf:
            raise UsageError(f"micro_batch(weight=) is {weight}; it is a number of terms, 0 or more")
        self._forget_skipped()
        self._told.append((examples, weight))
        if self._measuring and batch is not None:
            self._guarded(lambda: self._choice.micro_batch(batch))

    def read(self) -> Reading:
        """Reading of now, over the readings that count for the present (`fits.noise_scale.recent`)."""
        rows, n = recent(self._rows), self._data_set_size
        measured = in_geometry(rows, self._geometry, asked=self._geometry_asked, examples=n)
        biased = any(row.get("biased", False) for row in rows)
        known = _hint if biased else _unchanged
        return Reading(
            gradient_noise_scale=known(measured.gradient_noise_scale),
            signal=known(measured.signal),
            noise=known(measured.noise),
            geometry=measured.geometry,
            source=self._rows_from,
            overhead=self._overhead.ratio,
            step=self._steps,
            examples=self._examples,
            batch_size=statistics.mode(self._sizes_of_steps) if self._sizes_of_steps else self.batch_size,
            reason=self._off or self._reason or measured.reason,
            passed_over=dict(self._choice.passed_over),
            notes=(*self._notes, *measured.notes, *self._notes_of_source, *((_HINT,) if biased else ())),
            layers={name: known(each) for name, each in estimate_layers(rows, examples=n).items()},
        )

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps so that readings go on after it is resumed: numbers and text only."""
        return {
            "step": self._steps,
            "examples": self._examples,
            "source": self._rows_from,
            "rows": [dict(row) for row in self._rows],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint's `state_dict`; its readings count as long as the same source goes on."""
        self._steps, self._examples = int(state["step"]), int(state["examples"])
        self._rows_from = str(state["source"])
        self._rows = deque((dict(row) for row in state["rows"]), maxlen=_KEPT)
        self._reason = "" if self._rows else self._reason

    def close(self) -> None:
        """End: take all hooks off and drop model and optimizer. What was read stays; `read()` works on."""
        self._hooks.remove()
        self._choice.close()
        self._measuring = False
        self._model = self._optimizer = self._scaler = None
        self._told = []
        self._off = self._off or "the monitor was closed"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _guarded(self, action: Callable[[], None]) -> None:
        """Do it in the monitor's own time; an exception switches the monitor off."""
        if self._off:
            return
        try:
            with self._overhead.own():
                action()
        except Exception as error:
            self._switch_off(f"{type(error).__name__}: {error}")
            warnings.warn(
                f"the noise monitor has switched itself off, and the training goes on without it: {self._off}",
                RuntimeWarning,
                stacklevel=3,
            )

    def _switch_off(self, reason: str) -> None:
        self._off = reason
        self.close()

    def _begin(self) -> None:
        self._measuring = self._choice.may_measure(self._steps, self._overhead)
        self._hooks.watch_closures(self._measuring)
        self._calls = 0
        if self._measuring and self._model is not None and self._optimizer is not None:
            self._choice.source.attach(self._model, self._optimizer)

    def _before_step(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        """Closure that counts its calls."""

        def counted() -> Any:
            self._calls += 1
            return closure()

        return counted

    def _after_step(self) -> None:
        if self._measuring:
            self._guarded(self._measure)
        self._count()
        if self._fresh:
            self._fresh = False
            self._guarded(self._report)
        self._overhead.window_ended(measured=self._measuring)
        self._guarded(self._begin)

    def _count(self) -> None:
        sizes = self._sizes()
        self._steps += 1
        self._sizes_of_steps.append(self._batch_size(sizes))
        self._examples += self._sizes_of_steps[-1]
        self._told = []

    def _sizes(self) -> tuple[int, ...]:
        """Examples of each micro-batch; empty where they were told of some only, or by their weights."""
        sizes = tuple(size for size, _ in self._told if size is not None)
        return sizes if len(sizes) == len(self._told) else ()

    def _batch_size(self, sizes: Sequence[int]) -> int:
        """Examples of a step over all devices: the sum of its micro-batches where a single process was told of them."""
        return sum(sizes) if sizes and world_size() == 1 else self.batch_size

    def _forget_skipped(self) -> None:
        """Drop what was told of a step that the gradient scaler has skipped since: it lowers its scale after one."""
        scale = loss_scale(self._scaler)
        if self._told and scale < self._scale_told:
            self._told = []
        self._scale_told = scale

    def _window(self) -> Window:
        sizes = self._sizes()
        weights = tuple(weight for _, weight in self._told if weight is not None)
        return Window(
            step=self._steps,
            examples_before=self._examples,
            batch_size=self._batch_size(sizes),
            examples=sizes,
            weights=weights,
            loss_scale=loss_scale(self._scaler),
        )

    def _measure(self) -> None:
        self._guard.check()
        if self._calls > 1:
            self._switch_off(
                f"the optimizer called its closure {self._calls} times in one step, as LBFGS does; then a step has no "
                "single gradient, and the monitor cannot read its noise"
            )
            return
        if self._scaler is None and stepping_scaler() is not None:
            self._choice.detach()
            self._reason = "a GradScaler made the step, so its gradients are scaled; give it to the monitor as scaler="
            return
        if (accumulated := getattr(self._choice.source, "accumulation", None)) is not None:
            self._told = self._told[accumulated.in_vain(len(self._told)) :]
        row = self._choice.take(self._window())
        self._choice.detach()
        self._reason = self._choice.reason
        if row is None:
            return
        if self._rows_from != self._choice.source.name:
            self._rows.clear()
            self._rows_from = self._choice.source.name
        self._rows.append(row)
        self._notes_of_source = tuple(getattr(self._choice.source, "notes", ()))
        self._fresh = True

    def _report(self) -> None:
        if self._on_reading is None:
            return
        self._quiet += 1
        if self._quiet >= len(recent(self._rows)) // _READINGS_IN_WINDOW:
            self._quiet = 0
            self._on_reading(self.read())


def _unchanged(found: Estimate) -> Estimate:
    return found


def _hint(found: Estimate) -> Estimate:
    """The same without an interval, which rows of a biased source do not have."""
    return replace(found, low=None, high=None, method=f"{found.method}; biased, without an interval")


def _examples_in(batch: Any) -> int:
    try:
        return first_dimension(batch)
    except TaskError as error:
        raise UsageError(
            f"micro_batch(batch=) is a {type(batch).__name__} without a tensor to count examples by; give examples= too"
        ) from error


def _notes(model: nn.Module) -> tuple[str, ...]:
    if not has_batch_norm(model):
        return ()
    return (
        "batch normalisation makes the examples of a micro-batch depend on one another: the noise scale is that of "
        "micro-batches of this size",
    )
