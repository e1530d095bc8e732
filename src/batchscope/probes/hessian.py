"""The curvature of the training loss: its largest Hessian eigenvalue and its trace, from Hessian-vector products.

The products are those of curvlinops (Dangel et al.), the extra `[hessian]`; this is the only file that knows it. The
eigenvalue is ARPACK's (Lanczos), through SciPy.
"""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import ArpackNoConvergence, aslinearoperator, eigsh
from torch import Tensor, nn

from ..errors import TaskError, UsageError
from ..fits import intervals
from ..hardware.device import is_out_of_memory
from ..hardware.random_state import preserved_random_state
from ..store.not_applicable import NotApplicable
from ..store.records import Estimate
from ..tasks.workload import Workload
from .base import twin
from .fixed_loss import FixedLoss

__all__ = ["Curvature", "measure_curvature"]

Array = NDArray[np.float64]

_UNIT = "loss per squared weight"
_RESTARTS = 50


@dataclass(frozen=True, kw_only=True)
class Curvature:
    """Curvature of the training loss by its Hessian, at one model's weights."""

    sharpness: Estimate
    """Its largest eigenvalue; the ends are the residual away: an eigenvalue lies between them, whatever chance does."""
    trace: Estimate
    """Its trace, the sum of all eigenvalues, with the 90 % interval over the random vectors."""
    loss: float
    gradient_norm: float
    """Where it is not small, the weights are no stationary point."""
    weights: int
    """Trained numbers in the model: rows of the Hessian."""
    examples: int
    """Training examples that the loss is the mean over, in evaluation mode; the intervals do not know the others."""
    training_examples: int
    products: int
    """Hessian-vector products over the examples."""


def measure_curvature(
    workload: Workload,
    model: nn.Module,
    *,
    vectors: int = 30,
    tolerance: float = 1e-3,
    examples: int | None = 10_000,
    seed: int = 0,
    at_once: int = 512,
) -> Curvature | NotApplicable:
    """Measure the largest eigenvalue and the trace of the Hessian of the mean training loss.

    The trace is Hutchinson's estimate, the mean of `vᵀHv` over random sign vectors v, whose variance is
    `2 (‖H‖² − Σ H_ii²)` a vector. (Hutch++ and XTrace pay where the spectrum decays fast. Measured on the perceptron of
    `digits` with 16 units at its start, standard deviation times the root of the products: 4.8, against 6.5 to 8.5 and
    6.2.) A model of at most `vectors` numbers gets its whole Hessian, and both values exactly.

    Args:
        workload: the task on its device.
        model: where the Hessian is taken; it is copied, never changed.
        vectors: random vectors for the trace.
        tolerance: of the eigenvalue, relative.
        examples: training examples at most that the loss is the mean over, a fixed draw; `None`: all.
        seed: of the draw of examples and of the random vectors.
        at_once: examples per product, for memory; the values are the same.

    Returns:
        The record; or why there is none: curvlinops is not installed, the loss is not repeatable (dropout that does
        not follow the mode), or cannot be differentiated twice.

    Raises:
        UsageError: a number makes no sense.

    Cost: `vectors` products for the trace and 20 to 60 for the eigenvalue, `products` has the number; one takes about
    four passes (forward and backward) over the examples, ten where the model is tiny. Measured on one core: the
    perceptron of `digits` 2.1 s, as long as 200 epochs at batch size 64. Memory: activations of `at_once` examples with
    their derivatives in float64, and 20 vectors of the weights.

    Valid when: the loss is twice differentiable almost everywhere (ReLU's kinks are passed over), is repeatable in
    evaluation mode, and examples of a batch do not depend on one another. Like Keskar's box, both values change when
    ReLU layers are rescaled against each other (Dinh et al. 2017), and neither predicts the test error.

    Source: Hutchinson 1989; Lehoucq et al. 1998 (ARPACK); Cohen et al. 2021 for what the eigenvalue means to a learning
    rate: gradient descent at learning rate η rides at 2/η.
    """
    if vectors < 2 or not 0 < tolerance < 1:
        raise UsageError(f"{vectors} vectors to a tolerance of {tolerance:g} make no sense; at least 2, within 0 and 1")
    library = _curvlinops()
    if isinstance(library, NotApplicable):
        return library
    with preserved_random_state(seed):
        try:
            loss = FixedLoss(workload, twin(workload, model), examples=examples, seed=seed, at_once=at_once)
            torch.manual_seed(seed)
            return _measure(_Hessian(library, loss), vectors, tolerance, seed)
        except TaskError as error:
            return NotApplicable(reason=str(error))


def _curvlinops() -> Any:
    """Module `curvlinops`; or, where it is not installed, the reason why nothing is measured."""
    try:
        with _jit_script_used():
            return importlib.import_module("curvlinops")
    except ImportError as error:
        return NotApplicable(
            reason=f"the Hessian's eigenvalue and trace need curvlinops 3, which is not installed here ({error}); "
            'install the extra: pip install -c constraints.txt ".[hessian]", or "batchscope[hessian]"'
        )


@contextmanager
def _jit_script_used() -> Generator[None]:
    """Allow `torch.jit.script`, which torch deprecates, and curvlinops and torch's forward derivatives call."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.script", category=DeprecationWarning)
        yield


class _Objective(nn.Module):
    """Objective, the model and the task's loss in one, as curvlinops wants its model."""

    def __init__(self, loss: FixedLoss) -> None:
        super().__init__()
        self.model = loss.model
        self._loss = loss

    def forward(self, data: dict[str, Any]) -> Tensor:
        # vmap wants every block of a product to depend on the vector, that of an unused parameter too.
        nothing = sum(0.0 * parameter.square().sum() for parameter in self.model.parameters())
        return self._loss.loss_of(self.model, data["batch"]) + nothing


class _AlreadyTheLoss(nn.Module):
    reduction = "mean"

    def forward(self, loss: Tensor, target: Tensor) -> Tensor:
        return loss


class _Hessian:
    """Hessian as its products with vectors, counted; SciPy takes it for a linear operator."""

    def __init__(self, library: Any, loss: FixedLoss) -> None:
        self.library, self.loss = library, loss
        parts = zip(loss.batches, loss.terms, strict=True)
        self.operator = library.HessianLinearOperator(
            _Objective(loss),
            _AlreadyTheLoss(),
            loss.parameters,
            [({"batch": batch, "terms": terms}, torch.zeros(())) for batch, terms in parts],
            check_deterministic=False,
            num_data=sum(loss.terms),
            batch_size_fn=lambda data: data["terms"],
        )
        self.rows: int = self.operator.shape[0]
        self.shape, self.dtype = (self.rows, self.rows), np.dtype(np.float64)
        self.products = 0

    def differentiated(self, compute: Callable[[], Tensor]) -> Tensor:
        """Result of a computation with the operator, or the reason that stands in its way."""
        try:
            with self.loss.differentiable(), _jit_script_used():
                found = compute()
        except (TaskError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise
            message = str(error).splitlines()[0]
            raise TaskError(f"the loss cannot be differentiated twice by torch.func: {message}") from error
        if not bool(found.isfinite().all()):
            raise TaskError("the second derivative of the loss is not finite at these weights")
        return found

    def matvec(self, vector: Array) -> Array:
        """Product `H v`, shape (n,), or (n, k) for k vectors."""
        self.products += 1 if vector.ndim == 1 else vector.shape[1]
        right = torch.from_numpy(np.ascontiguousarray(vector)).to(self.loss.parameters[0].device)
        return self.differentiated(lambda: self.operator @ right).cpu().numpy()

    def traces(self, vectors: int) -> list[float]:
        """Values `vᵀ H v` for so many random sign vectors."""
        self.products += vectors
        estimate = self.library.hutchinson_trace
        return [float(self.differentiated(lambda: estimate(self.operator, 1))) for _ in range(vectors)]


def _measure(hessian: _Hessian, vectors: int, tolerance: float, seed: int) -> Curvature:
    value, gradient = hessian.loss.value_and_gradient()
    if hessian.rows <= vectors:
        sharpness, trace = _whole(hessian)
    else:
        sharpness = _largest_eigenvalue(hessian, tolerance, seed)
        trace = intervals.mean(hessian.traces(vectors), unit=_UNIT)
    return Curvature(
        sharpness=sharpness,
        trace=trace,
        loss=value,
        gradient_norm=float(np.linalg.norm(gradient)),
        weights=hessian.rows,
        examples=hessian.loss.examples,
        training_examples=hessian.loss.training_examples,
        products=hessian.products,
    )


def _whole(hessian: _Hessian) -> tuple[Estimate, Estimate]:
    matrix = hessian.matvec(np.eye(hessian.rows))
    largest, trace = float(np.linalg.eigvalsh((matrix + matrix.T) / 2)[-1]), float(np.trace(matrix))
    return _exactly(largest, "the whole Hessian"), _exactly(trace, "the whole Hessian")


def _largest_eigenvalue(hessian: _Hessian, tolerance: float, seed: int) -> Estimate:
    start = np.random.default_rng(seed).standard_normal(hessian.rows)
    if not hessian.matvec(start).any():
        return _exactly(0.0, "the Hessian is zero")
    operator = aslinearoperator(hessian)
    settings: dict[str, Any] = {"k": 1, "which": "LA", "tol": tolerance, "v0": start, "maxiter": _RESTARTS}
    try:
        values, found = eigsh(operator, **settings)
    except ArpackNoConvergence as error:
        method = f"Lanczos did not converge to {tolerance:g} in {hessian.products} products ({error})"
        return Estimate(value=None, low=None, high=None, n=0, unit=_UNIT, method=method)
    value, vector = float(values[0]), found[:, 0]
    residual = float(np.linalg.norm(hessian.matvec(vector) - value * vector))
    assert math.isfinite(residual)
    method = f"Lanczos (ARPACK) to a relative {tolerance:g}; the ends are the residual away"
    return Estimate(value=value, low=value - residual, high=value + residual, n=1, unit=_UNIT, method=method)


def _exactly(value: float, method: str) -> Estimate:
    return Estimate(value=value, low=value, high=value, n=1, unit=_UNIT, method=method)
