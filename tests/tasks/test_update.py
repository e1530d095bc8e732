"""The update: weighted micro-batches, clipping, precision and averaged weights against what is written by hand."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from batchscope.errors import TaskError
from batchscope.store.records import Row, RunConfig
from batchscope.tasks.protocol import Task, task
from batchscope.tasks.update import Update, without_underflow
from batchscope.tasks.workload import Workload
from batchscope.training.checkpoint import Checkpoint
from batchscope.training.loop import Training
from batchscope.training.stopping import StepLimitRule

from .tokens import Sequences, Tokens, Unweighted, collate

BATCH = 12


def config(parts: int = 1, **changes: Any) -> RunConfig:
    given: dict[str, Any] = {"max_steps": 25, "lr": 0.3, "evaluation_growth": 2.0, "seed": 3, **changes}
    return RunConfig(task="tokens", batch_size=BATCH, micro_batch_size=BATCH // parts, grad_accum_steps=parts, **given)


def flat(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def gradient(made: Any, parts: int) -> tuple[Tensor, float]:
    workload = Workload(made)
    model = workload.model(0)
    update = Update(workload, model, 0.1)
    loss = update.gradients(next(workload.micro_batches(BATCH, parts, seed=5)))
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]), float(loss)


def apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("parts", [2, 3, 4, 6, 12])
def test_micro_batches_of_unequal_tokens_have_the_gradient_of_the_whole_batch(parts: int) -> None:
    whole, loss = gradient(Tokens(), 1)
    found, total = gradient(Tokens(), parts)
    assert apart(found, whole) < 1e-6
    assert total == pytest.approx(loss, rel=1e-6)
    assert apart(gradient(Unweighted(), parts)[0], whole) > 1e-2


@pytest.mark.parametrize("parts", [2, 3, 12])
@pytest.mark.parametrize(
    "optimizer", [torch.optim.SGD, torch.optim.AdamW, lambda params, lr: torch.optim.SGD(params, lr=lr, momentum=0.9)]
)
def test_weights_after_accumulated_steps_are_those_of_whole_batches(parts: int, optimizer: Any) -> None:
    def clip(model: nn.Module) -> None:
        nn.utils.clip_grad_norm_(model.parameters(), 0.2)

    def trained(k: int, kind: type[Tokens] = Tokens) -> Training:
        training = Training(Workload(kind(lambda p, lr: optimizer(p, lr=lr), before_update=clip)), config(k, lr=0.05))
        training.advance()
        return training

    whole = trained(1)
    assert apart(flat(trained(parts).model), flat(whole.model)) < 1e-6
    assert apart(flat(trained(parts, Unweighted).model), flat(whole.model)) > 1e-4


def test_the_held_back_loss_is_the_mean_over_all_tokens() -> None:
    data = Sequences(2400)
    workload = Workload(
        task(
            model=Tokens().model,
            train=Sequences(20),
            val=data,
            loss=Tokens().loss,
            optimizer=lambda params, lr: torch.optim.SGD(params, lr=lr),
            loss_weight=Tokens().loss_weight,
            collate=collate,
        )
    )
    model = workload.model(0)
    whole = workload.loss(model, collate(data.items)).item()
    assert workload.evaluate(model)["val_loss"] == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("weight", [0, -3, math.nan, math.inf])
def test_a_weight_that_is_no_positive_number_ends_the_run(weight: float) -> None:
    with pytest.raises(
        TaskError, match=r"loss_weight\(batch\) returned (0|-3|nan|inf); it must be the number of terms"
    ):
        gradient(Tokens(loss_weight=lambda batch: weight), 3)


def test_before_update_sees_each_step_once_after_all_micro_batches() -> None:
    seen: list[float] = []

    def look(model: nn.Module) -> None:
        seen.append(float(flat_gradient(model).norm()))

    training = Training(Workload(Tokens(before_update=look)), config(3, max_steps=7))
    training.advance()
    assert len(seen) == 7
    assert seen[0] == pytest.approx(first_norm(), rel=1e-9)


def flat_gradient(model: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def first_norm() -> float:
    seen: list[float] = []
    made = Tokens(before_update=lambda model: seen.append(float(flat_gradient(model).norm())))
    Training(Workload(made), config(1, max_steps=1)).advance()
    return seen[0]


def test_averaged_weights_are_those_of_a_loop_by_hand() -> None:
    """`ema_` metrics are those of `decay * average + (1 - decay) * weights`, test metrics stay test metrics."""
    made, rows, decay = Tokens(), list[Row](), 0.7
    training = Training(Workload(Tokens(ema_decay=decay)), config(3, max_steps=9), on_row=rows.append)
    training.advance()
    workload = Workload(made)
    torch.manual_seed(3)
    model = workload.model(3)
    optimizer = made.optimizer(model.parameters(), 0.3)
    average = None
    batches = workload.micro_batches(BATCH, 1, config().seed + 1_000_003)
    for _ in range(9):
        optimizer.zero_grad()
        workload.loss(model, next(batches)[0]).backward()
        optimizer.step()
        if average is None:
            average = copy.deepcopy(model)
        else:
            with torch.no_grad():
                for old, new in zip(average.parameters(), model.parameters(), strict=True):
                    old.copy_(decay * old + (1 - decay) * new)
    assert average is not None
    last = [row for row in rows if row["kind"] == "evaluation"][-1]["metrics"]
    assert sorted(last) == ["ema_val_loss", "test_ema_loss", "test_loss", "val_loss"]
    assert last["ema_val_loss"] == pytest.approx(made.evaluate(average)["val_loss"], rel=1e-10)
    assert last["val_loss"] == pytest.approx(made.evaluate(model)["val_loss"], rel=1e-10)
    assert last["ema_val_loss"] != pytest.approx(last["val_loss"], rel=1e-4)


def test_evaluate_is_handed_a_model_of_the_tasks_own_class() -> None:
    class Named(nn.Sequential):
        def perplexity(self) -> float:
            return 3.0

    class Own(Tokens):
        def model(self) -> nn.Module:
            return Named(*super().model())

        def evaluate(self, model: nn.Module) -> dict[str, float]:
            assert isinstance(model, Named)
            return {"val_loss": model.perplexity()}

    result = Training(Workload(Own(ema_decay=0.9)), config(max_steps=2)).advance()
    assert result.last == {"val_loss": 3.0, "ema_val_loss": 3.0}


@pytest.mark.parametrize("members", [{}, {"precision": "bfloat16"}, {"precision": "float16"}], ids=str)
def test_a_run_with_averaged_weights_goes_on_from_its_checkpoint_bit_for_bit(members: dict[str, Any]) -> None:
    class Single(Tokens):
        def model(self) -> nn.Module:
            return super().model().float()

    def workload() -> Workload:
        return Workload(Single(ema_decay=0.8, **members))

    one_go: list[Row] = []
    whole = Training(workload(), config(3, lr=0.05), on_row=one_go.append)
    whole.advance()
    rows: list[Row] = []
    first = Training(workload(), config(3, lr=0.05), on_row=rows.append)
    first.advance([StepLimitRule(steps=8)])
    more: list[Row] = []
    checkpoint = Checkpoint(rows=tuple(rows), state=first.state())
    second = Training(workload(), config(3, lr=0.05), on_row=more.append, goes_on=checkpoint)
    second.advance()
    metrics = [[row["metrics"] for row in some if row["kind"] == "evaluation"] for some in ([*rows, *more], one_go)]
    assert metrics[0] == metrics[1]
    assert torch.equal(flat(second.model), flat(whole.model))


class Autocast:
    """A regression in single precision, which notes what its model computes in."""

    def __init__(self, precision: str, scale: float = 1.0) -> None:
        self.precision, self.scale, self.seen = precision, scale, set[torch.dtype]()
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(64, 8, generator=generator)

    def model(self) -> nn.Module:
        return nn.Linear(8, 4)

    def train_data(self) -> Any:
        return torch.utils.data.TensorDataset(self.x, self.x[:, :4] * 2)

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        made = model(batch[0])
        self.seen.add(made.dtype)
        return self.scale * (made.float() - batch[1]).square().mean()

    def optimizer(self, params: Any, lr: float) -> torch.optim.Optimizer:
        return torch.optim.SGD(params, lr=lr / self.scale)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        made = model(self.x)
        self.seen.add(made.dtype)
        return {"val_loss": float((made.float() - self.x[:, :4] * 2).square().mean())}


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("float32", torch.float32), ("bfloat16", torch.bfloat16), ("float16", torch.float16)],
)
def test_precisions_on_the_cpu(precision: str, dtype: torch.dtype) -> None:
    made = Autocast(precision)
    training = Training(Workload(made), config(3, max_steps=60, lr=0.3))
    result = training.advance()
    assert made.seen == {dtype}
    assert {p.dtype for p in training.model.parameters()} == {torch.float32}
    assert result.last["val_loss"] < 0.05 * result.first["val_loss"]


def test_float16_keeps_gradients_that_are_too_small_for_it() -> None:
    """A loss of 1e-6 times another, at 1e6 times its learning rate: without a scaler the gradients become zero."""
    made = Autocast("float16", scale=1e-6)
    result = Training(Workload(made), config(max_steps=60, lr=0.3)).advance()
    assert result.last["val_loss"] < 0.1 * result.first["val_loss"]
    workload = Workload(made)
    model = workload.model(0)
    workload.loss(model, workload.batch(torch.arange(12))).backward()
    small = flat_gradient(model)

    def compute(scale: float) -> list[Tensor | None]:
        model.zero_grad()
        (workload.loss(model, workload.batch(torch.arange(12))) * scale).backward()
        return [p.grad for p in model.parameters()]

    whole = torch.cat([g.flatten() for g in without_underflow("float16", compute) if g is not None])
    reference = Workload(Autocast("float32", scale=1e-6))
    model.zero_grad()
    reference.loss(model, reference.batch(torch.arange(12))).backward()
    assert apart(whole, flat_gradient(model)) < 5e-3 < apart(small, flat_gradient(model))


def test_the_first_step_of_float16_is_made_and_not_left_out() -> None:
    """Gradients that overflow at the scaler's first factor, 65536, which a loop by hand would leave out."""
    made = Autocast("float16", scale=30.0)
    workload = Workload(made)
    model = workload.model(0)
    before = flat(model).clone()
    update = Update(workload, model, 0.1)
    assert update.loss_scale == 65536.0
    update.gradients([workload.batch(torch.arange(12))])
    update.apply()
    reference = Workload(Autocast("float32", scale=30.0))
    plain = reference.model(0)
    own = Update(reference, plain, 0.1)
    own.gradients([reference.batch(torch.arange(12))])
    own.apply()
    assert apart(flat(model) - before, flat(plain) - before) < 1e-2
    assert 1.0 < update.loss_scale < 65536.0


def test_averaged_weights_leave_out_a_step_that_the_scaler_left_out() -> None:
    made = Autocast("float16", scale=1.0)
    made.ema_decay = 0.5  # pyright: ignore[reportAttributeAccessIssue]
    workload = Workload(made)
    model = workload.model(0)
    update = Update(workload, model, 0.1)

    def step(*, overflows: bool = False) -> Tensor:
        update.gradients([workload.batch(torch.arange(12))])
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.grad.mul_(math.inf if overflows else 1.0)
        update.apply()
        update.clear()
        assert update.averaged is not None
        return flat(update.averaged).clone()

    first, second = step(), step()
    assert not torch.equal(first, second)
    assert torch.equal(step(overflows=True), second)
    assert not torch.equal(step(), second)


def test_clipping_sees_gradients_without_the_scalers_factor() -> None:
    norms: list[float] = []
    made = Autocast("float16", scale=1e-3)
    made.before_update = lambda model: norms.append(float(flat_gradient(model).norm()))  # pyright: ignore[reportAttributeAccessIssue]
    Training(Workload(made), config(max_steps=1)).advance()
    plain: list[float] = []
    made = Autocast("float32", scale=1e-3)
    made.before_update = lambda model: plain.append(float(flat_gradient(model).norm()))  # pyright: ignore[reportAttributeAccessIssue]
    Training(Workload(made), config(max_steps=1)).advance()
    assert norms == pytest.approx(plain, rel=1e-2)


def test_the_optimizers_own_failure_is_said() -> None:
    class Broken(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
            raise ValueError("no momentum buffer")

    with pytest.raises(TaskError, match=r"optimizer.step\(\) raised ValueError: no momentum buffer"):
        Training(Workload(Tokens(lambda params, lr: Broken(params, lr=lr))), config()).advance()


def test_a_parameters_list_can_be_read_twice() -> None:
    def groups(params: Any, lr: float) -> torch.optim.Optimizer:
        matrices = [p for p in params if p.ndim >= 2]
        rest = [p for p in params if p.ndim < 2]
        return torch.optim.SGD([{"params": matrices, "weight_decay": 0.1}, {"params": rest}], lr=lr)

    workload = Workload(Tokens(groups))
    optimizer = workload.optimizer(workload.model(0), 0.1)
    assert [len(group["params"]) for group in optimizer.param_groups] == [2, 1]


def made_of_parts() -> Task:
    return task(
        model=lambda: nn.Linear(2, 1),
        train=torch.utils.data.TensorDataset(torch.zeros(4, 2), torch.zeros(4, 1)),
        loss=lambda model, batch: {"loss": (model(batch[0]) - batch[1]).square().mean(), "outputs": None},
        optimizer=lambda model, lr: torch.optim.SGD(model.parameters(), lr=lr),
        before_update=lambda model: nn.utils.clip_grad_norm_(model.parameters(), 1.0),
    )


def test_members_given_as_parts_are_used() -> None:
    workload = Workload(made_of_parts())
    assert workload.before_update is not None
    assert Training(workload, RunConfig(task="x", batch_size=2, micro_batch_size=2, lr=0.1, max_steps=3)).advance()
