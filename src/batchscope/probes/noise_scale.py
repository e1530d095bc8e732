"""The gradient noise scale inside a run: squared norms of micro-batch gradients and of their mean."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..fits.noise_scale import equal_groups
from ..store.records import Row, RunConfig
from .base import square_norm

__all__ = ["NoiseScale", "probes_of"]


def probes_of(config: RunConfig) -> list[NoiseScale]:
    """Probes inside a run, by its configuration; they have a part in the run's course, in the last digits."""
    return [NoiseScale(groups=config.noise_scale_groups)] if config.noise_scale_groups else []


class NoiseScale:
    """Probe of the gradient noise scale: every few steps two squared norms, of a batch in `n` groups of `b` examples.

    With `g_j` the mean gradient of group `j`, a row holds `mean_square_norm = mean_j |g_j|²` and `square_norm_of_mean =
    |mean_j g_j|²`; `fits.noise_scale` makes tr(Σ) and |G|² of them, unbiased. Nothing is divided or clipped here: the
    ratio of one step is useless (McCandlish et al. 2018, appendix A.1), the sums are not.

    Of groups of unequal weight (the task has `loss_weight`) a row holds `|g|²` of the step's gradient as
    `square_norm_of_mean`, and as `mean_square_norm` what equal groups with the same estimates would have
    (`fits.noise_scale.equal_groups`).

    Args:
        groups: the number of groups aimed at. Two are the cheapest: |G|² costs a number of *examples* whatever the
            grouping, and where a micro-batch's fixed cost dominates, the price grows with `groups - 1`. Where that
            number does not divide the batch (or goes against accumulation), the nearest one up to `4 * groups` is
            taken; where there is none, nothing is measured.
        every: measure in every k-th step.

    Raises:
        ValueError: `groups` is below 2 or `every` below 1.

    Cost: in a measured step `groups - parts` more forward and backward passes over smaller micro-batches (none where
    accumulation makes that many anyway) and one more copy of the gradients in memory.

    Valid when: examples are independent of one another (no BatchNorm, no in-batch contrast), and the batch is drawn at
    random. What is measured is the gradient of the loss: the scale of a float16 training is divided out, and clipping
    in the task's `before_update` comes after it. With `loss_weight` tr(Σ) is that of a ratio, `E[w² |g_i - G|²] ÷
    E[w]²` over examples with `w` terms, up to 1 ÷ the examples of a group. One probe measures one run.
    """

    def __init__(self, *, groups: int = 2, every: int = 4) -> None:
        if groups < 2 or every < 1:
            raise ValueError(f"groups is {groups} and every is {every}; at least 2 groups, every 1 step")
        self._wanted, self._every = groups, every
        self._sums: list[Tensor | None] = []
        self._square_norms: list[Tensor] = []
        self._shares: list[float] = []
        self._scale = 1.0

    def groups(self, step: int, batch_size: int, parts: int) -> int:
        """Number of groups: the nearest to the wanted that divides the batch and is a multiple of `parts`; else 0."""
        if step % self._every:
            return 0
        most = max(parts, 4 * self._wanted)
        possible = [n for n in range(parts, most + 1, parts) if n > 1 and batch_size % n == 0]
        return min(possible, key=lambda n: abs(n - self._wanted), default=0)

    @torch.no_grad()
    def after_micro_batch(self, parameters: Sequence[nn.Parameter], share: float, scale: float) -> None:
        """Take the squared norm of what this group added to the gradient."""
        if not self._square_norms:
            self._sums = [None] * len(parameters)
        squares: list[Tensor] = []
        for i, parameter in enumerate(parameters):
            if parameter.grad is None:
                continue
            gradient = parameter.grad.to_dense()
            if (before := self._sums[i]) is None:
                squares.append(square_norm(gradient))
                self._sums[i] = gradient.clone()
            else:
                squares.append(square_norm(before.sub_(gradient)))
                before.copy_(gradient)
        self._square_norms.append(torch.stack(squares).sum())
        self._shares.append(share)
        self._scale = scale

    def after_step(self, step: int, batch_size: int) -> Row | None:
        """Row of the step; none where a norm is not finite."""
        n, shares = len(self._square_norms), self._shares
        whole = torch.stack([square_norm(total) for total in self._sums if total is not None]).sum()
        *squares, square_of_mean = (torch.stack([*self._square_norms, whole]) / self._scale**2).tolist()
        self._sums, self._square_norms, self._shares = [], [], []
        mean_square = equal_groups(squares, shares, square_of_mean)
        if not (math.isfinite(mean_square) and math.isfinite(square_of_mean)):
            return None
        return {
            "kind": "noise",
            "step": step,
            "examples": step * batch_size,
            "groups": n,
            "group_size": batch_size // n,
            "mean_square_norm": mean_square,
            "square_norm_of_mean": square_of_mean,
        }
