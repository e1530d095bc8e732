"""Constant prediction: the metrics of the best output that is the same for every input, and data that allow no better.

The model's output is replaced by constants (`constant_output`), which are fitted to the loss of training examples by
L-BFGS; the model's own parameters and its optimizer have no part in it. For cross-entropy the constants come to the
logarithms of the classes' shares, so that the loss is the entropy of the labels and the accuracy that of the largest
class; for squared errors they come to the mean of the targets; for a language model to the shares of the tokens.

It cannot be measured, and nothing is said, where `loss` or `evaluate` does not call `model(...)` itself, where the loss
is computed inside the model or takes long, where a part of the output carries no gradient, where the loss of given
outputs is the same for all examples (the targets are inside the model: contrastive and self-distilling losses, flows),
where it has no lower bound, and where anything else fails.
"""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...errors import OutOfMemory, TaskError
from ...hardware.device import Device
from ...hardware.random_state import RandomState, preserved_random_state
from ...hardware.time_limit import NO_LIMIT, TimeLimit
from ..constant_output import Axes, ConstantOutput, NoConstant, Seen, axes_of, seen_calls
from ..protocol import Batch
from ..values import member_replaced
from ..workload import Workload
from .inputs import is_dense, named_tensors, telling_examples

__all__ = ["ConstantPrediction", "best_constant"]

_MOST_EXAMPLES, _MOST_NUMBERS, _FEWEST = 5000, 60_000, 16
"""Examples that constants are fitted to, numbers in the outputs of these, and examples all the same."""
_TOO_MANY_NUMBERS = 1_000_000
"""In the outputs of the fewest examples: a fit would take seconds."""
_LOADING_S, _LOSS_S, _FITTING_S = 0.1, 0.005, 0.5
"""Seconds that loading all the examples at once may take, their loss, and the losses of all fits together."""
_SHARED = 4
"""Times as long as they work losses may take by the clock, beside other programs."""
_TOLD, _GROUPS, _SAME = 64, 8, 1e-5
"""Examples whose losses are compared, in so many groups; losses that differ by less than this share are the same."""
_ROUNDS, _ITERATIONS, _EVALUATIONS, _STILL_FALLING = 4, 15, 20, 0.05
"""Of L-BFGS; the share of the whole fall up to which the last round, or going as far again, may add to it."""
_BEYOND_NUMBERS = 1e12
"""What a loss that is not finite counts as in a line search, in units of its first gradient."""
_ENOUGH = 1000
"""Inputs that are all the same, and then taken for all of them."""


@dataclass(frozen=True, kw_only=True)
class ConstantPrediction:
    """The best prediction that is the same for every input.

    Attributes:
        metrics: of it, those that are finite; empty: it could not be measured.
        examples: training examples that it was fitted to.
        notes: on labels that were all the same, where not all examples were looked at.
        cut_short: whether it could not be measured in time.
    """

    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    examples: int = 0
    notes: tuple[str, ...] = ()
    cut_short: bool = False


def best_constant(workload: Workload, until: TimeLimit = NO_LIMIT) -> ConstantPrediction:
    """Measure the best constant prediction of a task that passed the preflight.

    Returns:
        Its metrics; none where they cannot be measured, or not `until` a moment after which nothing is begun.

    Raises:
        TaskError: there is nothing to learn: the labels, or the inputs of the model, are the same in all examples.

    Cost: one evaluation without its forward passes, and the loss of given outputs with its gradient, about 60 times for
    each kind of constants; hundredths of a second on a small task. The examples are at most 5,000, and so many that one
    loss takes 5 ms, or 16; after 0.5 s of losses in fits it counts as not measurable. Random generators are put back.
    """
    with preserved_random_state(0), warnings.catch_warnings(), workload.limited(until):
        warnings.simplefilter("ignore")
        try:
            return _measured(_Sample(workload))
        except TaskError:
            raise
        except Exception as error:  # nothing rests on this measurement, and what fits into memory is measured later
            logging.getLogger(__name__).debug("the best constant prediction cannot be measured: %r", error)
            return ConstantPrediction(cut_short=until.passed)


class _Sample:
    """Training examples, and what a fresh model does with a few of them.

    Attributes:
        workload: the task.
        model: with fresh weights.
        seen: its call on a few examples.
        axes: along what constants may vary.
        indices: of all the examples.
        batch: these, in one batch.
    """

    def __init__(self, workload: Workload) -> None:
        self.workload, self.model, self._random = workload, workload.model(0), RandomState.capture()
        few = telling_examples(workload, min(_FEWEST, workload.examples))
        started = time.perf_counter()
        self.indices, self.batch = few, workload.batch(few)
        each_s = 0.0 if workload.in_memory else (time.perf_counter() - started) / len(few)
        self.seen = self._seen()
        self.axes = axes_of(self.seen.outputs, len(few))
        if sum(output.numel() for output in self.seen.outputs) > _TOO_MANY_NUMBERS:
            raise NoConstant("the outputs are too large to fit constants in no time")
        numbers = max(1, sum(output.numel() for output in self.seen.outputs) // len(few))
        most = min(_MOST_EXAMPLES, _MOST_NUMBERS // numbers, int(_LOADING_S / each_s) if each_s else _MOST_EXAMPLES)
        drawn, self._fitting_s = workload.drawable, 0.0
        drawn = drawn[torch.randperm(len(drawn), generator=torch.Generator().manual_seed(0))[:most]]
        while len(self.indices) < len(drawn) and self._may_double():
            self.indices = drawn[: 2 * len(self.indices)]
            self.batch = workload.batch(self.indices)

    def _may_double(self) -> bool:
        """Whether the loss of twice as many given outputs takes little time; a disturbance is looked at once more."""
        with ConstantOutput(self.seen, self.axes[0]).standing_in(self.model), torch.no_grad():
            times = (_timed(self.workload.device, lambda: self.loss(self.batch))[1] for _ in range(2))
            return any(2 * len(self.axes) * seconds <= _LOSS_S for seconds in times)

    def _seen(self) -> Seen:
        with seen_calls(self.model) as seen:
            self.loss(self.batch)
        if not seen:
            raise NoConstant("loss does not call the model")
        shapes = [[output.shape[1:] for output in call.outputs] for call in seen]
        if any(shape != shapes[0] for shape in shapes):
            raise NoConstant("the model's calls have outputs of different shapes")
        return seen[0]

    def loss(self, batch: Batch) -> Tensor:
        """The loss of a batch with the random generators at the same start."""
        self._random.restore()
        try:
            return self.workload.loss(self.model, batch)
        except (OutOfMemory, TaskError) as error:
            raise NoConstant(str(error)) from error

    def fitting_loss(self, batch: Batch) -> Tensor:
        """The loss of a batch in a fit.

        Raises:
            TimeoutError: those so far took too long.
        """
        if self._fitting_s > _FITTING_S:
            raise TimeoutError(f"constants were not fitted in {_FITTING_S:g} s of the loss")
        loss, seconds = _timed(self.workload.device, lambda: self.loss(batch))
        self._fitting_s += seconds
        return loss

    @property
    def whole(self) -> bool:
        """Whether it is the whole training set."""
        return len(self.indices) == self.workload.examples


def _timed(device: Device, work: Callable[[], Tensor]) -> tuple[Tensor, float]:
    """The loss that some work computes, and the seconds that this takes."""
    clock, own = device.clock(), time.thread_time()
    made = work()
    waited = device.clock() - clock
    return made, waited if device.works_ahead else max(time.thread_time() - own, waited / _SHARED)


def _measured(sample: _Sample) -> ConstantPrediction:
    _refuse_same_inputs(sample)
    if not _differ(sample):
        return _of_same_labels(sample)
    return ConstantPrediction(metrics=_metrics(sample, _fitted(sample)), examples=len(sample.indices))


def _metrics(sample: _Sample, fitted: ConstantOutput) -> dict[str, float]:
    """The finite metrics of constants.

    Raises:
        NoConstant: `evaluate` does not call the model, or fails.
    """
    before = fitted.calls
    try:
        with fitted.standing_in(sample.model):
            metrics = sample.workload.all_metrics(sample.model)
    except (OutOfMemory, TaskError) as error:
        raise NoConstant(str(error)) from error
    if fitted.calls == before:
        raise NoConstant("evaluate does not call the model")
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def _fitted(sample: _Sample) -> ConstantOutput:
    """Constants of the lowest loss.

    Where the examples are few, or the constants may vary along several axes, each kind is fitted to one half of them
    and looked at on the other, and so is the mean of a fresh model's outputs; the best is then fitted to all.

    Raises:
        NoConstant: none has a lowest loss.
    """
    count = len(sample.indices)
    if len(sample.axes) == 1 and count >= _ENOUGH:
        return _fitted_to(sample, sample.axes[0], sample.batch)
    half, other = (sample.workload.batch(part) for part in (sample.indices[: count // 2], sample.indices[count // 2 :]))
    unfitted = ConstantOutput(sample.seen, sample.axes[0])
    found: list[tuple[float, Axes | None]] = [(_loss_of(sample, unfitted, other), None)]
    for axes in sample.axes:
        with suppress(NoConstant):
            found.append((_loss_of(sample, _fitted_to(sample, axes, half), other), axes))
    if len(found) == 1:
        raise NoConstant("no constant has a lowest loss")
    best = min(found, key=lambda pair: pair[0])[1]
    return unfitted if best is None else _fitted_to(sample, best, sample.batch)


def _fitted_to(sample: _Sample, axes: Axes, batch: Batch) -> ConstantOutput:
    made = ConstantOutput(sample.seen, axes)
    with made.standing_in(sample.model):
        _fit(lambda: sample.fitting_loss(batch), made.constants)
    return made


def _loss_of(sample: _Sample, constant: ConstantOutput, batch: Batch) -> float:
    with constant.standing_in(sample.model), torch.no_grad():
        return float(sample.loss(batch))


def _fit(loss: Callable[[], Tensor], constants: Sequence[Tensor]) -> None:
    """Minimise a loss, which is scaled so that its first gradient has norm 1.

    Raises:
        NoConstant: it falls on and on, is not finite, or does not depend on the constants.
    """
    first = loss()
    if not first.requires_grad:
        raise NoConstant("the loss does not depend on the outputs")
    gradients = torch.autograd.grad(first, list(constants), materialize_grads=True)
    norm = math.hypot(*(float(g.norm()) for g in gradients))
    if norm == 0.0:
        return
    if not math.isfinite(norm):
        raise NoConstant("the gradient is not finite")

    def closure() -> Tensor:
        scaled = (loss() - first.detach()) / norm
        slopes = torch.autograd.grad(scaled, list(constants), materialize_grads=True)
        finite = all(bool(slope.isfinite().all()) for slope in (scaled, *slopes))
        for constant, slope in zip(constants, slopes, strict=True):
            constant.grad = slope if finite else torch.zeros_like(constant)
        return scaled if finite else torch.full_like(scaled, _BEYOND_NUMBERS)

    def value() -> float:
        with torch.no_grad():
            return float(loss() - first.detach()) / norm

    start, before, now = [constant.detach().clone() for constant in constants], math.inf, 0.0
    for _ in range(_ROUNDS):
        before = now
        optimizer = torch.optim.LBFGS(
            constants, max_iter=_ITERATIONS, max_eval=_EVALUATIONS, line_search_fn="strong_wolfe"
        )
        optimizer.step(closure)
        now = value()
        if not math.isfinite(now) or before - now <= _STILL_FALLING * -now:
            break
    reached = [constant.detach().clone() for constant in constants]
    for constant, begun, found in zip(constants, start, reached, strict=True):
        constant.detach().copy_(2.0 * found - begun)
    twice_as_far = value()
    for constant, found in zip(constants, reached, strict=True):
        constant.detach().copy_(found)
    if not math.isfinite(now) or max(before - now, now - twice_as_far) > _STILL_FALLING * -now:
        raise NoConstant("the loss has no lower bound that is found soon")


def _differ(sample: _Sample) -> bool:
    """Whether the loss of given outputs differs between examples."""
    told = telling_examples(sample.workload, min(_TOLD, sample.workload.examples))
    groups = [sample.workload.batch(group) for group in told.split(max(1, len(told) // _GROUPS))]
    groups = groups[: max(1, len(told) // max(1, len(told) // _GROUPS))]
    made = _at_random(sample)
    losses = [_loss_of(sample, made, group) for group in groups]
    return max(losses) - min(losses) > _SAME * max(map(abs, losses))


def _at_random(sample: _Sample) -> ConstantOutput:
    """Constants drawn at random, at which no two targets are likely to have the same loss.

    They vary along all axes where these are always of the same length, else along the last.
    """
    generator = torch.Generator().manual_seed(0)
    for axes in ("whole", "last"):
        made = ConstantOutput(sample.seen, axes)
        for constant in made.constants:
            constant.detach().add_(torch.randn(constant.shape, generator=generator).to(constant.device))
        with suppress(NoConstant):
            _loss_of(sample, made, sample.batch)
            return made
    raise NoConstant("the shape of the output changes")


def _refuse_same_inputs(sample: _Sample) -> None:
    """Refuse a task whose model is handed the same for every example.

    Raises:
        TaskError: it is.
    """
    count, made = len(sample.indices), ConstantOutput(sample.seen, sample.axes[0])
    _loss_of(sample, made, sample.batch)
    if count < 2 or not all(map(is_dense, made.inputs)) or not (sample.whole or count >= _ENOUGH):
        return
    by_example = [t for t in made.inputs if t.ndim and t.shape[0] == count]
    if by_example and all(map(_all_the_same, by_example)):
        of = "all" if sample.whole else f"all that were looked at, {count:,} of"
        raise TaskError(
            f"there is nothing to learn: what loss() hands the model is the same in {of} {sample.workload.examples:,} "
            "training examples, so that its output is a constant, the same for every example; look at how the inputs "
            "are read and scaled"
        )


def _of_same_labels(sample: _Sample) -> ConstantPrediction:
    """Where the loss of given outputs is the same for all examples: a note if their labels are.

    Raises:
        TaskError: they are, in the whole training set.
        NoConstant: there are no labels that the loss depends on.
    """
    found = _same_label(sample)
    if found is None:
        raise NoConstant("the loss of given outputs is the same for all examples")
    name, value, whole = found
    if whole:
        raise TaskError(
            f"there is nothing to learn: {name}, the only thing that loss() compares the model's outputs with, is "
            f"{value} in all {sample.workload.examples:,} training examples, so that a constant prediction is right; "
            "look at how the labels are read, and whether the examples are sorted by label and cut"
        )
    return ConstantPrediction(
        notes=(
            f"{name}, with which loss() compares the model's outputs, is {value} in all {len(sample.indices):,} "
            f"training examples that were looked at, of {sample.workload.examples:,}: if it is the same in all, there "
            "is nothing to learn",
        )
    )


def _same_label(sample: _Sample) -> tuple[str, str, bool] | None:
    """A tensor of the batch that is the same for all examples, and that the loss of given outputs depends on.

    Returns:
        Its name, its value, and whether it is so in the whole training set; `None`: there is none.
    """
    count, made = len(sample.indices), _at_random(sample)
    for i, (name, tensor) in enumerate(named_tensors(sample.batch)):
        if not is_dense(tensor) or tensor.ndim == 0 or len(tensor) != count or tensor.is_complex():
            continue
        if not _all_the_same(tensor):
            continue
        everything = sample.workload.tensors[i] if sample.workload.in_memory else None
        if everything is not None and not _all_the_same(everything):
            continue
        if _matters(sample, tensor, made):
            value = f"{tensor.flatten()[0].item():.6g}" if tensor[0].numel() == 1 else "the same"
            return name, value, sample.whole or everything is not None
    return None


def _matters(sample: _Sample, tensor: Tensor, made: ConstantOutput) -> bool:
    """Whether the loss of given outputs depends on a tensor of the batch."""
    same, other = (member_replaced(sample.batch, tensor, by) for by in (tensor.clone(), _another(tensor)))
    loss = _loss_of(sample, made, same)
    with made.standing_in(sample.model), torch.no_grad():
        try:
            return abs(float(sample.loss(other)) - loss) > _SAME * abs(loss)
        except NoConstant:  # a label out of range, which the loss looked at
            return True


def _another(tensor: Tensor) -> Tensor:
    """Other values of the same kind."""
    if tensor.dtype == torch.bool:
        return ~tensor
    if tensor.is_floating_point():
        return tensor + 1
    return torch.where(tensor > 0, tensor - 1, tensor + 1)


def _all_the_same(tensor: Tensor) -> bool:
    return bool((tensor == tensor[:1]).all())
