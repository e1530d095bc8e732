"""Which batch, and which example of it, is to blame: for a loss that is no number, a gradient, or an exception.

A loss that is NaN or infinite in the middle of a run may come from weights that a too high learning rate has driven
away, or from the batch. The two are told apart by the loss, and its gradient, of the same batch with fresh weights.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..errors import TaskError
from ..hardware.device import is_out_of_memory
from ..hardware.random_state import preserved_random_state, seed_everything
from .protocol import Batch
from .update import is_finite, without_underflow
from .user_code import line_in, raised_by_user
from .values import in_training_data, not_finite, rows_of

if TYPE_CHECKING:
    from .workload import Workload

__all__ = [
    "ROOT_ADVICE",
    "Drawn",
    "bad_values_of",
    "cause_of_gradient",
    "cause_of_loss",
    "operation_of",
    "refuse_batch",
    "refuse_gradient_of",
    "step_named",
    "without_number",
]

_MOST_FOUND, _MOST_TRIED, _OTHERS = 3, 200, 8
_EMPTY = (
    "look in loss(model, batch) for a mean or a division over a selection that is empty in some batches, and let it "
    "count 0 there: divide by max(1, its number)"
)
_ZERO = "look in loss(model, batch) for a division by zero or log(0)"
ROOT_ADVICE = "look for sqrt, log or a norm at zero, and add a small number inside: sqrt(x + 1e-12)"


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """The examples of one step.

    Attributes:
        micro_batches: as they were given to the loss.
        indices: of the examples, in their order; `None`: they come from a stream.
    """

    micro_batches: Sequence[Batch]
    indices: Tensor | None

    def parts(self) -> list[tuple[Batch, Tensor | None]]:
        """Each micro-batch with the indices of its examples."""
        count = len(self.micro_batches)
        split = [None] * count if self.indices is None else self.indices.chunk(count)
        return list(zip(self.micro_batches, split, strict=True))


@dataclass(frozen=True, kw_only=True)
class Cause:
    """What a batch has that is to blame.

    Attributes:
        said: in words.
        advice: what to change.
        values: whether it is NaN or inf among its values.
    """

    said: str
    advice: str
    values: bool = False

    def __str__(self) -> str:
        return f"{self.said}; {self.advice}"


def without_number(value: float) -> str:
    """A value that is no number, as it is written.

    >>> without_number(math.nan), without_number(-math.inf)
    ('NaN', '-inf')
    """
    return "NaN" if math.isnan(value) else f"{value:g}"


def refuse_batch(workload: Workload, drawn: Drawn, *, seed: int, where: str) -> None:
    """Refuse a task whose loss of a batch is no number with fresh weights either.

    Args:
        workload: the task on its device.
        drawn: the batch whose loss was no number.
        seed: of the fresh weights.
        where: the step, in words.

    Raises:
        TaskError: it is none; the message names the member and the examples that it comes from.

    The caller's random state is left as it was. Cost: a model and a forward pass; where it refuses, up to 200 more.
    """
    with preserved_random_state(seed), _unless_out_of_memory():
        model = workload.model(seed)
        for batch, indices in drawn.parts():
            value = _loss(workload, model, batch)
            if math.isfinite(value):
                continue
            said = without_number(value)
            cause = cause_of_loss(workload, model, batch, indices, value)
            raise TaskError(
                f"the loss is {said} in {where}, and with fresh weights as well, so this batch is the cause and not "
                f"the learning rate: {cause}"
            )


def refuse_gradient_of(workload: Workload, drawn: Drawn, *, seed: int, where: str) -> None:
    """Refuse a task in which a batch has a gradient that is not finite with fresh weights, though its loss is.

    Args:
        workload: the task on its device.
        drawn: the batch after whose step the weights were no numbers.
        seed: of the fresh weights.
        where: the step, in words.

    Raises:
        TaskError: it has; the message names the member and the examples that it comes from.

    Cost: as for `refuse_batch`, with backward passes.
    """
    with preserved_random_state(seed), _unless_out_of_memory():
        model = workload.model(seed)

        for batch, indices in drawn.parts():
            names, value = broken_gradients(workload, model, batch)
            if names and math.isfinite(value):
                raise TaskError(
                    f"the gradient of {names[0]} is not finite in {where}, and with fresh weights as well, although "
                    f"the loss is {value:.4g}, so this batch is the cause and not the learning rate: "
                    f"{cause_of_gradient(workload, model, batch, indices)}"
                )


@contextmanager
def step_named(
    workload: Workload, drawn: Callable[[], Drawn], *, seed: int, where: Callable[[], str]
) -> Generator[None]:
    """Add to an error in a step of the task which step it was, and which example raises it alone, where there is one.

    Args:
        workload: the task on its device.
        drawn: the step's batch.
        seed: of fresh weights, with which examples are tried.
        where: the step, in words; asked for where there is an error.
    """
    try:
        yield
    except TaskError as error:
        raise _raised_in(workload, drawn(), error, seed, where()) from error.__cause__


def _raised_in(workload: Workload, drawn: Drawn, error: TaskError, seed: int, where: str) -> TaskError:
    said = f"{error}; it was {where}"
    if not raised_by_user(error) or "device-side assert" in str(error):
        return TaskError(said)
    with preserved_random_state(seed), _unless_out_of_memory():
        model = workload.model(seed)
        for batch, indices in drawn.parts():
            rows = _guilty_rows(
                batch, workload.count(batch), lambda part: _raises(lambda: _loss(workload, model, part))
            )
            if rows:
                return TaskError(f"{said}, and {_named(workload, rows[:1], indices)} alone raises it")
    return TaskError(said)


def broken_gradients(workload: Workload, model: nn.Module, batch: Batch) -> tuple[list[str], float]:
    """Names of the parameters whose gradient of a batch's loss is not finite, and that loss; gradients are cleared."""
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    value = math.nan

    def compute(scale: float) -> list[Tensor | None]:
        nonlocal value
        model.zero_grad(set_to_none=True)
        loss = workload.loss(model, batch)
        value = float(loss.detach())
        (loss * scale).backward()
        return [p.grad for p in trainable.values()]

    found = without_underflow(workload.precision, compute)
    model.zero_grad(set_to_none=True)
    named = zip(trainable, found, strict=True)
    return [name for name, g in named if g is not None and not is_finite(g)], value


def operation_of(workload: Workload, model: nn.Module, batch: Batch) -> str:
    """Clause on the operation whose backward pass gives NaN first, and the user's line; empty where none is found."""
    with warnings.catch_warnings(record=True) as caught, torch.autograd.set_detect_anomaly(True):
        warnings.simplefilter("always")
        try:
            workload.loss(model, batch).backward()
        except RuntimeError as error:
            name = str(error).partition("'")[2].partition("'")[0].removesuffix("0").removesuffix("Backward")
            line = next(filter(None, (line_in(str(warning.message)) for warning in caught)), "")
            return f" (the first NaN is in the backward pass of {name}{line})" if name else ""
        finally:
            model.zero_grad(set_to_none=True)
    return ""


@contextmanager
def _unless_out_of_memory() -> Generator[None]:
    """Leave the block where memory is lacking: what is looked for is not found then."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise


def _loss(workload: Workload, model: nn.Module, batch: Batch) -> float:
    seed_everything(0)
    with torch.no_grad():
        return float(workload.loss(model, batch))


def cause_of_loss(workload: Workload, model: nn.Module, batch: Batch, indices: Tensor | None, value: float) -> Cause:
    """What makes a batch's loss no number.

    Args:
        workload: the task.
        model: whose loss it is.
        batch: on the device.
        indices: of the examples in it; `None`: they come from a stream.
        value: of the loss.
    """

    def guilty(part: Batch) -> bool:
        return not math.isfinite(_loss(workload, model, part))

    return _cause_of(workload, batch, indices, guilty, f"gives {without_number(value)}")


def cause_of_gradient(workload: Workload, model: nn.Module, batch: Batch, indices: Tensor | None) -> str:
    """What makes a gradient of a batch not finite, and what to change, in words. Arguments as for `cause_of_loss`."""

    def guilty(part: Batch) -> bool:
        return bool(broken_gradients(workload, model, part)[0])

    cause = _cause_of(workload, batch, indices, guilty, "gives such a gradient")
    return f"{cause if cause.values else replace(cause, advice=ROOT_ADVICE)}{operation_of(workload, model, batch)}"


def _cause_of(
    workload: Workload, batch: Batch, indices: Tensor | None, guilty: Callable[[Batch], bool], gives: str
) -> Cause:
    count = workload.count(batch)
    if (said := _bad_values(workload, batch, indices, guilty)) is not None:
        return Cause(said=said, advice="fill such values, or leave these examples out", values=True)
    found = _guilty_rows(batch, count, guilty)
    nothing = "" if not_finite(batch) else "no input is NaN or inf, and "
    if found is None:
        return Cause(said=f"{nothing}it {gives} as a whole", advice=_ZERO)
    if not found:
        return Cause(said=f"{nothing}it {gives}, but no example of it alone", advice=_EMPTY)
    others = [row for row in range(0, count, max(1, count // _OTHERS)) if row not in found]
    if all(_is_guilty(batch, [row], count, guilty) for row in others):
        return Cause(said=f"{nothing}every example of it alone {gives} as well", advice=_EMPTY)
    several = "each " if len(found) > 1 else ""
    said = f"{nothing}{_named(workload, found, indices)} {several}alone {gives}"
    return Cause(said=said, advice=f"{_ZERO}, or leave it out")


def _named(workload: Workload, rows: Sequence[int], indices: Tensor | None) -> str:
    """Examples of a batch by their number in the training data; by their row where a collate or a stream hides that."""
    noun = "example" if len(rows) == 1 else "examples"
    if indices is None or workload.has_collate:
        return f"{noun} {' and '.join(map(str, rows))} of the batch, counted from 0,"
    return f"{noun} {in_training_data([workload.number_of(int(indices[row])) for row in rows])},"


def _bad_values(
    workload: Workload, batch: Batch, indices: Tensor | None, guilty: Callable[[Batch], bool]
) -> str | None:
    """Sentence on values of a batch that are NaN or inf; `None`: it holds none, or without them it is as guilty."""
    rows, count = {row for value in not_finite(batch) for row in value.rows}, workload.count(batch)
    rest = [row for row in range(count) if row not in rows]
    if rest and _is_guilty(batch, rest, count, guilty):
        return None
    return "; ".join(bad_values_of(workload, batch, indices)) or None


def bad_values_of(workload: Workload, batch: Batch, indices: Tensor | None) -> list[str]:
    """Sentences on the values of a batch that are NaN or inf, with the examples that they come from.

    Args:
        workload: the task.
        batch: on its device.
        indices: of the examples in it; `None`: they come from a stream.
    """
    if not (values := not_finite(batch)):
        return []
    rows = None if indices is None or workload.has_collate else indices

    def number_of(row: int) -> int:
        assert rows is not None
        return workload.number_of(int(rows[row]))

    known = [number_of if rows is not None and v.shape[:1] == rows.shape else None for v in values]
    said = [v.of_examples(k) if v.shape else v.alone for v, k in zip(values, known, strict=True)]
    return said if any(known) or indices is None else [*said, _examples_with(workload, indices)]


def _examples_with(workload: Workload, indices: Tensor) -> str:
    """Sentence on an example that holds NaN or inf as the data set returns it, or that none does so."""
    for i in indices.tolist():
        if values := not_finite(workload.example(i), "example"):
            return f"example {in_training_data([workload.number_of(i)])} holds {values[0].alone}"
    return "its examples hold none as train_data() returns them, so collate, or chance in train_data(), made it"


def _guilty_rows(batch: Batch, count: int, guilty: Callable[[Batch], bool]) -> list[int] | None:
    """Some examples that are guilty alone, by halves of halves; `None` where the batch cannot be parted."""
    if rows_of(batch, [0, 0], count) is None:
        return None
    found: list[int] = []
    open_, tried = [list(range(count))], 0
    while open_ and len(found) < _MOST_FOUND and tried < _MOST_TRIED:
        rows = open_.pop()
        tried += 1
        if len(rows) < count and not _is_guilty(batch, rows, count, guilty):
            continue
        if len(rows) == 1:
            found += rows if count > 1 or _is_guilty(batch, rows, count, guilty) else []
            continue
        half = len(rows) // 2
        open_ += [rows[half:], rows[:half]]
    return sorted(found)


def _is_guilty(batch: Batch, rows: list[int], count: int, guilty: Callable[[Batch], bool]) -> bool:
    """Whether a part of a batch is guilty, a single example given twice, for the sake of normalisation."""
    part = rows_of(batch, rows if len(rows) > 1 else rows * 2, count)
    if part is None:
        return False
    try:
        return guilty(part)
    except TaskError:
        return False


def _raises(call: Callable[[], object]) -> bool:
    try:
        call()
    except Exception as error:
        if is_out_of_memory(error):
            raise
        return True
    return False
