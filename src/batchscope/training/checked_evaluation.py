"""Evaluations of one run: made, timed, and looked at for what would make the run meaningless."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ..errors import TaskError
from ..hardware.random_state import RandomState
from ..store.records import Row, RunConfig
from ..tasks.model_state import ModelState, difference, fingerprint
from ..tasks.workload import Workload

__all__ = ["CheckedEvaluations"]


class CheckedEvaluations:
    """The evaluations of one run.

    Args:
        workload: the task on its device.
        config: of the run, which messages name.

    Attributes:
        made: how many, the one before the first step included.
        seconds: that they took, by the device's clock.
    """

    def __init__(self, workload: Workload, config: RunConfig) -> None:
        self._workload, self._config = workload, config
        self.made, self.seconds = 0, 0.0
        self._metrics: list[str] | None = None

    def go_on(self, rows: Sequence[Row]) -> None:
        """Go on after evaluations of the run that another process made, the one before the first step included."""
        self.made, self.seconds = len(rows), float(rows[-1].get("evaluation_seconds") or 0.0)
        self._metrics = sorted(rows[-1]["metrics"])

    def at_start(self, model: nn.Module, averaged: nn.Module | None = None) -> dict[str, float]:
        """The metrics before the first step: those of an earlier run that began with the same weights, if there was.

        Weights follow from the seed; the number of threads may move the last digits. Errors as for `evaluate`.
        """
        known = self._workload.metrics_at_start
        begins = self._config.seed, self._config.num_threads
        if begins in known:
            self.made, self._metrics = 1, sorted(known[begins])
        else:
            known[begins] = self.evaluate(model, 0, averaged)
        return dict(known[begins])

    def evaluate(self, model: nn.Module, step: int, averaged: nn.Module | None = None) -> dict[str, float]:
        """The metrics of the model after a step, and beside them, as `ema_<metric>`, those of its averaged weights.

        What it draws at random, if only the seed of a `DataLoader`, is not taken from the training: a run makes the
        same steps however often it is evaluated.

        Whether the model is left as it was is looked at in the 1st, 2nd, 3rd, 5th, 9th, ... evaluation: it takes a
        pass over the weights, and who changes a model once does so again.

        Raises:
            TaskError: `evaluate` failed, returned other metrics than before, or changed the model.
        """
        looked_at = not self.made & (self.made - 1)
        self.made += 1
        before = fingerprint(model) if looked_at else {}
        random = RandomState.capture()
        clock = self._workload.device.clock
        started = clock()
        try:
            metrics = self._workload.all_metrics(model, averaged)
        except TaskError as error:
            raise TaskError(f"{error}; {self._where(step)}") from error
        finally:
            random.restore()
        self.seconds += clock() - started
        if looked_at:
            self._check_model(before, fingerprint(model), step)
        self._check_metrics(sorted(metrics), step)
        return metrics

    def _check_model(self, before: ModelState, after: ModelState, step: int) -> None:
        if name := difference(before, after):
            raise TaskError(
                f"evaluate(model) changed the model ({name}); {self._where(step)}. It must only read the model: change "
                "a copy, and leave it in evaluation mode, in which batch normalisation keeps its statistics"
            )

    def _check_metrics(self, names: list[str], step: int) -> None:
        if self._metrics is None:
            self._metrics = names
        if names != self._metrics:
            raise TaskError(
                f"evaluate(model) returned {', '.join(names)}, and {', '.join(self._metrics)} before; "
                f"{self._where(step)}. It must return the same metrics each time, NaN for one that has no value"
            )

    def _where(self, step: int) -> str:
        config = self._config
        return (
            f"it was evaluation {self.made} of the run with batch size {config.batch_size} and learning rate "
            f"{config.lr:.3g}, after step {step}; finished runs are kept"
        )
