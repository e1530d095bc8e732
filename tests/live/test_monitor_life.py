"""The monitor beside compilation, checkpoints and copies, when it fails itself, and when it is closed."""

from __future__ import annotations

import copy
import gc
import io
import json
import pickle
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from batchscope import NoiseMonitor, UsageError
from batchscope.live.sources.micro_batches import MicroBatchSource

from .trainings import (
    PARTS,
    assert_equal_groups,
    assert_same,
    cut,
    examples,
    group_gradients,
    mean_loss,
    mlp,
    rows,
    step,
    watch,
)


def test_a_compiled_model_is_measured_and_not_compiled_again() -> None:
    import torch._dynamo.testing as dynamo

    counter: Any = dynamo.CompileCounterWithBackend("aot_eager")
    model = mlp()
    compiled: Any = torch.compile(model, backend=counter)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for part in PARTS:
        mean_loss(compiled, part).backward()
    optimizer.zero_grad()
    frames = counter.frame_count
    ticks = iter(range(10_000))
    with watch(model, optimizer, share=0.3, clock=lambda: float(next(ticks))) as monitor:
        for _ in range(6):
            truth = group_gradients(model, PARTS)
            for part in PARTS:
                (mean_loss(compiled, part) / 3).backward()
            optimizer.step()
            optimizer.zero_grad()
            if len(rows(monitor)) == 1:
                assert_equal_groups(rows(monitor)[0], truth, 4)
                model.zero_grad()
        assert 2 <= len(rows(monitor)) < 6
    assert counter.frame_count == frames
    torch.compiler.reset()


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_a_compiled_step_of_the_optimizer() -> None:
    def run(watched: bool) -> tuple[Any, int]:
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        monitor = watch(model, optimizer) if watched else None
        update: Any = torch.compile(optimizer.step, backend="aot_eager")
        for _ in range(3):
            for part in PARTS:
                (mean_loss(model, part) / 3).backward()
            update()
            optimizer.zero_grad()
        torch.compiler.reset()
        return model.state_dict(), 0 if monitor is None else len(rows(monitor))

    plain, _ = run(False)
    left, measured = run(True)
    assert_same(plain, left)
    assert measured == 3


def test_a_resumed_training_goes_on_with_its_readings() -> None:
    def run(parts: range, monitor: NoiseMonitor, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        for number in parts:
            step(model, optimizer, cut(examples(12, seed=number), [4, 4, 4]))

    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer, layers=True) as monitor:
        run(range(8), monitor, model, optimizer)
        saved = io.BytesIO()
        torch.save({"model": model.state_dict(), "monitor": monitor.state_dict()}, saved)
        run(range(8, 12), monitor, model, optimizer)
        whole = monitor.read()
    saved.seek(0)
    loaded = torch.load(saved, weights_only=True)
    assert json.loads(json.dumps(loaded["monitor"])) == loaded["monitor"]
    model = mlp()
    model.load_state_dict(loaded["model"])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer, layers=True) as monitor:
        monitor.load_state_dict(loaded["monitor"])
        assert monitor.read().gradient_noise_scale.n == 8
        run(range(8, 12), monitor, model, optimizer)
        again = monitor.read()
    assert again.gradient_noise_scale == whole.gradient_noise_scale
    assert (again.step, again.examples, again.layers) == (whole.step, whole.examples, whole.layers)


class TestOwnErrors:
    """What goes wrong in the monitor switches it off, with one warning, and the training goes on unchanged."""

    def plain(self) -> Any:
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(4):
            step(model, optimizer, PARTS)
        return model.state_dict()

    @pytest.mark.parametrize("place", ["attach", "_begin", "_gradient", "_end", "take", "detach"])
    def test_in_a_source(self, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        sound = getattr(MicroBatchSource, place)

        def fail(*args: Any) -> Any:
            sound(*args)
            raise ValueError("the source is broken")

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            monkeypatch.setattr(MicroBatchSource, place, fail)
            monitor = watch(model, optimizer)
            for _ in range(4):
                step(model, optimizer, PARTS)
        assert [w.category for w in caught] == [RuntimeWarning]
        assert "the training goes on" in str(caught[0].message)
        assert "the source is broken" in monitor.read().reason
        assert_same(model.state_dict(), self.plain())
        assert not model[0].weight._backward_hooks  # pyright: ignore

    def test_in_what_is_called_with_readings(self) -> None:
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

        def fail(_: Any) -> None:
            raise OSError("no disk")

        monitor = watch(model, optimizer, on_reading=fail)
        second = watch(model, optimizer)
        with pytest.warns(RuntimeWarning, match="no disk"):
            step(model, optimizer, PARTS)
        for _ in range(3):
            step(model, optimizer, PARTS)
        assert monitor.read().gradient_noise_scale.n == 1
        assert second.read().gradient_noise_scale.n == 4
        assert_same(model.state_dict(), self.plain())

    def test_closing_it_from_inside_a_step(self) -> None:
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        first = watch(model, optimizer, on_reading=lambda _: first.close())
        second = watch(model, optimizer)
        for _ in range(4):
            step(model, optimizer, PARTS)
        assert (first.read().gradient_noise_scale.n, second.read().gradient_noise_scale.n) == (1, 4)
        first.close()
        second.close()
        assert len(optimizer._optimizer_step_post_hooks) == 0  # pyright: ignore


def left_behind(share: float | None) -> list[bool]:
    """Whether model, a gradient, the optimizer and the monitor outlive a training whose monitor was closed."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    monitor = None if share is None else NoiseMonitor(model, optimizer, batch_size=12, share=share, layers=True)
    for _ in range(4):
        step(model, optimizer, PARTS)
    mean_loss(model, PARTS[0]).backward()
    if monitor is not None:
        monitor.close()
        assert monitor.read().step == 4
    first: Any = next(model.parameters())
    left = [weakref.ref(each) for each in (model, first.grad, optimizer, monitor) if each is not None]
    model.zero_grad()
    del model, first, optimizer, monitor
    return [each() is not None for each in left]


@pytest.mark.parametrize("share", [1.0, 1e-9])
def test_nothing_is_left_after_close(share: float) -> None:
    """With the garbage collector off: no cycle that a closed monitor is part of; an optimizer has cycles of its own."""
    gc.collect()
    gc.disable()
    try:
        plain = left_behind(None)
        assert left_behind(share) == [*plain, False]
        assert plain[:2] == [False, False]
    finally:
        gc.enable()


def test_the_whole_model_can_be_saved_meanwhile() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer):
        torch.save({"state": model.state_dict(), "optimizer": optimizer.state_dict()}, io.BytesIO())


def test_numbers_that_make_no_sense_are_refused() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for wrong in ({"batch_size": 0}, {"share": 0.0}, {"share": 1.5}, {"source": "rank"}):
        with pytest.raises(UsageError):
            watch(model, optimizer, **wrong)
    assert len(optimizer._optimizer_step_post_hooks) == 0  # pyright: ignore
    with watch(model, optimizer) as monitor:
        for wrong in ({"examples": 0}, {"weight": -1.0}, {"weight": float("nan")}, {"batch": "text"}):
            with pytest.raises(UsageError):
                monitor.micro_batch(**wrong)
        monitor.micro_batch(batch="text", examples=4)


@pytest.mark.parametrize("source", ["micro-batches", "per-example"])
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_whole_model_is_copied_and_saved_meanwhile(source: str, copied: Callable[[nn.Module], nn.Module]) -> None:
    """No warning, and what the copy does is none of the training's."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer, source=source) as monitor:
        torch.save([model, *model.parameters()], io.BytesIO())
        other = copied(model)
        mean_loss(other, PARTS[0]).backward()
        step(model, optimizer, PARTS)
        assert [row["step"] for row in rows(monitor)] == [0]


def test_a_model_is_compiled_whole_in_a_measured_window() -> None:
    model = mlp()
    compiled: Any = torch.compile(model, backend="aot_eager", fullgraph=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer) as monitor:
        truth = group_gradients(model, PARTS)
        model.zero_grad()
        for part in PARTS:
            (mean_loss(compiled, part) / 3).backward()
        optimizer.step()
        assert monitor.read().reason == ""
        assert_equal_groups(rows(monitor)[0], truth, 4)
    torch.compiler.reset()
