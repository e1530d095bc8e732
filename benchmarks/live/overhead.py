"""What the noise monitor costs a training, for each source, beside Opacus for the same statistic.

    python benchmarks/live/overhead.py            # about 5 minutes on one core
    python benchmarks/live/overhead.py --quick    # half a minute; writes nothing

Three models (an MLP, a CNN with group normalisation, a transformer) train on fixed data, on one thread. Two copies of
each take turns in one process: a block of steps without anything, a block with what is timed, in an order that changes
from pair to pair. The cost is the median over the pairs of the ratio of their CPU seconds, less 1, with the quartiles.
`every step` is a monitor that may take all the time (`share=1`), so that each step is measured; `thinned out` is the
monitor as it is by default, and `by its own account` its `reading.overhead` then. Its clock stands still while the
other copy trains.

Opacus computes the norms of per-example gradients in every step, with per-sample gradients (`GradSampleModule`) and
with ghost norms (`GradSampleModuleFastGradientClipping`). Before anything is timed, its two norms of a first step are
compared with those of our source: they must agree within 0.1 %. Without Opacus its rows are left out.

The result goes to `benchmarks/results/live-overhead.json`, the table beside it.
"""

from __future__ import annotations

import argparse
import copy
import math
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.append(str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from batchscope import NoiseMonitor
from batchscope.live.sources import CANDIDATES
from batchscope.live.sources.per_example import PerExampleSource
from batchscope.live.window import Window
from record import RESULTS, write

SECONDS, BLOCK_SECONDS = 7.0, 0.15
QUICK_SECONDS, QUICK_BLOCK_SECONDS = 0.5, 0.03
FEWEST_PAIRS = 3
CLASSES = 10
SOURCES = ("micro-batches", "split", "per-example", "norm-layers", "moments")
"""Of one process; those that the library has."""

clock = time.process_time


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.attention(self.before_attention(x)).chunk(3, -1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        x = x + self.out(mixed)
        return x + self.down(F.gelu(self.up(self.before_mlp(x))))


class Transformer(nn.Module):
    def __init__(self, *, words: int = 256, width: int = 64, length: int = 32) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(Block(width, 4), Block(width, 4))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, words)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids) + self.places(torch.arange(ids.shape[1]).repeat(len(ids), 1))
        return self.head(self.norm(self.blocks(x)))


def make_mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, CLASSES))


def make_cnn() -> nn.Module:
    first = (nn.Conv2d(3, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.ReLU(), nn.MaxPool2d(2))
    second = (nn.Conv2d(16, 32, 3, padding=1), nn.GroupNorm(4, 32), nn.ReLU(), nn.MaxPool2d(2))
    return nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(512, CLASSES))


Batch = tuple[Tensor, Tensor]


def vectors(examples: int) -> Batch:
    return torch.randn(examples, 64), torch.randint(CLASSES, (examples,))


def images(examples: int) -> Batch:
    return torch.randn(examples, 3, 16, 16), torch.randint(CLASSES, (examples,))


def texts(examples: int) -> Batch:
    ids = torch.randint(256, (examples, 33))
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """Mean over the examples."""
    return F.cross_entropy(model(batch[0]).flatten(0, -2), batch[1].flatten())


@dataclass(frozen=True, kw_only=True)
class Case:
    name: str
    make: Callable[[], nn.Module]
    draw: Callable[[int], Batch]
    batch_size: int


CASES = (
    Case(name="MLP", make=make_mlp, draw=vectors, batch_size=128),
    Case(name="CNN", make=make_cnn, draw=images, batch_size=64),
    Case(name="transformer", make=Transformer, draw=texts, batch_size=16),
)


class Training:
    """A model, its AdamW and fixed batches; `micro_batches` backward passes make a step."""

    def __init__(self, case: Case, model: nn.Module, *, micro_batches: int = 1) -> None:
        torch.manual_seed(0)
        self.model, self.micro_batches = model, micro_batches
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        self.batches = [case.draw(case.batch_size) for _ in range(8)]
        self.before: Callable[[Batch], object] | None = None
        self.after: Callable[[], object] | None = None
        self.steps = 0

    def step(self) -> None:
        x, y = self.batches[self.steps % len(self.batches)]
        self.steps += 1
        for part in zip(x.chunk(self.micro_batches), y.chunk(self.micro_batches), strict=True):
            if self.before is not None:
                self.before(part)
            (loss(self.model, part) / self.micro_batches).backward()
        if self.after is not None:
            self.after()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def block(self, steps: int) -> float:
        """CPU seconds of some steps."""
        began = clock()
        for _ in range(steps):
            self.step()
        return clock() - began


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Time with something ÷ time without it, less 1."""

    median: float
    low: float
    """Lower quartile over the pairs."""
    high: float
    pairs: int
    steps: int
    """Of a block."""
    plain_step_s: float
    own_account: float | None = None
    readings: int | None = None


class Stopped:
    """Clock that stands still while the other copy trains."""

    def __init__(self) -> None:
        self.elsewhere = 0.0

    def __call__(self) -> float:
        return clock() - self.elsewhere


def pairs(
    plain: Training, other: Training, steps: int, seconds: float, stopped: Stopped
) -> Iterator[tuple[float, float]]:
    """CPU seconds of a block of each, in turn, the first of a pair changing."""
    ends, number = clock() + seconds, 0
    while clock() < ends or number < FEWEST_PAIRS:
        took = dict[Training, float]()
        for training in (plain, other) if number % 2 else (other, plain):
            took[training] = training.block(steps)
            if training is plain:
                stopped.elsewhere += took[plain]
        yield took[plain], took[other]
        number += 1


def compare(plain: Training, other: Training, *, seconds: float, block: float, stopped: Stopped | None = None) -> Cost:
    """Cost of what `other` does beside its steps."""
    stopped = stopped or Stopped()
    for training in (other, plain):
        training.block(5)
    typical = statistics.median(plain.block(1) for _ in range(5))
    stopped.elsewhere = 0.0
    steps = max(1, round(block / typical))
    measured = list(pairs(plain, other, steps, seconds, stopped))
    ratios = [with_it / without - 1 for without, with_it in measured]
    low, median, high = statistics.quantiles(ratios, n=4)
    each = statistics.median(without for without, _ in measured) / steps
    return Cost(median=median, low=low, high=high, pairs=len(ratios), steps=steps, plain_step_s=each)


def monitored(case: Case, source: str, *, share: float, seconds: float, block: float) -> Cost | str:
    """Cost of a monitor with one source, or why it gives no number."""
    n = 2 if source == "micro-batches" else 1
    model = case.make()
    plain, other = Training(case, copy.deepcopy(model), micro_batches=n), Training(case, model, micro_batches=n)
    stopped = Stopped()
    facts: dict[str, Any] = {"loss": loss} if source == "split" else {}
    monitor = NoiseMonitor(
        model,
        other.optimizer,
        batch_size=case.batch_size,
        source=source,
        share=share,
        clock=stopped,
        geometry="euclidean",
        **facts,
    )
    if source == "split":
        other.before = lambda batch: monitor.micro_batch(batch=batch)
    with monitor:
        cost = compare(plain, other, seconds=seconds, block=block, stopped=stopped)
        reading = monitor.read()
    readings = reading.gradient_noise_scale.n
    if not readings:
        return reading.reason
    return Cost(**{**asdict(cost), "own_account": reading.overhead, "readings": readings})


def opacus_ways() -> Mapping[str, Callable[[nn.Module], tuple[nn.Module, Callable[[], Tensor]]]]:
    """Each wraps a model; after a backward pass the function gives the norms of the examples' gradients."""
    if find_spec("opacus") is None:
        return {}
    from opacus.grad_sample import GradSampleModule
    from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import GradSampleModuleFastGradientClipping

    def per_sample(model: nn.Module) -> tuple[nn.Module, Callable[[], Tensor]]:
        wrapped: Any = GradSampleModule(model, loss_reduction="mean")

        def norms() -> Tensor:
            each = [p.grad_sample.flatten(1).norm(dim=1) for p in wrapped.parameters()]
            for parameter in wrapped.parameters():
                parameter.grad_sample = None
            return torch.stack(each).norm(dim=0)

        return wrapped, norms

    def ghost(model: nn.Module) -> tuple[nn.Module, Callable[[], Tensor]]:
        wrapped: Any = GradSampleModuleFastGradientClipping(model, loss_reduction="mean", use_ghost_clipping=True)
        return wrapped, wrapped.get_norm_sample

    return {"Opacus, per-sample gradients": per_sample, "Opacus, ghost norms": ghost}


def two_norms(model: nn.Module, norms: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
    """Mean square norm of the examples' gradients, and the square norm of their mean."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return norms().square().mean(), torch.stack([g.square().sum() for g in gradients]).sum()


def by_opacus(case: Case, way: Callable[[nn.Module], Any], *, seconds: float, block: float) -> Cost:
    """Cost of the same statistic in every step, by Opacus."""
    model = case.make()
    plain = Training(case, copy.deepcopy(model))
    wrapped, norms = way(copy.deepcopy(model))
    other = Training(case, wrapped)
    check(case, model, wrapped, norms, other.batches[0])
    other.after = lambda: [float(each) for each in two_norms(wrapped, norms)]
    return compare(plain, other, seconds=seconds, block=block)


def check(case: Case, model: nn.Module, wrapped: nn.Module, norms: Callable[[], Tensor], batch: Batch) -> None:
    """Compare the two norms of one batch with those of our source.

    Raises:
        AssertionError: they differ by more than 0.1 %.
    """
    source = PerExampleSource()
    source.attach(model, torch.optim.SGD(model.parameters(), lr=0.0))
    loss(model, batch).backward()
    row = source.take(Window(step=0, examples_before=0, batch_size=case.batch_size))
    source.detach()
    assert row is not None, source.reason
    loss(wrapped, batch).backward()
    theirs = [float(each) for each in two_norms(wrapped, norms)]
    ours = [row["mean_square_norm"], row["square_norm_of_mean"]]
    assert all(math.isclose(a, b, rel_tol=1e-3) for a, b in zip(ours, theirs, strict=True)), (case.name, ours, theirs)
    wrapped.zero_grad()


def measure(seconds: float, block: float) -> list[dict[str, Any]]:
    """Rows of the table."""
    rows: list[dict[str, Any]] = []
    known = {candidate.name for candidate in CANDIDATES}

    def add(case: Case, what: str, **costs: Cost | str) -> None:
        told = {key: asdict(cost) if isinstance(cost, Cost) else cost for key, cost in costs.items()}
        rows.append({"model": case.name, "what": what, **told})
        print(line(rows[-1]), flush=True)

    for case in CASES:
        norm_layers = any(isinstance(m, nn.LayerNorm | nn.GroupNorm) for m in case.make().modules())
        for source in SOURCES:
            if source not in known or (source == "norm-layers" and not norm_layers):
                continue
            each = monitored(case, source, share=1.0, seconds=seconds, block=block)
            add(
                case, source, every_step=each, thinned=monitored(case, source, share=0.01, seconds=seconds, block=block)
            )
        for name, way in opacus_ways().items():
            add(case, name, every_step=by_opacus(case, way, seconds=seconds, block=block))
    return rows


HEAD = """| model | what | every step | thinned out | by its own account | readings |
| --- | --- | --- | --- | --- | --- |"""


def line(row: Mapping[str, Any]) -> str:
    """Row of the table in Markdown."""
    thinned = row.get("thinned")
    facts = thinned if isinstance(thinned, Mapping) else {}
    account = f"{facts['own_account']:.2%}" if facts else ""
    cells = (row["model"], row["what"], told(row["every_step"]), told(thinned), account, str(facts.get("readings", "")))
    return f"| {' | '.join(cells)} |"


def told(cost: Any) -> str:
    if not isinstance(cost, Mapping):
        return cost or "–"
    return f"{cost['median']:+.1%} ({cost['low']:+.1%} to {cost['high']:+.1%})"


def main(arguments: Sequence[str] | None = None) -> int:
    """Time everything; the table is written beside the raw numbers."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args(arguments).quick
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="opacus")
    warnings.filterwarnings("ignore", message="Full backward hook is firing")
    load = os.getloadavg()
    print(HEAD, flush=True)
    rows = measure(*((QUICK_SECONDS, QUICK_BLOCK_SECONDS) if quick else (SECONDS, BLOCK_SECONDS)))
    if not quick:
        write("live-overhead", {"rows": rows, "load_before": load, "load_after": os.getloadavg()})
        (RESULTS / "live-overhead.md").write_text("\n".join([HEAD, *map(line, rows)]) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
