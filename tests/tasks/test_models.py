"""The small models: shapes for every image size, and causality."""

from __future__ import annotations

import pytest
import torch

from batchscope.errors import TaskError
from batchscope.tasks.models import Norm, Transformer, cnn, linear, mlp


@pytest.mark.parametrize("norm", ["none", "batch", "group"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 4, 5), (3, 64, 48), (1, 4, 100)])
def test_cnn_takes_images_of_any_size(shape: tuple[int, int, int], norm: Norm) -> None:
    assert cnn(shape, 7, norm=norm)(torch.zeros(2, *shape)).shape == (2, 7)


def test_cnn_refuses_what_it_cannot_halve_twice() -> None:
    with pytest.raises(TaskError, match="at least 4 x 4 pixels, not 3 x 8"):
        cnn((1, 3, 8), 7, norm="none")


def test_depth_and_width() -> None:
    assert [tuple(p.shape) for p in mlp(5, 3, hidden=4, depth=2).parameters()] == [
        (4, 5), (4,), (4, 4), (4,), (3, 4), (3,),
    ]  # fmt: skip
    assert [tuple(p.shape) for p in linear(5, 3).parameters()] == [(3, 5), (3,)]


def test_the_transformer_sees_no_later_code() -> None:
    torch.manual_seed(0)
    model = Transformer(vocab=11, context=8, width=64, depth=2).double()
    codes = torch.randint(11, (3, 8))
    changed = codes.clone()
    changed[:, 5:] = (changed[:, 5:] + 1) % 11
    with torch.no_grad():
        before, after = model(codes), model(changed)
    assert before.shape == (3, 8, 11)
    torch.testing.assert_close(before[:, :5], after[:, :5], rtol=0, atol=1e-12)
    assert (before[:, 5:] - after[:, 5:]).abs().amin(-1).min() > 1e-6


def test_the_transformer_takes_shorter_inputs_and_says_which_widths() -> None:
    model = Transformer(vocab=11, context=8, width=16, depth=1)
    assert model(torch.zeros(1, 3, dtype=torch.int64)).shape == (1, 3, 11)
    with pytest.raises(TaskError, match="width=72 is not a multiple of 32; write width=64"):
        Transformer(vocab=11, context=8, width=72, depth=1)
