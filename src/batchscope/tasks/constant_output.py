"""A model whose output is the same for every example: constants in the place of what its forward pass computes.

The structure of the output, a tensor or tuples, lists and mappings of them, is learnt from the forward pass itself: of
a few examples, and once more where inputs differ from these in more than their number. Numbers in the output that carry
no gradient are no prediction (noise that was drawn, a teacher's output, a copy of the input), and constants cannot
stand for them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from ..hardware.live_bytes import tensors_in

__all__ = ["Axes", "ConstantOutput", "NoConstant", "Seen", "axes_of", "seen_calls"]

Axes = Literal["last", "second", "whole"]
"""Along what a constant varies: the last axis alone (tokens), the second alone (pixels), all but the examples; all are
the same for an output of two axes."""


_Shapes = tuple[tuple[int, ...], ...]


class NoConstant(Exception):
    """Constants cannot stand for the output of a model."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One call of a model.

    Attributes:
        inputs: tensors that it was handed.
        output: what it returned.
    """

    inputs: list[Tensor]
    output: Any

    @property
    def outputs(self) -> list[Tensor]:
        """Tensors in the output."""
        return list(tensors_in(self.output))


@contextmanager
def seen_calls(model: nn.Module) -> Generator[list[Seen]]:
    """The calls of a model inside."""
    seen: list[Seen] = []

    def look(_: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        seen.append(Seen(inputs=list(tensors_in([args, kwargs])), output=output))

    hook = model.register_forward_hook(look, with_kwargs=True)
    try:
        yield seen
    finally:
        hook.remove()


class ConstantOutput:
    """Constants that stand for the output of a model.

    Args:
        seen: a call of the model, whose output has a gradient; each constant begins at the mean of a part of it.
        axes: along what the constants vary.

    Attributes:
        constants: what can be fitted; float32, on the device of the outputs.
        inputs: of the latest call.
        calls: how often the model was asked for an output.
    """

    def __init__(self, seen: Seen, axes: Axes) -> None:
        self.axes: Axes = axes
        self.constants = [_mean(output.detach(), axes).clone().requires_grad_() for output in seen.outputs]
        self.inputs: list[Tensor] = []
        self.calls = 0
        self._structures = {_shapes(seen.inputs): _without_numbers(seen.output)}

    @contextmanager
    def standing_in(self, model: nn.Module) -> Generator[None]:
        """Inside, `model(...)` returns the constants.

        Raises:
            NoConstant: at the end, where a part of the model was called by itself.
        """
        parts = set(model.modules()) - {model}
        forward, own, running, passed_by = model.forward, vars(model).get("forward"), [False], list[str]()

        def constant(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            self.inputs = list(tensors_in([args, kwargs]))
            if (structure := self._structure(_shapes(self.inputs))) is None:
                running[0] = True
                try:
                    with torch.no_grad():
                        structure = _without_numbers(forward(*args, **kwargs))
                finally:
                    running[0] = False
                self._structures[_shapes(self.inputs)] = structure
            return _filled(structure, iter(self._like(list(tensors_in(structure)))))

        def watch(module: nn.Module, _: Any) -> None:
            if module in parts and not running[0]:
                passed_by.append(type(module).__name__)

        hook = nn.modules.module.register_module_forward_pre_hook(watch)
        try:
            model.forward = constant
            yield
        finally:
            hook.remove()
            if vars(model).get("forward") is constant:
                del model.forward
                if own is not None:
                    model.forward = own
        if passed_by:
            raise NoConstant(f"{passed_by[0]}, a part of the model, is called by itself")

    def _structure(self, shapes: _Shapes) -> Any:
        """Structure of the output for inputs of some shapes; `None`: not known.

        It follows from that for other inputs that differ in the number of examples alone.
        """
        if shapes in self._structures:
            return self._structures[shapes]
        for known, structure in self._structures.items():
            if (times := _times(shapes, known)) is not None:
                made = [_longer(output, times) for output in tensors_in(structure)]
                return None if None in made else _filled(structure, iter(cast("list[Tensor]", made)))
        return None

    def _like(self, outputs: Sequence[Tensor]) -> list[Tensor]:
        if len(outputs) != len(self.constants):
            raise NoConstant("the number of outputs changes")
        pairs = zip(self.constants, outputs, strict=True)
        return [_spread(constant, output, self.axes) for constant, output in pairs]


def _shapes(tensors: Sequence[Tensor]) -> _Shapes:
    return tuple(_nested_shape(tensor) if tensor.is_nested else tensor.shape for tensor in tensors)


def _nested_shape(tensor: Tensor) -> tuple[int, ...]:
    """The shapes of all parts of a nested tensor, one after the other; the number of parts alone tells too little."""
    if tensor.layout is torch.jagged:
        return (1, *cast("Any", tensor).offsets().tolist(), *tensor.values().shape[1:])
    return (1, *(length for part in tensor.unbind() for length in part.shape))


def _times(shapes: _Shapes, known: _Shapes) -> Fraction | None:
    """How many times as many examples the inputs of some shapes have; `None`: they differ in more than that."""
    same = len(shapes) == len(known) and all(
        a[1:] == b[1:] and len(a) == len(b) for a, b in zip(shapes, known, strict=True)
    )
    times = (
        {Fraction(a[0], b[0]) for a, b in zip(shapes, known, strict=True) if a}
        if same and all(map(all, known))
        else set()
    )
    return times.pop() if len(times) == 1 else None


def _longer(output: Tensor, times: Fraction) -> Tensor | None:
    """A tensor without numbers for so many times the examples."""
    length = output.shape[0] * times
    return output.new_empty((int(length), *output.shape[1:])) if length.denominator == 1 else None


def _without_numbers(output: Any) -> Any:
    """An output whose tensors have shapes and dtypes alone."""
    return _filled(output, (torch.empty_like(tensor, device="meta") for tensor in tensors_in(output)))


def axes_of(outputs: Sequence[Tensor], examples: int) -> tuple[Axes, ...]:
    """Along what constants for an output may vary.

    Args:
        outputs: its tensors, of a batch.
        examples: in that batch.

    Raises:
        NoConstant: one of them carries no gradient, or has no axis of examples.
    """
    for output in outputs:
        if not output.is_floating_point() or not output.requires_grad:
            raise NoConstant("a part of the output carries no gradient")
        if output.ndim == 0 or output.shape[0] == 0 or output.shape[0] % examples:
            raise NoConstant("a part of the output has no axis of examples")
    if not outputs:
        raise NoConstant("the output holds no tensor")
    return ("last", "second", "whole") if any(output.ndim > 2 for output in outputs) else ("last",)


def _mean(output: Tensor, axes: Axes) -> Tensor:
    """The mean over all axes that a constant is the same along, in float32."""
    output = output.float()
    if axes == "whole" or output.ndim <= 2:
        return output.mean(0)
    if axes == "last":
        return output.flatten(0, -2).mean(0)
    return output.transpose(0, 1).flatten(1).mean(1)


def _spread(constant: Tensor, output: Tensor, axes: Axes) -> Tensor:
    """A constant in the shape and dtype of an output."""
    if axes == "second" and output.ndim > 2:
        constant = constant.view(-1, *[1] * (output.ndim - 2))
    if constant.ndim > output.ndim - 1 or not _fits(constant.shape, output.shape):
        raise NoConstant("the shape of the output changes")
    return constant.expand(output.shape).to(output.dtype).clone()


def _fits(constant: Sequence[int], output: Sequence[int]) -> bool:
    last = output[len(output) - len(constant) :]
    return all(size in (1, wanted) for size, wanted in zip(constant, last, strict=True))


def _filled(structure: Any, tensors: Iterator[Tensor]) -> Any:
    """A structure with other tensors in it."""
    if isinstance(structure, Tensor):
        return next(tensors)
    if isinstance(structure, Mapping):
        mapping = cast("Mapping[Any, Any]", structure)
        values = {key: _filled(value, tensors) for key, value in mapping.items()}
        make = cast("Callable[..., Any]", type(mapping))
        return make(values) if type(mapping) is dict else make(**values)
    if isinstance(structure, list | tuple):
        items = [_filled(value, tensors) for value in cast("Sequence[Any]", structure)]
        make = cast("Callable[..., Any]", type(cast("object", structure)))
        return make(*items) if hasattr(make, "_fields") else make(items)
    return structure
