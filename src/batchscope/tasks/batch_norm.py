"""Batch normalisation in any model: none, in front of each activation function, or after it; also in ghost batches.

Batch normalisation (Ioffe and Szegedy 2015, algorithm 1) subtracts a batch's mean from each channel, divides by the
batch's standard deviation, and then scales and shifts by two trained numbers that begin at 1 and 0. The authors put it
in front of the activation function; whether after it is better has been argued about since, so both are here. In *ghost
batches* (Hoffer et al. 2017) the statistics are of smaller parts, so that the noise they bring stays when the batch
grows.

What is changed is a task's model, and only that: `laboratory.changed(model=factory)`, with a `variant` that names it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ..errors import TaskError, UsageError
from ..hardware.random_state import preserved_random_state
from ..store.not_applicable import NotApplicable
from .workload import Workload

__all__ = ["ACTIVATIONS", "GhostBatchNorm", "Where", "has_batch_norm", "normalised", "normalised_places"]

Where = Literal["none", "before", "after"]
"""In front of each activation function, after it, or nowhere."""

ACTIVATIONS: tuple[type[nn.Module], ...] = (
    *(nn.CELU, nn.ELU, nn.GELU, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh, nn.LeakyReLU, nn.Mish, nn.PReLU, nn.ReLU),
    *(nn.ReLU6, nn.RReLU, nn.SELU, nn.SiLU, nn.Sigmoid, nn.Softplus, nn.Softsign, nn.Tanh),
)
"""The modules that count as activation functions: those that take each number by itself."""

_BATCH_NORM = nn.modules.batchnorm._BatchNorm  # pyright: ignore[reportPrivateUsage]
_TRIED_ON = 4
_KINDS: Mapping[int, type[nn.Module]] = {2: nn.BatchNorm1d, 4: nn.BatchNorm2d}


class GhostBatchNorm(_BATCH_NORM):
    """Ghost batch normalisation: each `ghost` examples of a training batch have statistics of their own.

    A batch is cut in its order into parts of `ghost` examples; what is left over at the end joins the last part, so
    that no part is smaller, and a batch of fewer than twice as many is one part: plain batch normalisation. Running
    means and variances are updated part after part. In evaluation mode it is plain batch normalisation.

    Args:
        num_features: channels, the second dimension of the input.
        ghost: examples in a part.
        eps: added to a variance.
        momentum: of the running statistics, at each part.

    Source: Hoffer et al. 2017, algorithm 1.
    """

    def __init__(self, num_features: int, *, ghost: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        if ghost < 1:
            raise UsageError(f"ghost batches of {ghost} examples make no sense; give at least 1")
        super().__init__(num_features, eps=eps, momentum=momentum)
        self.ghost = ghost

    def forward(self, input: Tensor) -> Tensor:
        """The normalised input, shape (N, C, ...)."""
        normalise = super().forward
        parts = len(input) // self.ghost if self.training else 1
        if parts < 2:
            return normalise(input)
        cuts = [self.ghost * part for part in range(1, parts)]
        return torch.cat([normalise(part) for part in input.tensor_split(cuts)])

    def extra_repr(self) -> str:
        """Settings as torch writes them, and the size of a part."""
        return f"{super().extra_repr()}, ghost={self.ghost}"

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"expected an input of at least 2 dimensions, not {input.ndim}")


def normalised(
    workload: Workload, where: Where, *, ghost: int | None = None
) -> Callable[[], nn.Module] | NotApplicable:
    """A factory of the task's model with batch normalisation where it is asked for, and nowhere else.

    Batch normalisation that the model has by itself is taken out first, in all three configurations; a layer that had
    no bias on its account still has none. The model's own layers are made first, and batch normalisation draws nothing
    at random, so that their initial weights are for each seed the same as without it. An activation function with
    normalisation is an `nn.Sequential` of the two in the place of the one.

    Args:
        workload: the task on its device.
        where: `none`, `before` each hidden activation function, or `after` it.
        ghost: examples of a ghost batch (`GhostBatchNorm`); `None`: the whole batch.

    Returns:
        What `laboratory.changed(model=...)` takes; or why there is nothing to configure.

    Raises:
        UsageError: ghost batches of no examples, or without normalisation.

    Cost: one fresh model, and one forward pass over 4 examples.

    Valid when: the model is built alike each time. Activations that are function calls (`torch.relu`) are not seen.

    Example:
        >>> from batchscope.tasks.loading import load_task
        >>> workload = Workload(load_task("digits").task)
        >>> [type(layer).__name__ for layer in normalised(workload, "before", ghost=16)()[1]]
        ['GhostBatchNorm', 'ReLU']
    """
    if where not in get_args(Where):
        raise UsageError(f"batch normalisation {where!r} is not known; write one of {', '.join(get_args(Where))}")
    if ghost is not None and (where == "none" or ghost < 1):
        raise UsageError(f"ghost batches of {ghost} examples make no sense with normalisation {where!r}")
    make = workload.made_model
    if where == "none":
        return lambda: _without(make())
    places = normalised_places(workload)
    if isinstance(places, NotApplicable):
        return places

    def model() -> nn.Module:
        made = _separate(_without(make()))
        for name, (dimensions, width) in places.items():
            activation = made.get_submodule(name)
            norm = _norm(dimensions, width, ghost).to(**_like(made))
            _put(made, name, nn.Sequential(*((norm, activation) if where == "before" else (activation, norm))))
        return made

    return model


def has_batch_norm(model: nn.Module) -> bool:
    """Whether a model has batch normalisation."""
    return any(isinstance(module, _BATCH_NORM) for module in model.modules())


def normalised_places(workload: Workload) -> dict[str, tuple[int, int]] | NotApplicable:
    """Places of batch normalisation by `normalised`: an activation's name, the dimensions of its input, its channels.

    An activation that makes the model's output is no hidden one, and left alone.
    """
    with preserved_random_state(0):
        model = _separate(_without(workload.model(0)))
        batch = workload.batch(torch.arange(min(_TRIED_ON, workload.examples)))
        with torch.no_grad(), _watched(model) as seen:
            try:
                workload.loss(model, batch)
            except TaskError as error:
                return NotApplicable(reason=f"the model cannot be run without its batch normalisation: {error}")
    hidden = {name: shapes for name, shapes in seen.shapes.items() if name not in seen.outputs}
    if not hidden:
        return NotApplicable(
            reason="the model runs no hidden activation function that is a module (nn.ReLU and the like): function "
            "calls cannot be seen, so there is no place to put batch normalisation"
        )
    wrong = next((why for name, shapes in hidden.items() if (why := _why_not(name, shapes, seen.forwards))), None)
    if wrong is not None:
        return NotApplicable(reason=wrong)
    return {name: (len(shapes[0]), shapes[0][1]) for name, shapes in hidden.items()}


@dataclass
class _Seen:
    """Activation functions as a trial of the loss saw them, by name."""

    shapes: dict[str, list[torch.Size]] = field(default_factory=dict)
    """Of what they received, one a call."""
    outputs: set[str] = field(default_factory=set)
    """Those whose values the model returned."""
    forwards: int = 0
    """Of the whole model."""


@contextmanager
def _watched(model: nn.Module) -> Generator[_Seen]:
    seen, made = _Seen(), list[tuple[str, Tensor]]()

    def after(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def look(module: nn.Module, args: Any, output: Tensor) -> None:
            seen.shapes.setdefault(name, []).append(output.shape)
            made.append((name, output))  # kept, so that nothing else is put into its place in memory

        return look

    def after_model(module: nn.Module, args: Any, output: Any) -> None:
        seen.forwards += 1
        places = {_place(tensor) for tensor in _tensors(output)}
        seen.outputs.update(name for name, tensor in made if _place(tensor) in places)

    activations = [(name, module) for name, module in model.named_modules() if isinstance(module, ACTIVATIONS)]
    handles = [module.register_forward_hook(after(name)) for name, module in activations]
    handles.append(model.register_forward_hook(after_model))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        yield from _tensors(list(output.values()))
    elif isinstance(output, list | tuple):
        for member in output:
            yield from _tensors(member)


def _why_not(name: str, shapes: Sequence[torch.Size], forwards: int) -> str | None:
    """Reason why an activation function cannot be normalised; `None` where it can."""
    if len(shapes) > max(1, forwards):
        return (
            f"the activation function {name!r} is used {len(shapes)} times in a forward pass, with inputs of shape "
            f"{' and '.join(str(tuple(s)) for s in dict.fromkeys(shapes))}: normalisation there would mix the "
            "statistics of several places; give each place a module of its own"
        )
    kinds = {(len(shape), shape[1]) for shape in shapes if len(shape) in _KINDS}
    if len(kinds) != 1 or any(len(shape) not in _KINDS for shape in shapes):
        return (
            f"the activation function {name!r} receives inputs of shape "
            f"{' and '.join(str(tuple(s)) for s in dict.fromkeys(shapes))}; batch normalisation is configured where "
            "they are always (examples, features) or (examples, channels, height, width), of one width: not for "
            "sequences"
        )
    return None


def _norm(dimensions: int, width: int, ghost: int | None) -> nn.Module:
    return _KINDS[dimensions](width) if ghost is None else GhostBatchNorm(width, ghost=ghost)


def _without(model: nn.Module) -> nn.Module:
    """The model with an `nn.Identity` wherever it had batch normalisation; a model that is nothing else stays."""
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if isinstance(module, _BATCH_NORM) and name:
            _put(model, name, nn.Identity())
    return model


def _separate(model: nn.Module) -> nn.Module:
    """The model with a module of its own at every name of an activation function that has no weights."""
    seen: set[int] = set()
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if isinstance(module, ACTIVATIONS) and name and not list(module.parameters()):
            if id(module) in seen:
                _put(model, name, copy.deepcopy(module))
            seen.add(id(module))
    return model


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)


def _like(model: nn.Module) -> dict[str, Any]:
    """Device and type of the model's first floating-point parameter."""
    first = next((p for p in model.parameters() if p.is_floating_point()), None)
    return {} if first is None else {"device": first.device, "dtype": first.dtype}
