"""Noise row of the groups of all ranks: what each rank adds up about its own, and the row of the sums."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ...fits.noise_scale import equal_groups_from_sums
from ...store.records import Row
from .rank_sums import Sums

__all__ = ["SHARES", "row_of", "shares_of"]

SHARES = 7
"""Numbers of `shares_of`."""


def shares_of(groups: int, *, weights: Sequence[float], sizes: Sequence[int]) -> list[float]:
    """What a rank adds to the sums about the shares of its groups.

    Ranks have equal shares in the mean of their gradients, whatever their examples; where weights are told, the shares
    are in proportion to them over all ranks.

    Returns:
        `n, Σ w_j, Σ w_j², Σ w_j² ÷ b_j, Σ b_j`, and whether weights and sizes were told.
    """
    parts: Sequence[float] = weights or sizes or (1.0,) * groups
    if not weights:
        whole = math.fsum(parts)
        parts = [part / whole for part in parts]
    return [
        float(groups),
        math.fsum(parts),
        math.fsum(part**2 for part in parts),
        math.fsum(part**2 / size for part, size in zip(parts, sizes, strict=True)) if sizes else 0.0,
        float(sum(sizes)),
        float(bool(weights)),
        float(bool(sizes)),
    ]


def row_of(
    sums: Sums,
    ranks: int,
    *,
    squares: float,
    square_of_mean: float,
    layers: Mapping[str, tuple[float, float]] | None = None,
) -> Row | str:
    """Noise row of the groups of all ranks, or why there is none.

    With shares `s_j` in proportion to numbers of terms the step has the noise of its examples. Where the shares are not
    the groups' own (each rank counts the same), it has that of fewer: `1 ÷ Σ s_j² / b_j`
    (`fits.noise_scale.effective_batch_size`).

    Args:
        sums: the first seven of their values are those of `shares_of`.
        ranks: that were added up.
        squares: `Σ |s_j g_j|²` over all groups.
        square_of_mean: `|Σ s_j g_j|²`.
        layers: the last two for each layer.
    """
    n, weight, square_weight, by_size, examples, weighted, sized = sums.values[:SHARES]
    for what, told in (("examples", sized), ("a weight", weighted)):
        if told not in (0, ranks):
            return f"micro_batch() told {what} on {told:.0f} of {ranks} ranks; call it on all of them"
    groups = round(n)
    if groups < 2:
        return "one backward pass in the step, on one rank"
    together = square_weight / weight**2
    if math.isclose(together, 1 / groups, rel_tol=1e-9):
        together = 1 / groups
    batch = float(sums.batch_size)
    if sized:
        batch = examples if weighted and together != 1 / groups else weight**2 / by_size

    def equal(total: float, mean: float) -> float:
        return equal_groups_from_sums(total, groups=groups, together=together, square_norm_of_mean=mean)

    row: Row = {
        "kind": "noise",
        "step": sums.step,
        "examples": sums.examples_before,
        "groups": groups,
        "group_size": batch / groups,
        "mean_square_norm": equal(squares, square_of_mean),
        "square_norm_of_mean": square_of_mean,
    }
    if layers is not None:
        row["layers"] = {name: [equal(total, mean), mean] for name, (total, mean) in layers.items()}
    if math.isfinite(row["mean_square_norm"]) and math.isfinite(square_of_mean):
        return row
    return "a gradient of the step was not finite"
