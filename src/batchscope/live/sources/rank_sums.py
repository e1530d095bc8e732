"""Sums over the ranks of a training, as the sources of data-parallel trainings use them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch.distributed as dist
from torch import nn

from ..window import Window
from .exchange import Exchange, Post

__all__ = ["RankSums", "Sums"]

_WAIT = "the numbers of all ranks come together two measured windows later"


@dataclass(frozen=True, kw_only=True)
class Sums:
    """Numbers of one measured window, added up over ranks; equal on all of them."""

    step: int
    examples_before: int
    batch_size: int
    values: tuple[float, ...]
    same: float
    """What all ranks read alike."""


class RankSums:
    """Sums over the ranks of a process group of what each of them read in a measured window; see `exchange.Exchange`.

    Args:
        group: that averages the gradients.
        model: the same on all ranks; the names and shapes of its parameters tell it from another one.

    Attributes:
        size: ranks in the group.
        reason: why the last `end_window` had no sums.
        ended: whether no rank measures any more; `reason` says why.
    """

    def __init__(self, group: dist.ProcessGroup, model: nn.Module) -> None:
        ranks = dist.get_process_group_ranks(group)
        shapes = repr([(name, tuple(parameter.shape)) for name, parameter in model.named_parameters()])
        name = f"{ranks[0]}-{len(ranks)}-{hashlib.sha256(shapes.encode()).hexdigest()[:16]}"
        store = dist.distributed_c10d._get_default_store()  # pyright: ignore[reportPrivateUsage]
        self.size, self.reason, self.ended = len(ranks), "", False
        self._wish, self._next = 1, 0
        self._exchange = Exchange(store, rank=dist.get_rank(group), size=self.size, name=name)

    def may_measure(self, step: int, interval: Callable[[], int]) -> bool:
        """Whether all ranks measure the window that begins now.

        Args:
            step: optimizer steps before it.
            interval: every how many steps this rank can afford to measure; asked where it measures.
        """
        if self.ended or step < self._next:
            return False
        self._wish = interval()
        return True

    def end_window(
        self, window: Window, values: Sequence[float], *, same: float = 0.0, skipped: str = "", failure: str = ""
    ) -> Sums | None:
        """Hand over what this rank read in a window; get the sums of an earlier one, or `None` and a `reason`.

        Args:
            window: that has just ended.
            values: to be added up over ranks, as many in each window.
            same: a number that all ranks must agree on.
            skipped: why this rank has no numbers of this window: then nobody has.
            failure: why this rank will have no more numbers: all ranks then end in the same window.
        """
        if self.ended:
            return None
        post = Post(
            step=window.step,
            values=(float(window.examples_before), float(window.batch_size), *values),
            same=same,
            every=self._wish,
            skipped=skipped,
            reason=failure,
        )
        total = self._exchange.end_window(post)
        self._next = window.step + (1 if total is None else max(1, total.every))
        if total is None:
            self.reason = _WAIT
            return None
        self.reason, self.ended = total.reason or total.skipped, bool(total.reason)
        if self.reason:
            return None
        before, batch, *sums = total.values
        return Sums(
            step=total.step,
            examples_before=round(before / self.size),
            batch_size=round(batch / self.size),
            values=tuple(sums),
            same=total.same,
        )
