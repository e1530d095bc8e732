"""Why a metric is no number: what the model is given, and what it returns, while it is evaluated."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from .values import NotFinite, in_training_data, not_finite
from .workload import Workload

__all__ = ["Seen", "seen_in_evaluation"]

_LOOKING_S = 0.5


@dataclass
class Seen:
    """What passed through a model in one evaluation.

    Attributes:
        calls: how often it was called; 0 where its parts were called instead.
        inputs: the first that held NaN or inf.
        outputs: likewise.
        held_back: sentence on an example that was held back to evaluate on and holds NaN or inf; empty: none is known.
    """

    calls: int = 0
    inputs: list[NotFinite] = field(default_factory=list[NotFinite])
    outputs: list[NotFinite] = field(default_factory=list[NotFinite])
    held_back: str = ""

    @property
    def only_arithmetic(self) -> bool:
        """Whether the model was given numbers and returned numbers, so that what came after made none of them."""
        return self.calls > 0 and not self.inputs and not self.outputs

    def in_words(self) -> str:
        """What of it explains a metric that is no number, and what to change.

        >>> Seen(calls=1).in_words()[:66]
        "the model's inputs and outputs in evaluate(model) are numbers: loo"
        """
        if self.held_back and (self.inputs or not self.calls):
            return f"{self.held_back}; fill such values, or leave these examples out"
        if self.inputs:
            first = self.inputs[0]
            rows = (
                f" in {len(first.rows)} of {first.shape[0]} rows (the first is {first.rows[0]})" if first.rows else ""
            )
            return (
                f"evaluate(model) gives the model an input (shape {first.shape}) that holds {first.counted}{rows}: "
                "fill such values in the evaluation data, or leave these examples out"
            )
        if self.outputs:
            first = self.outputs[0]
            return f"in evaluation mode the model returns {first.counted} (shape {first.shape}) for inputs without any"
        if self.calls:
            labels = f" ({self.held_back})" if self.held_back else ""
            return (
                "the model's inputs and outputs in evaluate(model) are numbers: look at the labels that it uses"
                f"{labels}, and for a division by zero or a mean over nothing"
            )
        return "look in evaluate(model) for NaN in its data, and for a division by zero"


def seen_in_evaluation(workload: Workload, model: nn.Module) -> Seen:
    """Evaluate a model once more, and look at what it is given and returns.

    The hooks that look are taken off again. Cost: an evaluation, and a pass over its inputs and outputs; 0.5 s at most
    for examples that are held back.
    """
    seen = Seen()

    def look(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        seen.calls += 1
        seen.inputs = seen.inputs or not_finite((args, kwargs), "input")
        seen.outputs = seen.outputs or not_finite(output, "output")

    handle = model.register_forward_hook(look, with_kwargs=True)
    try:
        workload.evaluate(model)
    finally:
        handle.remove()
    seen.held_back = _held_back(workload)
    return seen


def _held_back(workload: Workload) -> str:
    """Sentence on the first bad one of the examples held back that are looked through in a short time."""
    until = time.perf_counter() + _LOOKING_S
    for i in range(workload.held_back):
        if time.perf_counter() > until:
            break
        if values := not_finite(workload.example(i, held_back=True), "example"):
            number = workload.number_of(i, held_back=True)
            return f"example {in_training_data([number])}, which is held back to evaluate on, holds {values[0].alone}"
    return ""
