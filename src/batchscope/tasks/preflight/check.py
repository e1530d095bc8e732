"""Preflight: what would make every later measurement meaningless is found, and told the user, in the first second."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from ...errors import OutOfMemory, TaskError
from ...hardware.device import is_out_of_memory
from ...hardware.random_state import preserved_random_state
from ...hardware.time_limit import NO_LIMIT, TimeLimit
from ...store.quantities import finite_number, whole_number
from ...store.records import Metric, Target
from ..evaluation_values import seen_in_evaluation
from ..workload import Workload
from .coupling import find_batch_norm, measure_coupling, smallest_batch
from .evaluation import check_target, evaluate_twice
from .inputs import describe_bad_values, outputs_of, telling_examples
from .loss import check_count, check_gradient, check_labels_on_cpu, check_mean, first_loss
from .optimizer import check_optimizer
from .parameters import parameters_as_made, trainable_numbers
from .update import check_before_update, check_precision

__all__ = ["Preflight", "check"]

_SIZES = (16, 4, 2)
_LR = 1e-3


@dataclass(frozen=True, kw_only=True)
class Preflight:
    """Result of the preflight.

    Attributes:
        metrics: of a model with fresh weights.
        loss: of the first batch, before training.
        parameters: trainable numbers in the model.
        max_batch_size: the largest batch to consider, at most the training set.
        smallest_micro_batch_size: 2 where a single example cannot be trained on (batch normalisation), else 1.
        coupling: why an example's loss depends on the other examples of its batch too, so that per-example statistics
            (the gradient noise scale) are meaningless, and are switched off; empty where it does not.
        notes: sentences for the page.
        evaluation_s: seconds of an evaluation, the shorter of two; averaged weights have their part in it.
        constant: metrics of the best constant prediction, where `best_constant` measured them.
    """

    metrics: Mapping[str, float]
    loss: float
    parameters: int
    max_batch_size: int
    smallest_micro_batch_size: int
    coupling: str
    notes: tuple[str, ...]
    evaluation_s: float = 0.0
    constant: Mapping[str, float] = field(default_factory=dict[str, float])

    @property
    def independent(self) -> bool:
        """Whether an example's loss depends on that example alone."""
        return not self.coupling


def check(
    workload: Workload,
    *,
    max_batch_size: int | None = None,
    target: Target | Metric | None = None,
    lr: float | None = None,
    trying: Callable[[int], AbstractContextManager[object]] = nullcontext,
    until: TimeLimit = NO_LIMIT,
) -> Preflight:
    """Try a task on fresh models before anything is measured; sets `workload.independent`.

    Args:
        workload: the task on its device.
        max_batch_size: what the user allows; default: the whole training set.
        target: what the user asks for, if anything: a target, or a metric without one.
        lr: the learning rate to try the optimizer at; default 0.001.
        trying: entered around the checks on so many examples; `OutOfMemory` there leads to fewer.
        until: when it must be over: no loss, batch or evaluation is begun after it.

    Returns:
        What a search must know.

    Raises:
        TaskError: the task breaks a rule of the protocol; the message holds the measured numbers and what to write.
        TargetError: the target's metric is not there, or the target is met already.
        UsageError: `max_batch_size` or `lr` makes no sense.
        OutOfTime: the time ended before the checks did.

    The random generators are left as they were, and no object of the user's is kept. Cost: two evaluations, about
    fifteen forward passes over at most 64 examples, one backward pass and two optimizer steps.
    """
    largest, notes = _largest_batch(workload, max_batch_size)
    if lr is not None:
        lr = finite_number(lr, "the learning rate")
    with preserved_random_state(0), workload.limited(until):
        found = _try_sizes(workload, target, lr or _LR, trying)
    workload.independent = found.independent
    return replace(found, max_batch_size=largest, notes=(*notes, *found.notes))


def _try_sizes(
    workload: Workload,
    target: Target | Metric | None,
    lr: float,
    trying: Callable[[int], AbstractContextManager[object]],
) -> Preflight:
    """Make all checks on a few examples, on fewer where they do not fit into memory."""
    for size in _SIZES[:-1]:
        try:
            with trying(size):
                return _check(workload, min(size, workload.examples), target, lr)
        except (RuntimeError, MemoryError, OutOfMemory) as error:
            if not isinstance(error, OutOfMemory) and not is_out_of_memory(error):
                raise
    with trying(_SIZES[-1]):
        return _check(workload, _SIZES[-1], target, lr)


def _check(workload: Workload, size: int, target: Target | Metric | None, lr: float) -> Preflight:
    indices = telling_examples(workload, size)
    check_labels_on_cpu(workload, indices)
    model = workload.model(0)
    batch = workload.batch(indices)
    check_count(workload, batch, len(indices))
    parameters = trainable_numbers(workload, model, batch)
    check_precision(workload, model)
    workload.weight(batch)
    with parameters_as_made(model):
        loss = first_loss(workload, model, batch, indices)
    bad = describe_bad_values(workload, batch, indices)
    notes = [f"{bad}, and the loss is a number all the same"] if "NaN" in bad else []
    without = check_gradient(workload, model, loss, batch, indices)
    notes += [f"{len(without)} parameter tensors get no gradient ({without[0]}, ...)"] if without else []
    check_mean(workload, model, indices)
    coupled = _coupling(workload, model, indices)
    smallest = smallest_batch(workload, model, indices)
    check_before_update(workload, model)
    notes += check_optimizer(workload, model, lr)
    fresh = workload.model(0)
    _check_fresh(model, fresh)
    metrics, evaluation_s = evaluate_twice(workload, fresh)
    notes += check_target(metrics, target, outputs_of(model), lambda: seen_in_evaluation(workload, fresh).in_words())
    if smallest > 1:
        notes.append("a batch of one example cannot be trained on; the smallest micro-batch is 2")
    return Preflight(
        metrics=metrics,
        loss=loss.item(),
        parameters=parameters,
        max_batch_size=workload.largest_batch(),
        smallest_micro_batch_size=smallest,
        coupling=coupled,
        notes=(*notes, *([coupled] if coupled else [])),
        evaluation_s=evaluation_s,
    )


def _largest_batch(workload: Workload, asked: int | None) -> tuple[int, list[str]]:
    notes = list(workload.notes)
    if workload.held_back:
        notes.append(
            "the task has no evaluate(): val_loss is measured on a validation split of "
            f"{workload.held_back} training examples, held back"
        )
    asked = None if asked is None else whole_number(asked, "the largest batch size")
    most = workload.largest_batch(asked)
    if asked is not None and asked > most:
        notes.append(f"batches of up to {asked} were allowed, but there are only {most} training examples")
    return most, notes


def _check_fresh(model: nn.Module, other: nn.Module) -> None:
    """Refuse models of two calls that share what is trained: the second run would go on where the first ended."""
    known = {id(p) for p in model.parameters() if p.requires_grad}
    shared = [name for name, p in other.named_parameters() if id(p) in known]
    if shared:
        raise TaskError(
            f"model() returned the same parameters twice ({shared[0]}, ...), so that every run would go on where the "
            "one before ended; make the model in model(), or return a copy: copy.deepcopy(...)"
        )


def _coupling(workload: Workload, model: nn.Module, indices: Tensor) -> str:
    """Reason why examples of a batch are not independent of one another; empty where they are."""
    layers = find_batch_norm(model)
    measured = measure_coupling(workload, model, indices)
    if not layers and not measured:
        return ""
    reasons = [f"the model has {len(layers)} batch normalisation layers ({layers[0]}, ...)"] if layers else []
    return (
        f"examples of a batch are not independent of one another: {'; '.join(filter(None, [*reasons, measured]))}. "
        "Per-example statistics (the gradient noise scale) are switched off, and accumulated micro-batches are not the "
        f"same as one large batch{'' if layers else _weighted(workload)}"
    )


def _weighted(workload: Workload) -> str:
    """What makes micro-batches of a mean over tokens the same as one batch."""
    if workload.loss_weight is None:
        return "; where loss() is a mean over tokens, give the task loss_weight(batch), which returns their number"
    return "; loss_weight(batch), by which the pairs were weighted, is not the number of terms in the mean of loss()"
