"""What a window's backward passes have accumulated: whether `.grad` is their sum, and which of them were in vain."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from .norms import any_nonzero

__all__ = ["Accumulation"]

_Marks = list[tuple[int, int] | None]


class Accumulation:
    """Follows parameters and their `.grad` from pass to pass, by which tensors they are and how often each was written.

    Args:
        parameters: that are watched.

    Attributes:
        passes: that have added to a gradient since the window began, or began anew.
        skipped: passes whose gradients were zeroed without a step (a gradient scaler skips one on overflow).
        fault: why the gradients are not the sum of the passes; empty where they are.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self._parameters = list(parameters)
        self.passes = self.skipped = 0
        self.fault = self._suspected = ""
        self._after: _Marks = []
        self._before: _Marks = []
        self._versions: list[int] = []

    def begin(self) -> bool:
        """Before the first gradient of a pass is added; whether the window begins anew with it."""
        gradients = [p.grad for p in self._parameters]
        self._before = _marks(gradients)
        versions = [p._version for p in self._parameters]
        changed = self.passes > 0 and self._before != self._after
        there = (changed or not self.passes) and any_nonzero([g for g in gradients if g is not None])
        anew = changed and not there
        if anew:
            self.skipped += self.passes
            self.passes, self.fault = 0, ""
        self._suspected = ""
        if not self.passes:
            self._versions = versions
            if there:
                self._suspected = (
                    "gradients were there before the step's first backward pass; zero them after each step"
                )
        elif versions != self._versions:
            self._suspected = "parameters changed between two backward passes of one step"
        elif changed:
            self._suspected = (
                "gradients were changed between two backward passes of one step; clip or unscale them after the last"
            )
        return anew

    def end(self) -> bool:
        """After a pass; whether it added to a gradient, which that of `torch.autograd.grad` does not."""
        marks = _marks([p.grad for p in self._parameters])
        if marks == self._before:
            return False
        self._after = marks
        self.passes += 1
        self.fault = self.fault or self._suspected
        return True

    def in_vain(self, told: int) -> int:
        """Of so many micro-batches that were told of, those whose gradients were zeroed without a step."""
        return self.skipped if told == self.skipped + self.passes else 0


def _marks(gradients: Sequence[Tensor | None]) -> _Marks:
    return [None if g is None else (id(g), g._version) for g in gradients]
