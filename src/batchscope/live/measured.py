"""Signal, noise and their ratio from a run's rows, in the geometry in which there is a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..fits.dual_noise import estimate_dual
from ..fits.noise_scale import estimate, estimate_parts
from ..store.records import Estimate, Row

__all__ = ["Measured", "in_geometry"]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Noise scale in the geometry in which there is one."""

    geometry: str
    gradient_noise_scale: Estimate
    signal: Estimate
    noise: Estimate
    reason: str = ""
    """Why the geometry that was asked for has no value."""
    notes: tuple[str, ...] = ()
    """Why it is not in the optimizer's own geometry."""


def in_geometry(rows: Sequence[Row], geometry: str, *, asked: bool, examples: int | None = None) -> Measured:
    """Gradient noise scale of one run in a geometry, or in the Euclidean one where that has no value.

    Args:
        rows: one run's rows in the order of its steps.
        geometry: `"euclidean"`, or one of `fits.dual_noise.estimate_dual`.
        asked: whether the geometry was asked for; then there is no other in its place.
        examples: as for `fits.noise_scale.estimate`; dual norms take batches as independent.
    """
    reason = ""
    if geometry != "euclidean":
        dual = estimate_dual(rows, geometry=geometry)
        if asked or not dual.reason:
            return Measured(
                geometry=geometry,
                gradient_noise_scale=dual.gradient_noise_scale,
                signal=dual.signal,
                noise=dual.noise,
                reason=dual.reason,
            )
        reason = f"the noise scale is Euclidean, and not in the optimizer's own geometry ({geometry}): {dual.reason}"
    signal, noise = estimate_parts(rows, examples=examples)
    return Measured(
        geometry="euclidean",
        gradient_noise_scale=estimate(rows, examples=examples),
        signal=signal,
        noise=noise,
        notes=(reason,) if reason and rows else (),
    )
