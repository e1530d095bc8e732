"""Window between two optimizer steps, the sources that read it, and the row that every source makes of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import nn
from torch.optim import Optimizer

from ..fits.noise_scale import effective_batch_size, equal_groups
from ..store.records import Row

__all__ = ["Source", "Window", "noise_row", "watched_parameters"]


@dataclass(frozen=True, kw_only=True)
class Window:
    """All backward passes between two optimizer steps, as the monitor knows them when the step is over."""

    step: int
    """Optimizer steps seen before it."""
    examples_before: int
    """Examples of the steps before it."""
    batch_size: int
    """Examples of the whole step, over all devices: their sum where `micro_batch()` told them in a single process."""
    examples: tuple[int, ...] = ()
    """Examples of each micro-batch of this process, as `micro_batch()` told; empty: not told, taken as equal."""
    weights: tuple[float, ...] = ()
    """Weight of each micro-batch in the step's gradient, as told; empty: as the examples."""
    loss_scale: float = 1.0
    """Factor that all gradients have, from the gradient scaler."""


class Source(Protocol):
    """One way to read the noise of a window; one object for the whole training.

    The monitor calls `attach` before a window that is to be measured, `take` after its optimizer step, and `detach`
    right after that (and at any other time: it must be harmless when nothing is attached). A hook that the source
    leaves in the training must not raise: it goes through the situation's `Guard`, which keeps the exception for the
    monitor and counts the time as overhead. Nothing that it reads may
    change parameters, gradients, buffers or random streams, and after `detach` it holds no reference to any. A source
    that has a method `micro_batch(batch)` is handed each micro-batch of a measured window before its backward pass.
    """

    name: str
    """Words for `Reading.source`."""
    reason: str
    """Why the last `take` gave no row; empty after one that did."""

    def attach(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Put the hooks for the window that begins."""
        ...

    def take(self, window: Window) -> Row | None:
        """Noise row of the window that has ended, or `None` and `reason`."""
        ...

    def detach(self) -> None:
        """Remove all hooks and drop all tensors."""
        ...


def watched_parameters(model: nn.Module, optimizer: Optimizer) -> dict[str, nn.Parameter]:
    """Parameters that are the model's, that the optimizer changes, and that need a gradient now; each one once."""
    changed = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    return {name: p for name, p in model.named_parameters() if p.requires_grad and id(p) in changed}


def noise_row(
    window: Window,
    square_norms: Sequence[float],
    square_norm_of_mean: float,
    *,
    shares: Sequence[float] = (),
    examples: Sequence[float] = (),
    layers: Mapping[str, tuple[Sequence[float], float]] | None = None,
) -> Row | None:
    """Noise row of a window whose gradient came in groups, each with a share and a size.

    Args:
        window: that was measured.
        square_norms: `|s_j g_j|²` of what each group added to the step's gradient, unscaled.
        square_norm_of_mean: `|Σ s_j g_j|²` of the step's gradient, unscaled.
        shares: `s_j`, up to a common factor; default: all the same.
        examples: of each group; default: the window's batch size in equal parts.
        layers: the same two for each layer.

    Returns:
        The row; `None` where a number is not finite.

    A factor that all groups have in common (a loss that is summed where it could be averaged) changes signal and noise
    by its square, and their ratio not at all: both are those of the gradient that the optimizer gets.

    Where weights are numbers of terms (tokens) tr(Σ) is that of a ratio, `E[w² |g_i - G|²] ÷ E[w]²`, and a step has the
    noise of its examples. Where all weights are the same and the sizes are not, every group's mean counts the same, and
    the step has the noise of fewer examples (`fits.noise_scale.effective_batch_size`).
    """
    n = len(square_norms)
    parts = [share / math.fsum(shares) for share in shares] if shares else [1 / n] * n
    size: float = sum(examples) if examples else window.batch_size
    if examples and len(set(parts)) == 1:
        size = effective_batch_size(parts, examples)
    row: Row = {
        "kind": "noise",
        "step": window.step,
        "examples": window.examples_before,
        "groups": n,
        "group_size": size / n,
        "mean_square_norm": equal_groups(square_norms, parts, square_norm_of_mean),
        "square_norm_of_mean": square_norm_of_mean,
    }
    if layers is not None:
        row["layers"] = {name: [equal_groups(squares, parts, mean), mean] for name, (squares, mean) in layers.items()}
    finite = math.isfinite(row["mean_square_norm"]) and math.isfinite(square_norm_of_mean)
    return row if finite else None
