"""How often the 90 % interval of the gradient noise scale covers the truth, and how biased signal and noise are.

    python benchmarks/live/coverage.py             # 200 seeds a row, one core
    python benchmarks/live/coverage.py --quick     # 10 seeds

Each row is a training whose noise is known exactly at every step (`batchscope.testing.known_noise`), read by
`NoiseMonitor` from one of its sources in a plain loop, or by the function behind the command `noise` on a finite data
set. `high` and `low` count intervals that lie wholly above or below the truth, `open` those without an upper end. Bias
is that of the mean over the seeds against the exact value, in standard errors.

A second table has the noise scale in the sign geometry, on simulated gradients of 2,000 coordinates: the value against
the truth by the batch size and the ratio of the two bounds.

The result goes to `benchmarks/results/coverage.json`; 1 where a coverage is not 85 to 95 % or a bias above 3.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from batchscope.fits.dual_noise import estimate_dual
from batchscope.live.geometry import DualNorms
from batchscope.live.sources import CANDIDATES
from batchscope.testing.known_noise import KNOWN, Read, read_by_command, read_by_monitor

sys.path.append(str(Path(__file__).resolve().parents[1]))
from record import write

SEEDS = 200
BOUNDS = (0.85, 0.95)
SOURCES = {"micro-batches": 2, "split": 1, "per-example": 1}
"""Backward passes a step, by the source; all trainings with the first, two with the others."""
OTHERS = ("regression, weights fixed", "regression, fast")
BY_COMMAND = ("regression, slow", "regression, fast")


def rows_to_measure() -> list[tuple[str, str]]:
    there = [candidate.name for candidate in CANDIDATES if candidate.name in SOURCES]
    found = [(name, source) for source in there for name in (KNOWN if source == "micro-batches" else OTHERS)]
    return [*found, *((name, "command noise") for name in BY_COMMAND)]


def read(name: str, source: str, seed: int) -> Read:
    if source == "command noise":
        return read_by_command(KNOWN[name], seed=seed)
    return read_by_monitor(KNOWN[name], seed=seed, source=source, parts=SOURCES[source])


def in_standard_errors(differences: Sequence[float]) -> float:
    return float(np.mean(differences) / (np.std(differences, ddof=1) / math.sqrt(len(differences))))


def row_of(name: str, source: str, found: Sequence[Read]) -> dict[str, Any]:
    truths = [read.truth[1] / read.truth[0] for read in found]
    scales = [read.gradient_noise_scale for read in found]
    above = sum((e.low or 0.0) > t for e, t in zip(scales, truths, strict=True))
    row: dict[str, Any] = {
        "training": name,
        "source": source,
        "seeds": len(found),
        "coverage": sum(read.covered for read in found) / len(found),
        "high": above,
        "low": sum(not read.covered for read in found) - above,
        "open": sum(e.high is None for e in scales),
        "noise_scale": float(np.median(truths)),
    }
    for key, at in (("signal", 0), ("noise", 1)):
        values = [getattr(read, key) for read in found]
        if None not in values:
            row[f"bias_of_{key}"] = in_standard_errors([v - r.truth[at] for v, r in zip(values, found, strict=True)])
    return row


def line_of(row: dict[str, Any]) -> str:
    return "  ".join(f"{key} {v:.3g}" if isinstance(v, float) else f"{key} {v}" for key, v in row.items())


def sign_rows(repeats: int) -> list[dict[str, Any]]:
    """The estimator of the sign geometry, by the distribution of the coordinates and the batch size."""
    generator, size, rows = torch.Generator().manual_seed(0), 2000, list[dict[str, Any]]()
    normal = torch.randn(size, generator=generator, dtype=torch.float64)
    kinds = {
        "normal": normal,
        "equal": torch.ones(size, dtype=torch.float64),
        "one in ten": normal * (torch.rand(size, generator=generator) < 0.1),
    }
    norms = DualNorms("sign", [torch.nn.Parameter(normal)])
    for kind, gradient in kinds.items():
        deviation = 10.0 * torch.exp(0.5 * torch.randn(size, generator=generator, dtype=torch.float64))
        truth = 2 / math.pi * float(deviation.sum() / gradient.abs().sum()) ** 2
        for times in (0.3, 1, 3, 10, 100):
            b = max(1, round(times * truth / 2))
            found = list[dict[str, Any]]()
            for _ in range(repeats):
                draws = torch.randn(2, size, generator=generator, dtype=torch.float64) * deviation / math.sqrt(b)
                found.append({"kind": "noise", **norms.row([[gradient + draw] for draw in draws], [b, b])})
            said = estimate_dual(found, geometry="sign")
            scale = said.gradient_noise_scale
            bounds = [float(np.mean([row[key] for row in found])) for key in ("norm_of_mean", "aligned")]
            rows.append(
                {
                    "coordinates": kind,
                    "batch": times,
                    "bounds": bounds[0] / bounds[1],
                    "value": None if scale.value is None else scale.value / truth,
                    "low": None if scale.low is None else scale.low / truth,
                    "high": None if scale.high is None else scale.high / truth,
                }
            )
    return rows


def main() -> int:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--quick", action="store_true")
    seeds = 10 if arguments.parse_args().quick else SEEDS
    torch.set_num_threads(1)
    began, rows = time.process_time(), list[dict[str, Any]]()
    for name, source in rows_to_measure():
        rows.append(row_of(name, source, [read(name, source, seed) for seed in range(seeds)]))
        print(line_of(rows[-1]), flush=True)
    sign = sign_rows(5 if seeds < SEEDS else 40)
    for row in sign:
        print(line_of(row))
    seconds = time.process_time() - began
    if seeds == SEEDS:
        write("coverage", {"cpu_seconds": seconds, "bounds": BOUNDS, "rows": rows, "sign": sign})
    biases = [abs(value) for row in rows for key, value in row.items() if key.startswith("bias")]
    wrong = [row for row in rows if not BOUNDS[0] <= row["coverage"] <= BOUNDS[1]]
    print(f"{len(wrong)} of {len(rows)} coverages out of bounds, largest bias {max(biases):.2f} standard errors")
    print(f"{seconds:.0f} s of one core")
    return int(bool(seeds == SEEDS and wrong) or max(biases) > 3)


if __name__ == "__main__":
    sys.exit(main())
