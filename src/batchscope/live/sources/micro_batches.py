"""Noise from the micro-batches that a training accumulates: the gradient of each, and their sum, at no further pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from torch import Tensor, nn
from torch.optim import Optimizer

from ...store.records import Row
from ..accumulation import Accumulation
from ..forwards import Forwards
from ..geometry import NormsOf, euclidean_only
from ..guard import Guard
from ..norms import by_layer, norm, square_norms
from ..passes import Passes
from ..window import Window, noise_row, watched_parameters
from .halves import Halves

__all__ = ["MicroBatchSource"]


class MicroBatchSource:
    """Two squared norms of a step of `n >= 2` backward passes: of what each pass adds, and of their sum.

    What a pass adds to a parameter comes from a tensor hook, before anything is added to `.grad`; the sum is `.grad`
    itself at the end of the last pass: before unscaling and before clipping. The estimators are those of
    `fits.noise_scale`; micro-batches of unequal size or weight need `monitor.micro_batch(...)`.

    A window gives no row where what was accumulated is not the sum of the passes (gradients were there before the first
    of them, were changed between two, or the parameters were), and where two passes belong to one forward pass.
    Gradients that were zeroed without a step (a gradient scaler skips a step on overflow) begin the window anew.

    Args:
        guard: keeps what a hook raises.
        layers: also give the two norms of each module that has parameters of its own.
        norms: makes what a row holds in the geometry of the optimizer, of the parameters.

    Cost: one norm of each gradient a pass and one of the sum; no copy of gradients. With `norms` three copies, and what
    these cost: the passes are taken as two groups, every other one in each.

    Valid when: examples of different micro-batches are independent (no BatchNorm) and drawn at random.
    """

    name = "accumulated micro-batches"
    fewest = 2
    """Backward passes of a step."""

    def __init__(self, *, guard: Guard, layers: bool = False, norms: NormsOf = euclidean_only) -> None:
        self.reason = ""
        self._norms_of = norms
        self._layers = layers
        self._counts: Counter[int] = Counter()
        self._guard = guard
        self._passes: Passes | None = None
        self._forwards: Forwards | None = None
        self._names: list[str] = []
        self._forget()

    def attach(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Put a hook on each parameter that the optimizer changes."""
        self.detach()
        watched = watched_parameters(model, optimizer)
        self._names, self._parameters = list(watched), list(watched.values())
        self.accumulation = Accumulation(self._parameters)
        norms = self._norms_of(self._parameters, optimizer)
        self._halves = None if norms is None else Halves(norms)
        self._forwards = Forwards(model, self._guard)
        self._passes = Passes(
            self._parameters,
            on_begin=self._begin,
            on_gradient=self._gradient,
            on_end=self._end,
            guard=self._guard,
        )

    def detach(self) -> None:
        """Remove the hooks and forget all tensors."""
        if self._passes is not None:
            self._passes.remove()
        if self._forwards is not None:
            self._forwards.remove()
        self._passes = self._forwards = None
        self._names = []
        self._forget()

    def take(self, window: Window) -> Row | None:
        """Noise row of the window, or `None` and `reason`."""
        self.reason = self._broken() or self._fault or self._unusable(window)
        if self.reason:
            return None
        *groups, whole = square_norms([*self._added, self._sum], range(len(self._names)), window.loss_scale)
        shares = window.weights or window.examples
        row = noise_row(
            window,
            [sum(values) for values in groups],
            sum(whole),
            shares=shares,
            examples=window.examples,
            layers=self._by_layer(groups, whole) if self._layers else None,
        )
        if row is None:
            self.reason = "a gradient of the step was not finite"
            return None
        return row if self._halves is None else {**row, **self._halves.row(window, shares)}

    def _broken(self) -> str:
        return "" if self._passes is None else self._passes.fault

    def _unusable(self, window: Window) -> str:
        """Why the passes of the window say nothing; empty where they do."""
        n, told = len(self._added), len(window.examples)
        if n < self.fewest:
            return f"{n} backward passes in the step" if n == 0 else "one backward pass in the step"
        if any(not (a.keys() & b.keys()) for a, b in zip(self._added, self._added[1:], strict=False)):
            return "two backward passes of the step have no parameter in common"
        if told and told != n:
            return f"micro_batch() was called {told} times, and the step had {n} backward passes; call it before each"
        if window.weights and len(window.weights) != n:
            return "micro_batch() had a weight for some micro-batches of the step only; give it for all or for none"
        if window.weights and sum(weight > 0 for weight in window.weights) < self.fewest:
            return "too few micro-batches of the step have a weight above 0"
        if told:
            return ""
        if window.batch_size < n:
            return f"batch_size is {window.batch_size}, and the step had {n} backward passes; give that of a whole step"
        return self._unlike_the_others(n, window.batch_size)

    def _unlike_the_others(self, n: int, batch_size: int) -> str:
        self._counts[n] += 1
        usual = max(self._counts, key=lambda k: self._counts[k])  # the first one of equals
        if n == usual:
            return ""
        return (
            f"the step had {n} backward passes where {usual} make the {batch_size} examples of batch_size; call "
            "micro_batch(examples=...) before each backward pass to have it measured"
        )

    def _forget(self) -> None:
        self._halves: Halves | None = None
        self._parameters: list[nn.Parameter] = []
        self.accumulation = Accumulation(())
        self._restart()

    def _restart(self) -> None:
        self._added: list[dict[int, Tensor]] = []
        self._sum: dict[int, Tensor] = {}
        self._fault = self._suspected = ""
        if self._halves is not None:
            self._halves.clear()

    def _begin(self) -> None:
        """Before the first gradient of a pass: what has happened since the last one?"""
        if self.accumulation.begin():
            self._restart()
            if self._forwards is not None:
                self._forwards.restart()
        self._suspected = ""
        if self._forwards is not None:
            if self._forwards.missing(len(self._added) + 1):
                self._suspected = "two backward passes of the step went through one forward pass; add their losses up"
            self._forwards.paused = True
        self._added.append({})

    def _gradient(self, index: int, gradient: Tensor) -> None:
        self._added[-1][index] = norm(gradient)
        if self._halves is not None:
            self._halves.add(index, gradient)

    def _end(self) -> None:
        if self._forwards is not None:
            self._forwards.paused = False
        if not self.accumulation.end():
            self._added.pop()
            if self._halves is not None:
                self._halves.drop()
            return
        self._fault = self._fault or self.accumulation.fault or self._suspected
        if self._halves is not None:
            self._halves.keep()
        self._sum = {i: norm(p.grad) for i, p in enumerate(self._parameters) if p.grad is not None}

    def _by_layer(
        self, groups: Sequence[Sequence[float]], whole: Sequence[float]
    ) -> dict[str, tuple[list[float], float]]:
        parts = [by_layer(self._names, values) for values in groups]
        return {name: ([part[name] for part in parts], total) for name, total in by_layer(self._names, whole).items()}
