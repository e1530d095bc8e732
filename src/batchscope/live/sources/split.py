"""Noise from a batch that is split: the gradients of its halves, computed beside the training every few steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ...errors import TaskError
from ...store.records import Row
from ...tasks.batches import first_dimension
from ...tasks.members import checked_weight
from ...tasks.preflight.coupling import differ, find_batch_norm, rounding_of, without_dropout
from ...tasks.protocol import Batch
from ...tasks.values import rows_of
from ..geometry import DualNorms, NormsOf, euclidean_only
from ..norms import by_layer, norm, square_norms
from ..window import Window, noise_row
from .side_pass import Loss, SidePass, SidePassError

__all__ = ["SplitSource"]


class SplitSource:
    """Two squared norms of the gradients of `groups` equal parts of a batch, for a step of one backward pass.

    `monitor.micro_batch(batch=batch)` hands the batch over before its backward pass. It is cut at random into parts of
    equally many examples (up to `groups - 1` are left out), and the gradient of each part is computed with the weights
    of now. `batch` is all that `loss(model, batch)` needs, with the targets in it: a tuple `(inputs, targets)` will do.
    Each tensor in it has one entry an example along its first dimension, so that parts of it are batches too. Of
    several batches in one step the first is taken.

    Args:
        loss: `(model, batch) -> mean loss` of a batch, as the training computes it, with its autocast and without the
            factor of a gradient scaler. It must use the model that it is given.
        groups: parts. Two cost the least: together one forward and backward pass over the batch.
        loss_weight: `(batch) -> terms in the mean that loss returns`, such as tokens; default: every part counts the
            same.
        scale: factor on the loss while a gradient is computed, asked for each time: that of the gradient scaler.
        layers: also give the two norms of each module that has parameters of its own.
        norms: makes what a row holds in the geometry of the optimizer, of the parameters.

    Attributes:
        name: words for `Reading.source`.
        reason: why the last `take` gave no row.

    Raises:
        ValueError: `groups` is below 2.

    Cost: in a measured step a forward and a backward pass over the batch and `groups` copies of the gradients; in the
    first one also a forward pass over the batch four times, to see whether examples are coupled.

    Valid when: examples are independent of one another. Batch normalisation, and a loss that is not the weighted mean
    over its parts (negatives from the same batch, means over tokens without `loss_weight`), are refused with a reason.
    """

    def __init__(
        self,
        loss: Loss,
        *,
        groups: int = 2,
        loss_weight: Callable[[Batch], float] | None = None,
        scale: Callable[[], float] = lambda: 1.0,
        layers: bool = False,
        norms: NormsOf = euclidean_only,
    ) -> None:
        if groups < 2:
            raise ValueError(f"groups is {groups}; a batch is split in at least 2")
        self.name = f"batches split in {groups}"
        self.reason = ""
        self._loss, self._groups, self._weight, self._scale = loss, groups, loss_weight, scale
        self._layers, self._norms_of = layers, norms
        self._pass: SidePass | None = None
        self._dual: DualNorms | None = None
        self._is_mean = False
        self._seed = 0
        self._found: dict[str, Any] | None = None

    def attach(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Take the next batch."""
        self._pass = SidePass(model, optimizer, self._loss)
        self._dual = self._norms_of(list(self._pass.parameters.values()), optimizer)
        self._found = None
        self.reason = self._pass.refusal or _coupled(self._pass.model)

    def detach(self) -> None:
        """Forget model, batch and gradients."""
        self._pass = self._dual = self._found = None

    def micro_batch(self, batch: Batch) -> None:
        """Measure a batch, before its backward pass: `take` must not find the weights that it has led to."""
        if self._pass is None or self.reason or self._found is not None:
            return
        self._seed += 1
        with torch.no_grad():  # parts of a batch that needs a gradient lead to none of its own
            parts = self._parts(batch)
        if isinstance(parts, str):
            self.reason = parts
            return
        if not self._is_mean and (reason := self._no_mean(self._pass, batch, parts)):
            self.reason = reason
            return
        self._is_mean = True
        try:
            self._found = self._measure(self._pass, parts)
        except SidePassError as error:
            self.reason = str(error)

    def take(self, window: Window) -> Row | None:
        """Noise row of the window, or `None` and `reason`."""
        if self.reason:
            return None
        found = self._found
        if found is None:
            self.reason = "no batch was handed over; call micro_batch(batch=batch) before the backward pass"
            return None
        row = noise_row(window, **found["norms"])
        if row is None:
            self.reason = "a gradient of a part of the batch was not finite"
            return None
        return row | found["dual"]

    def _parts(self, batch: Batch) -> list[tuple[Batch, int]] | str:
        """Equal parts of a batch with their numbers of examples, drawn at random, or why there are none."""
        try:
            count = first_dimension(batch)
        except TaskError:
            return f"a batch of type {type(batch).__name__} holds no tensor with a first dimension to be split along"
        size = count // self._groups
        if not size:
            return f"a batch of {count} cannot be split in {self._groups}"
        order = torch.randperm(count, generator=torch.Generator().manual_seed(self._seed)).tolist()
        parts = [rows_of(batch, order[i * size : (i + 1) * size], count) for i in range(self._groups)]
        if any(part is None for part in parts):
            return (
                f"a batch of type {type(batch).__name__} holds a member without one entry for each of its {count} "
                "examples; hand micro_batch(batch=) a tuple, list or dict of tensors with the examples along the first "
                "dimension"
            )
        return [(part, size) for part in parts]

    def _weights(self, parts: list[tuple[Batch, int]]) -> list[float]:
        return [float(size) if self._weight is None else checked_weight(self._weight(part)) for part, size in parts]

    def _no_mean(self, side: SidePass, batch: Batch, parts: list[tuple[Batch, int]]) -> str:
        """Why the loss of a batch is not the mean over its parts; empty where it is. Asked once."""
        used = sum(size for _, size in parts)
        order = torch.randperm(first_dimension(batch), generator=torch.Generator().manual_seed(self._seed)).tolist()
        whole = rows_of(batch, order[:used], len(order))
        weights = self._weights(parts)
        with without_dropout(side.model):
            one, in_half = side.loss(whole, seed=0)
            again = [side.loss(whole, seed=seed)[0] for seed in (1, 2)]
            losses = [side.loss(part, seed=0)[0] for part, _ in parts]
        apart = math.fsum(w * loss for w, loss in zip(weights, losses, strict=True)) / math.fsum(weights)
        device_type = next(iter(side.parameters.values())).device.type
        rounding = rounding_of(side.model, in_half=in_half, device_type=device_type)
        if not all(map(math.isfinite, (one, apart, *again))):
            return f"the loss of a batch is {one:g}, and {apart:g} as the mean over its parts"
        if not differ(one, apart, again=again, rounding=rounding):
            return ""
        advice = (
            "if it is a mean over terms such as tokens, give loss_weight=; else the examples of a batch depend on one "
            "another (negatives from the same batch), and their gradients have no noise scale"
            if self._weight is None
            else "the examples of a batch depend on one another, or loss_weight is not the number of terms in the mean"
        )
        return f"the loss of {used} examples is {one:.6g}, and {apart:.6g} as the mean over parts of them: {advice}"

    def _measure(self, side: SidePass, parts: list[tuple[Batch, int]]) -> dict[str, Any]:
        weights = self._weights(parts)
        shares = [weight / math.fsum(weights) for weight in weights]
        scale = self._scale()
        gradients = [
            side.gradients(part, seed=self._seed * self._groups + i, scale=scale) for i, (part, _) in enumerate(parts)
        ]
        mean = [_mean(members, shares) for members in zip(*gradients, strict=True)]
        norms = [{i: norm(g) for i, g in enumerate(group) if g is not None} for group in (*gradients, mean)]
        *found, of_mean = square_norms(norms, range(len(mean)), 1.0)
        of_groups = [[share**2 * value for value in squares] for share, squares in zip(shares, found, strict=True)]
        row: dict[str, Any] = {
            "square_norms": [math.fsum(squares) for squares in of_groups],
            "square_norm_of_mean": math.fsum(of_mean),
            "shares": weights,
            "examples": [float(size) for _, size in parts],
        }
        if self._layers:
            names = list(side.parameters)
            layers, whole = [by_layer(names, squares) for squares in of_groups], by_layer(names, of_mean)
            row["layers"] = {name: ([group[name] for group in layers], whole[name]) for name in whole}
        used = sum(size for _, size in parts)
        dual: Row = {}
        if self._dual is not None and all(map(math.isfinite, of_mean)) and math.isfinite(sum(row["square_norms"])):
            dual = self._dual.row(gradients, [share * used for share in shares])
        return {"norms": row, "dual": dual}


def _coupled(model: nn.Module) -> str:
    found = find_batch_norm(model)
    if not found:
        return ""
    return (
        f"{found[0]} is batch normalisation, so the gradient of a part of a batch is not that of its examples in the "
        "whole; accumulated micro-batches can be measured, or put GroupNorm or LayerNorm in its place"
    )


def _mean(members: tuple[Tensor | None, ...], shares: list[float]) -> Tensor | None:
    there = [g * share for g, share in zip(members, shares, strict=True) if g is not None]
    return torch.stack(there).sum(0) if there else None
