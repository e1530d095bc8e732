"""A model that Accelerate has prepared for several processes is a DDP module: the monitor reads its ranks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

pytest.importorskip("accelerate", reason="needs accelerate: pip install -c constraints.txt -e '.[integrations]'")

PROGRAM = Path(__file__).with_name("accelerate_program.py")


def under_torchrun(program: Path, *words: str, timeout_s: float = 150.0) -> str:
    """What the program wrote on two processes; torchrun takes a free port, and none of its processes is left behind."""
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    process = subprocess.Popen(
        [*command, str(program), *words],
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)  # torchrun ends its workers
        said, _ = process.communicate(timeout=30)
    assert process.returncode == 0, said
    return said


def test_a_prepared_model_gives_the_row_of_all_its_micro_batches(tmp_path: Path) -> None:
    from .accelerate_program import make_model

    under_torchrun(PROGRAM, str(tmp_path))
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert ranks[0]["rows"] == ranks[1]["rows"]
    assert [rank["source"] for rank in ranks] == ["data-parallel ranks"] * 2
    assert [row["step"] for row in ranks[0]["rows"]] == [0, 1, 2, 3]
    model = make_model()
    for row in ranks[0]["rows"]:
        groups = []
        for rank in ranks:
            for batch in rank["seen"][2 * row["step"] : 2 * row["step"] + 2]:
                x, y = torch.tensor(batch, dtype=torch.float64).split([4, 1], dim=1)
                found = torch.autograd.grad(F.mse_loss(model(x), y), tuple(model.parameters()))
                groups.append(torch.cat([gradient.flatten() for gradient in found]))
        each = torch.stack(groups)
        assert (row["groups"], row["group_size"]) == (4, 4)
        assert row["mean_square_norm"] == pytest.approx(float(each.square().sum(1).mean()), rel=1e-9)
        assert row["square_norm_of_mean"] == pytest.approx(float(each.mean(0).square().sum()), rel=1e-9)
