"""How well memory is predicted: from readings of up to a quarter of the size, against counted and resident bytes.

    python benchmarks/memory.py

For an MLP, a CNN and a transformer: the memory model is fitted to steps of up to `size` examples; a step of four times
as many is predicted, counted (bytes of living tensors), and run in fresh processes whose resident peak is read from
`/proc/self/status` (VmHWM, reset before the model is made): once as it is, and once with an allocator that gives every
block of over 64 KiB back at once. The difference is what glibc keeps of freed blocks of up to 32 MiB, of which
`transformer_small` is made throughout. The result goes to `benchmarks/results/memory.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from batchscope.hardware.capacity import measure_capacity
from batchscope.tasks.disposable_model import DisposableModel
from batchscope.tasks.protocol import task
from batchscope.tasks.workload import Workload
from record import write

CODES = 96
BEYOND = 4
UNLIMITED = 2**50


class Transformer(nn.Module):
    """An encoder over sequences of codes."""

    def __init__(self, *, width: int, depth: int) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(width, nhead=4, dim_feedforward=4 * width, dropout=0.0, batch_first=True)
        self.embedding = nn.Embedding(CODES, width)
        self.layers = nn.TransformerEncoder(layer, num_layers=depth, enable_nested_tensor=False)
        self.head = nn.Linear(width, CODES)

    def forward(self, codes: Tensor) -> Tensor:
        return self.head(self.layers(self.embedding(codes))).flatten(0, 1)


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(784, 512),
        nn.ReLU(),
        nn.Linear(512, 512),
        nn.ReLU(),
        nn.Linear(512, 512),
        nn.ReLU(),
        nn.Linear(512, 10),
    )


def cnn() -> nn.Module:
    blocks = [
        (nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU(), nn.MaxPool2d(2))
        for a, b in ((3, 32), (32, 64), (64, 128))
    ]
    return nn.Sequential(*(layer for block in blocks for layer in block), nn.Flatten(), nn.Linear(128 * 16, 10))


def classes(model: nn.Module, batch: list[Tensor]) -> Tensor:
    return functional.cross_entropy(model(batch[0]), batch[1].flatten())


def images(count: int) -> tuple[Tensor, Tensor]:
    return torch.randn(count, 3, 32, 32), torch.randint(10, (count,))


def vectors(count: int) -> tuple[Tensor, Tensor]:
    return torch.randn(count, 784), torch.randint(10, (count,))


def codes(length: int) -> Callable[[int], tuple[Tensor, Tensor]]:
    return lambda count: (torch.randint(CODES, (count, length)), torch.randint(CODES, (count, length)))


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], tuple[Tensor, Tensor]], int]] = {
    "mlp": (mlp, vectors, 8192),
    "cnn": (cnn, images, 128),
    "transformer": (lambda: Transformer(width=128, depth=2), codes(64), 256),
    "transformer_small": (lambda: Transformer(width=256, depth=4), codes(128), 8),
}


def workload(name: str) -> Workload:
    model, data, size = MODELS[name]
    torch.manual_seed(0)
    train = TensorDataset(*data(BEYOND * size))
    return Workload(
        task(
            model=model,
            train=train,
            val=train,
            loss=classes,
            optimizer=lambda params, lr: torch.optim.AdamW(params, lr=lr),
        )
    )


def resident_peak(name: str) -> int:
    """Growth of this process's resident peak over three plain training steps, bytes."""
    libraries = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(libraries.parameters())
    libraries(torch.zeros(1, 2)).sum().backward()
    optimizer.step()
    ready = workload(name)
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    disposable = DisposableModel(ready, seed=0)
    for _ in range(3):
        batch = disposable.draw(BEYOND * MODELS[name][2])
        disposable.optimizer.zero_grad(set_to_none=True)
        disposable.gradients(batch)
        disposable.update()
    return status("VmHWM") - before


def status(key: str) -> int:
    match = re.search(rf"^{key}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert match is not None
    return int(match[1]) * 1024


def in_fresh_process(name: str, environment: Mapping[str, str]) -> int:
    command = [sys.executable, __file__, "--resident", name]
    child = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(environment))
    return int(json.loads(child.stdout)["resident"])


def measure_model(name: str) -> dict[str, Any]:
    ready, size = workload(name), MODELS[name][2]
    small = measure_capacity(ready, top=size, limit_bytes=UNLIMITED, longest_step_s=600)
    large = measure_capacity(ready, top=BEYOND * size, limit_bytes=UNLIMITED, longest_step_s=600)
    counted = large.readings[-1].peak_memory_bytes
    assert counted is not None
    resident = in_fresh_process(name, os.environ)
    given_back = in_fresh_process(name, {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"})
    predicted = small.model.peak_bytes(BEYOND * size)
    return {
        "model": name,
        "readings": [[r.micro_batch_size, r.peak_memory_bytes] for r in small.readings],
        "size": BEYOND * size,
        "predicted_bytes": round(predicted),
        "counted_bytes": counted,
        "resident_bytes": resident,
        "resident_bytes_when_freed_blocks_are_given_back": given_back,
        "predicted_over_counted": predicted / counted,
        "predicted_over_resident": predicted / resident,
        "counted_over_resident": counted / resident,
        "counted_over_resident_when_freed_blocks_are_given_back": counted / given_back,
        "split": small.split,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resident", choices=MODELS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.resident:
        print(json.dumps({"resident": resident_peak(arguments.resident)}))
        return
    rows = []
    for name in MODELS:
        rows.append(row := measure_model(name))
        given_back = row["counted_over_resident_when_freed_blocks_are_given_back"] - 1
        print(
            f"{name} at {row['size']} examples: predicted {row['predicted_bytes'] / 2**20:.1f} MiB, that is "
            f"{row['predicted_over_counted'] - 1:+.1%} of counted, "
            f"{row['predicted_over_resident'] - 1:+.1%} of resident; "
            f"counted {given_back:+.1%} of resident when freed blocks are given back"
        )
    print(write("memory", {"rows": rows}))


if __name__ == "__main__":
    main()
