"""Base of probes: what the training loop offers them, and what they share, gradients and their exact sums."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..errors import TaskError, UsageError
from ..hardware.random_state import preserved_random_state
from ..store.not_applicable import NotApplicable
from ..store.records import Row
from ..tasks.protocol import Batch
from ..tasks.update import without_underflow
from ..tasks.workload import Workload

__all__ = [
    "Observer",
    "Probe",
    "chosen_weight",
    "coupled",
    "flat",
    "gradients",
    "mean_gradient",
    "modules_with_parameters",
    "not_repeatable",
    "shares",
    "square_norm",
    "trainable",
    "twin",
    "watched",
]

_STRETCH = 1024


class Probe(Protocol):
    """Probe that reads gradients inside one training run, and never changes them.

    In a step for which `groups` is not 0, the loop draws the batch as that many equal micro-batches (more, where
    another probe wants more); the gradient of the step stays the mean over the batch. What is read is the gradient of
    the loss: before the task's `before_update` (clipping), and with the factor that a float16 training puts on it.
    """

    def groups(self, step: int, batch_size: int, parts: int) -> int:
        """Micro-batches wanted in a step; 0 leaves it alone.

        Args:
            step: 0-based. The answer may depend on the arguments only: a loader with workers asks ahead of time.
            batch_size: examples of the step.
            parts: micro-batches that the configuration cuts every step into (accumulation times devices).

        Returns:
            0, or a number that divides `batch_size` and is a multiple of `parts`.
        """
        ...

    def after_micro_batch(self, parameters: Sequence[nn.Parameter], share: float, scale: float) -> None:
        """Read a micro-batch, after its backward pass: a group with the mean gradient `g_j`.

        Args:
            parameters: those that are trained; `.grad` holds `scale * Σ share_j g_j` over the groups so far.
            share: of this group in the mean over the batch, by the task's `loss_weight`; 1 ÷ groups where there is
                none. The shares of a step sum up to 1.
            scale: factor against too small numbers in float16, the same for all groups of a step; else 1.
        """
        ...

    def after_step(self, step: int, batch_size: int) -> Row | None:
        """Read the whole gradient, before the optimizer; the row is stored with the run."""
        ...


class Observer(Protocol):
    """Observer that looks at the weights of one training run, and never changes them.

    One observer watches one run. A run without observers pays nothing for them.
    """

    def begin(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Begin, once, before the first step; the initial weights are those of `model` now."""
        ...

    def after_update(self, step: int) -> Row | None:
        """Look at the weights after an optimizer step; `step` counts from 1. The row is stored with the run."""
        ...

    def at_evaluation(self, step: int) -> Row | None:
        """Look at the weights at an evaluation, also that before the first step; the model may be run, not trained."""
        ...


def twin(workload: Workload, model: nn.Module) -> nn.Module:
    """Twin: a fresh model in training mode with the same weights and buffers, which may be changed and thrown away."""
    with preserved_random_state(0):
        copy = workload.model(0)
    copy.load_state_dict(model.state_dict())
    return copy


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that are trained, by name; one that is used under two names appears once."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def chosen_weight(model: nn.Module, layer: str | None) -> tuple[str, nn.Parameter] | NotApplicable:
    """The weight tensor of a layer.

    Args:
        model: whose parameters are looked through.
        layer: a parameter's or a module's name; `None`: the last trained tensor of two dimensions or more.

    Returns:
        Its full name and itself, or why there is none.

    Raises:
        UsageError: no layer has that name.
    """
    parameters = trainable(model)
    if layer is None:
        for name, parameter in reversed(parameters.items()):
            if parameter.ndim >= 2:
                return name, parameter
        return NotApplicable(reason="the model has no trained weight matrix (a parameter of two dimensions or more)")
    for name in (layer, f"{layer}.weight"):
        if name in parameters:
            return name, parameters[name]
    raise UsageError(f"the model has no trained layer {layer!r}; it has {', '.join(parameters)}")


def coupled(workload: Workload, model: nn.Module) -> NotApplicable | None:
    """Reason why a mean of gradients of single examples is not the gradient of a batch here; `None` where it is."""
    kind = nn.modules.batchnorm._BatchNorm  # pyright: ignore[reportPrivateUsage]
    for name, module in model.named_modules():
        if isinstance(module, kind) and module.training:
            return NotApplicable(
                reason=f"{name or 'the model'} is batch normalisation, so an example's gradient depends on its batch"
            )
    if not workload.independent:
        return NotApplicable(reason="the loss of an example depends on the other examples of its batch")
    return None


def not_repeatable(workload: Workload, model: nn.Module, batch: Batch, *, consequence: str) -> NotApplicable | None:
    """Reason why a loss cannot be compared with itself: two calls with the same batch differ (dropout, noise).

    Args:
        workload: the task on its device.
        model: in the mode in which it is measured.
        batch: what is tried, asked for twice: a data set that augments at random gives another batch each time.
        consequence: what chance in the loss would do to the measurement, for the reason.

    Cost: two forward passes.
    """
    try:
        with torch.no_grad():
            first, second = (float(workload.loss(model, batch())) for _ in range(2))
    except TaskError as error:
        return NotApplicable(reason=f"a batch of {workload.count(batch())} has no loss: {error}")
    if math.isclose(first, second, rel_tol=1e-6, abs_tol=1e-12):
        return None
    return NotApplicable(
        reason=f"the loss of one batch was {first:.6g} and then {second:.6g}: chance in it {consequence}"
    )


def gradients(
    workload: Workload, model: nn.Module, batch: Batch, parameters: Iterable[nn.Parameter]
) -> tuple[Tensor, ...]:
    """The gradient of a batch's mean loss, one tensor a parameter; zeros where the loss does not depend on it.

    `.grad` of the parameters is left alone. Cost: one forward and backward pass over the batch.
    """
    wanted, loss = list(parameters), workload.loss(model, batch)

    def compute(scale: float) -> Sequence[Tensor | None]:
        scaled = loss if scale == 1.0 else loss * scale
        return torch.autograd.grad(scaled, wanted, allow_unused=True, retain_graph=scale > 1.0)

    found = without_underflow(workload.precision, compute)
    return tuple(
        torch.zeros_like(p, requires_grad=False) if gradient is None else gradient.to_dense().detach()
        for p, gradient in zip(wanted, found, strict=True)
    )


def shares(workload: Workload, parts: Sequence[Tensor]) -> list[float]:
    """Share of each part of some examples (indices, int64) in the mean over all of them.

    They are those of the task's `loss_weight`; without it the parts' numbers of examples. Cost: the parts are loaded
    where the task has `loss_weight`.
    """
    if workload.loss_weight is None:
        weights = [float(len(part)) for part in parts]
    else:
        weights = [workload.weight(workload.batch(part)) for part in parts]
    whole = math.fsum(weights)
    return [weight / whole for weight in weights]


def mean_gradient(
    workload: Workload, model: nn.Module, indices: Tensor, parameters: Sequence[nn.Parameter], *, at_once: int = 1024
) -> Tensor:
    """The mean gradient over the examples at `indices` (int64, shape (n,)), flattened and in float64.

    It is the gradient of the mean over their terms where the task has `loss_weight` (tokens).

    Cost: one forward and backward pass over them, `at_once` examples at a time.
    """
    total: Tensor | None = None
    parts = indices.split(at_once)
    for part, share in zip(parts, shares(workload, parts), strict=True):
        found = flat(gradients(workload, model, workload.batch(part), parameters)).mul_(share)
        total = found if total is None else total.add_(found)
    assert total is not None
    return total


def modules_with_parameters(model: nn.Module, *, at_least: int = 0) -> dict[str, nn.Module]:
    """Modules with a parameter of their own, of at least so many dimensions."""
    return {
        name: module
        for name, module in model.named_modules()
        if any(p.ndim >= at_least for p in module.parameters(recurse=False))
    }


@contextmanager
def watched(modules: Mapping[str, nn.Module], keep: Callable[[str, nn.Module, Tensor | None], None]) -> Generator[None]:
    """Watch modules: `keep(name, module, first tensor of its input)` is called whenever one begins to run."""

    def hook(name: str) -> Any:
        def look(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            keep(name, module, next((x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)), None))

        return look

    handles = [m.register_forward_pre_hook(hook(name), with_kwargs=True) for name, m in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def flat(tensors: Iterable[Tensor]) -> Tensor:
    """Flat vector of all elements, in float64 (float32 where the device has no other); complex ones as two each."""
    parts = [torch.view_as_real(t.detach()) if t.is_complex() else t.detach() for t in tensors]
    return torch.cat([t.to(_accumulator(t)).reshape(-1) for t in parts])


def square_norm(tensor: Tensor) -> Tensor:
    """Squared norm `|x|²` in float64, from float32 sums over short stretches.

    Measured on 5 million elements: within 5e-6 at worst, and 30 times faster on a CPU than a float64 reduction, where
    one float32 reduction over all of them is off by up to 8e-3.
    """
    precise = torch.promote_types(tensor.dtype, torch.float32)
    flattened = tensor.reshape(-1)
    whole = flattened.numel() - flattened.numel() % _STRETCH
    stretches = torch.linalg.vector_norm(flattened[:whole].view(-1, _STRETCH), dim=1, dtype=precise)
    rest = torch.linalg.vector_norm(flattened[whole:], dtype=precise)
    accumulator = _accumulator(tensor)
    return stretches.to(accumulator).square().sum() + rest.to(accumulator).square()


def _accumulator(tensor: Tensor) -> torch.dtype:
    return torch.float32 if tensor.device.type == "mps" else torch.float64
