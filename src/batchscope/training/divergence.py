"""Why a run's loss is no number: its batch, a gradient at zero, or `evaluate`; else its learning rate was too high.

A run that diverges says of its learning rate that it is too high, and a search goes by that. So at the first loss that
is no number the batch is tried with fresh weights, and the gradient of the step before; and a run that broke all of a
sudden, with an ordinary loss, is gone through once more, each gradient looked at, and again at a tenth of the learning
rate: arithmetic that overflows only with the weights of a far too high one breaks no gradient there. What does not come
from the learning rate ends the command in one message.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing
from functools import partial

import torch
from torch import Tensor, nn

from ..errors import TaskError
from ..fits.schedules import lr_factor
from ..hardware.random_state import RandomState, preserved_random_state
from ..store.records import RunConfig
from ..tasks.culprits import ROOT_ADVICE, Drawn, operation_of, refuse_batch, refuse_gradient_of, step_named
from ..tasks.evaluation_values import seen_in_evaluation
from ..tasks.protocol import Batch
from ..tasks.update import Update, is_finite
from ..tasks.workload import Workload
from ..wording import number
from .step_clock import StepClock

__all__ = ["LossWatch", "set_schedule"]

_ORDINARY, _ORDINARY_WEIGHT = 10.0, 1e6
"""Times the first loss, and size of a weight, up to which neither has been driven away."""
_LEAST_REPLAY_S, _MOST_REPLAY_S = 2.0, 5.0
"""Seconds that going through a run once more may take: as many as the run itself took, between these."""
_SLOWER = 10
"""Times as many steps at a learning rate that is lower by as much come as far."""
_AS_WELL = "and at a tenth of the learning rate it breaks as well, so the learning rate is not to blame"


def set_schedule(workload: Workload, config: RunConfig, update: Update, step: int) -> None:
    """Set the learning rate of a step (0-based) as the run's schedule has it."""
    if config.schedule == "task":
        update.set_factor(workload.lr_factor(step / max(1, config.max_steps)))
    elif config.schedule != "constant" or config.warmup_steps:
        warmup, final_lr = config.warmup_steps, config.final_lr
        update.set_factor(lr_factor(config.schedule, step, config.max_steps, warmup=warmup, final_lr=final_lr))


class LossWatch:
    """Watch over the losses of one run.

    On the CPU each loss is looked at when it is there, and the batch at hand is tried. On an accelerator, which works
    ahead, losses are looked at when the run is evaluated, and the batch is drawn anew.

    Args:
        workload: the task on its device.
        config: of the run.
        data_seed: of the order of its examples.
        parts: micro-batches of a step.
        clock: of the run's steps, of which looking for a cause is no part.
    """

    def __init__(
        self,
        workload: Workload,
        config: RunConfig,
        data_seed: int,
        parts: Callable[[int], int],
        clock: StepClock,
    ) -> None:
        self._workload, self._config, self._data_seed, self._parts = workload, config, data_seed, parts
        self._clock = clock
        self._at_once = workload.device.torch_device.type == "cpu"
        self._losses: list[tuple[int, Tensor]] = []
        self._last: tuple[int, Sequence[Batch]] | None = None
        self._first, self._largest, self._looked = math.nan, 0.0, False

    def step(self, step: int, micro_batches: Sequence[Batch]) -> AbstractContextManager[None]:
        """Context in which an error of the task is told with the step, and the example where one alone raises it."""
        drawn, where = partial(self._drawn, step, micro_batches), partial(self._where, step)
        return step_named(self._workload, drawn, seed=self._config.seed, where=where)

    def see(self, step: int, micro_batches: Sequence[Batch], loss: Tensor) -> None:
        """Look at the loss of a step (0-based), or keep it to be looked at.

        Raises:
            TaskError: it is no number, and the learning rate is not to blame.
        """
        if not self._at_once:
            self._losses.append((step, loss))
            return
        value = float(loss)
        if math.isfinite(value):
            self._see_number(value)
        elif not self._looked:
            with self._clock.apart():
                self._explain(step, self._drawn(step, micro_batches), self._last)
        self._last = step, micro_batches

    def at_evaluation(self, step: int, train_loss: float, metric: str, value: float, model: nn.Module) -> None:
        """Look at the losses since the evaluation before, and at the metric that the run is judged by.

        Args:
            step: steps made.
            train_loss: mean since the evaluation before.
            metric: by which the run is judged.
            value: of it.
            model: that it is of.

        Raises:
            TaskError: one is no number, and the learning rate is not to blame.
        """
        losses, self._losses = self._losses, []
        if math.isfinite(train_loss):
            self._see_number(train_loss)
            if not math.isfinite(value) and not self._looked:
                self._explain_metric(step, train_loss, metric, value, model)
        elif losses and not self._looked:
            finite = torch.stack([loss for _, loss in losses]).isfinite().tolist()
            broke = losses[finite.index(False)][0] if False in finite else losses[-1][0]
            self._explain(broke, self._drawn_anew(broke), (broke - 1, self._redrawn(broke - 1)) if broke else None)

    def _see_number(self, value: float) -> None:
        self._first = value if math.isnan(self._first) else self._first
        self._largest = max(self._largest, abs(value))

    @property
    def _ordinary(self) -> bool:
        """Whether no loss so far was far above the first."""
        return self._largest <= _ORDINARY * abs(self._first)

    def _explain(self, step: int, drawn: Drawn, before: tuple[int, Sequence[Batch]] | None) -> None:
        """Refuse the task if its batch, the gradient before, or the arithmetic of either is to blame."""
        self._looked = True
        workload, seed = self._workload, self._config.seed
        refuse_batch(workload, drawn, seed=seed, where=self._where(step))
        if before is not None:
            refuse_gradient_of(workload, self._drawn(*before), seed=seed, where=self._where(before[0]))
            if self._ordinary:
                self._go_through_again(step)

    def _explain_metric(self, step: int, train_loss: float, metric: str, value: float, model: nn.Module) -> None:
        self._looked = True
        if not _finite(model):
            last = self._last if self._last is not None else (step - 1, self._redrawn(step - 1))
            refuse_gradient_of(self._workload, self._drawn(*last), seed=self._config.seed, where=self._where(last[0]))
            if self._ordinary:
                self._go_through_again(step)
        elif math.isnan(value) and self._ordinary:
            random = RandomState.capture()
            seen = seen_in_evaluation(self._workload, model)
            random.restore()
            if seen.only_arithmetic:
                raise TaskError(
                    f"evaluate(model) returned NaN for {metric} after {self._where(step - 1)}, although the training "
                    f"loss is {train_loss:.4g} and the weights are numbers, so the learning rate is not to blame: "
                    f"{seen.in_words()}; return a number for every model"
                )

    def _go_through_again(self, steps: int) -> None:
        """Make the run's steps once more, and look at each gradient; where one breaks, at a tenth of the learning rate.

        Raises:
            TaskError: a gradient, or an update by a finite one, is no number, with an ordinary loss and weights, at
                both learning rates.
        """
        if self._workload.precision == "float16":  # gradients beyond numbers are part of its scaling
            return
        limit = min(_MOST_REPLAY_S, max(_LEAST_REPLAY_S, self._clock.so_far()))
        broken = self._broken_again(steps, 1, limit)
        if broken is not None and self._broken_again(steps, _SLOWER, limit) is not None:
            raise TaskError(broken)

    def _broken_again(self, steps: int, slower: int, limit_s: float) -> str | None:
        """What broke with an ordinary loss and weights when steps of the run were made once more, in words.

        Args:
            steps: of the run.
            slower: the learning rate is divided by it, and the number of steps multiplied.
            limit_s: seconds after which nothing was found.
        """
        workload, config, ends = self._workload, self._config, self._workload.device.clock() + limit_s
        with preserved_random_state(config.seed):
            model = workload.model(config.seed)
            update = Update(workload, model, config.lr / slower, config.optimizer_changes)
            drawn = workload.micro_batches(config.batch_size, self._parts, self._data_seed)
            with closing(drawn) as batches:
                for step, micro_batches in zip(range(slower * steps), batches, strict=False):
                    set_schedule(workload, config, update, step // slower)
                    update.clear()
                    loss = float(update.gradients(micro_batches))
                    late = workload.device.clock() > ends
                    if late or not math.isfinite(loss) or not _finite(model, _ORDINARY_WEIGHT):
                        return None
                    if (broken := self._broken_gradient(step, loss, model, micro_batches)) is not None:
                        return broken
                    update.apply()
                    if (broken := self._broken_update(step, loss, model)) is not None:
                        return broken
        return None

    def _broken_gradient(self, step: int, loss: float, model: nn.Module, micro_batches: Sequence[Batch]) -> str | None:
        broken = [n for n, p in model.named_parameters() if p.grad is not None and not is_finite(p.grad)]
        if not broken:
            return None
        operation = next(filter(None, (operation_of(self._workload, model, b) for b in micro_batches)), "")
        return (
            f"the gradient of {broken[0]} is not finite in {self._where(step)}, although the loss is {loss:.4g} "
            f"and the weights are numbers, {_AS_WELL}: {ROOT_ADVICE}{operation}"
        )

    def _broken_update(self, step: int, loss: float, model: nn.Module) -> str | None:
        nan = [name for name, p in model.named_parameters() if bool(p.detach().isnan().any())]
        if not nan:
            return None
        what = "before_update(model) or the optimizer" if self._workload.before_update else "the optimizer"
        return (
            f"{what} made {nan[0]} NaN in {self._where(step)}, although the loss is {loss:.4g} and the gradients "
            f"are numbers, {_AS_WELL}: look for a division by zero (a norm, a standard deviation, an optimizer with "
            "eps=0)"
        )

    def _drawn(self, step: int, micro_batches: Sequence[Batch]) -> Drawn:
        config = self._config
        indices = self._workload.indices_of(config.batch_size, self._data_seed, step)
        return Drawn(micro_batches=micro_batches, indices=indices)

    def _drawn_anew(self, step: int) -> Drawn:
        return self._drawn(step, self._redrawn(step))

    def _redrawn(self, step: int) -> Sequence[Batch]:
        drawn = self._workload.micro_batches(self._config.batch_size, self._parts, self._data_seed, skip=step)
        with closing(drawn) as batches:
            return next(batches)

    def _where(self, step: int) -> str:
        config = self._config
        return f"step {step + 1} of the run with batch size {config.batch_size} and learning rate {number(config.lr)}"


def _finite(model: nn.Module, most: float = math.inf) -> bool:
    """Whether every weight is a number, and none larger than some size."""
    return all(is_finite(p) and (p.numel() == 0 or float(p.detach().abs().max()) <= most) for p in model.parameters())
