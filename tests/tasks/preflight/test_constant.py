"""The best constant prediction: closed forms, where it is not measured, and data with nothing to learn."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from batchscope.errors import TaskError
from batchscope.tasks.preflight import constant
from batchscope.tasks.preflight.constant import ConstantPrediction, best_constant
from batchscope.tasks.workload import Workload

from .parts import Parts, make_data, mean_loss

EXAMPLES = 400


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X = drawn(EXAMPLES, 4)
LABELS = torch.tensor([0] * 240 + [1] * 120 + [2] * 40)
VALUES = 50.0 + 3.0 * drawn(EXAMPLES, seed=1)


def measured(
    labels: Tensor,
    loss: Callable[[nn.Module, Any], Tensor],
    make_model: Callable[[], nn.Module] = lambda: nn.Linear(4, 3),
    inputs: Tensor = X,
    **metrics: Callable[[Tensor], Tensor],
) -> ConstantPrediction:
    def evaluate(model: nn.Module) -> dict[str, float]:
        more = {name: float(metric(model(inputs))) for name, metric in metrics.items()}
        return {"val_loss": float(loss(model, [inputs, labels])), **more}

    parts = Parts(make_model=make_model, data=TensorDataset(inputs, labels), compute_loss=loss, metrics=evaluate)
    return best_constant(Workload(parts))


def square(model: nn.Module, batch: Any) -> Tensor:
    return F.mse_loss(model(batch[0])[:, 0], batch[1])


@pytest.mark.parametrize("scale", [1.0, 1e6, 1e-6, 1e-12])
def test_of_classes_it_is_the_entropy_of_their_shares_and_the_largest_one(scale: float) -> None:
    found = measured(
        LABELS,
        lambda m, b: scale * mean_loss(m, b),
        accuracy=lambda out: (out.argmax(1) == LABELS).float().mean(),
    )
    entropy = -sum(p * math.log(p) for p in (0.6, 0.3, 0.1))
    assert found.metrics["val_loss"] == pytest.approx(scale * entropy, rel=1e-3)
    assert found.metrics["accuracy"] == pytest.approx(0.6)
    assert found.examples == EXAMPLES


def one_output() -> nn.Module:
    return nn.Linear(4, 1)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (square, float(VALUES.var(correction=0))),
        (lambda m, b: F.l1_loss(m(b[0])[:, 0], b[1]), float((VALUES - VALUES.median()).abs().mean())),
        (lambda m, b: square(m, b) + 1e4, 1e4 + float(VALUES.var(correction=0))),
        (lambda m, b: square(m, b).sqrt(), float(VALUES.std(correction=0))),
    ],
)
def test_of_numbers_it_is_their_mean_or_median(loss: Callable[[nn.Module, Any], Tensor], expected: float) -> None:
    found = measured(VALUES, loss, one_output)
    assert found.metrics["val_loss"] == pytest.approx(expected, rel=2e-3)


def test_of_a_density_it_is_mean_and_standard_deviation_though_the_loss_is_negative() -> None:
    small = 1e-3 * drawn(EXAMPLES, seed=2)

    def loss(model: nn.Module, batch: Any) -> Tensor:
        mean, log_deviation = model(batch[0]).unbind(1)
        return (0.5 * ((batch[1] - mean) / log_deviation.exp()) ** 2 + log_deviation).mean()

    found = measured(small, loss, lambda: nn.Linear(4, 2))
    assert found.metrics["val_loss"] == pytest.approx(0.5 + math.log(float(small.std(correction=0))), abs=0.05)


def test_of_a_hinge_it_is_the_share_of_the_smaller_class() -> None:
    signs = torch.where(LABELS == 0, 1.0, -1.0)
    found = measured(signs, lambda m, b: (1 - b[1] * m(b[0])[:, 0]).clamp(min=0).mean(), one_output)
    assert found.metrics["val_loss"] == pytest.approx(0.8, rel=1e-3)


def entropy_of(codes: Tensor) -> float:
    shares = codes.flatten().bincount() / codes.numel()
    return float(-(shares * shares.log()).sum())


def test_of_tokens_it_is_the_entropy_of_their_shares_at_every_place() -> None:
    codes = (drawn(EXAMPLES, 12, seed=3).abs() * 2).long().clamp(max=5)

    class Next(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(6, 8)
            self.out = nn.Linear(8, 6)

        def forward(self, x: Tensor) -> dict[str, Any]:
            return {"logits": self.out(self.embed(x)), "past": None}

    found = measured(
        codes, lambda m, b: F.cross_entropy(m(b[0][:, :-1])["logits"].flatten(0, 1), b[1][:, 1:].flatten()),
        Next, inputs=codes,
    )  # fmt: skip
    assert found.metrics["val_loss"] == pytest.approx(entropy_of(codes[:, 1:]), rel=0.01)


def test_of_pixels_it_is_the_entropy_of_their_classes() -> None:
    images, masks = drawn(EXAMPLES, 2, 6, 6), (drawn(EXAMPLES, 6, 6, seed=4) > 0.8).long()
    found = measured(masks, mean_loss, lambda: nn.Conv2d(2, 2, 1), inputs=images)
    assert found.metrics["val_loss"] == pytest.approx(entropy_of(masks), rel=0.02)


def test_it_is_not_better_than_equal_shares_where_few_examples_are_looked_at() -> None:
    few = torch.arange(16) % 12
    found = measured(few, mean_loss, lambda: nn.Linear(4, 12), inputs=X[:16])
    assert found.metrics["val_loss"] < math.log(12) + 0.3


class Residual(nn.Linear):
    """Returns by how much it is off, with the targets inside."""

    def forward(self, input: Tensor) -> Tensor:
        return input - super().forward(input)


class Drawn(nn.Linear):
    """Returns its prediction of a noise, and the noise."""

    def forward(self, input: Tensor) -> Any:
        noise = torch.randn_like(input)
        return super().forward(input + noise), noise


def info_nce(model: nn.Module, batch: Any) -> Tensor:
    ours, other = F.normalize(model(batch[0]), dim=1), F.normalize(model(batch[0] + 0.1), dim=1)
    return F.cross_entropy(ours @ other.T, torch.arange(len(ours)))


@pytest.mark.parametrize(
    ("loss", "make_model"),
    [
        (lambda m, b: m(b[0]).square().mean(), lambda: Residual(4, 4)),
        (lambda m, b: F.mse_loss(*m(b[0])), lambda: Drawn(4, 4)),
        (info_nce, lambda: nn.Linear(4, 8)),
        (lambda m, b: F.cross_entropy(F.linear(b[0], m.weight), b[1]), lambda: nn.Linear(4, 3)),
        (lambda m, b: F.cross_entropy(m[1](m[0](b[0])), b[1]), lambda: nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))),
        (lambda m, b: -(m(b[0])[:, 0] * (b[1] + 1)).mean(), lambda: nn.Linear(4, 1)),
    ],
    ids=["residual", "noise", "contrastive", "weights", "parts", "no lower bound"],
)  # fmt: skip
def test_it_is_not_measured_where_a_constant_stands_for_no_prediction(loss: Any, make_model: Any) -> None:
    assert not measured(LABELS, loss, make_model).metrics


def test_an_evaluation_that_does_not_call_the_model_has_no_constant_prediction() -> None:
    assert not best_constant(Workload(Parts())).metrics


@pytest.mark.parametrize(
    ("labels", "loss", "value"),
    [
        (torch.zeros(EXAMPLES, dtype=torch.long), mean_loss, "0"),
        (torch.full((EXAMPLES,), 2), mean_loss, "2"),
        (torch.full((EXAMPLES,), 3.5), square, r"3\.5"),
        (
            torch.ones(EXAMPLES, dtype=torch.uint8),
            lambda m, b: F.binary_cross_entropy_with_logits(m(b[0])[:, 0], b[1].float()),
            "1",
        ),
    ],
)
def test_labels_that_are_all_the_same_are_refused(labels: Tensor, loss: Any, value: str) -> None:
    with pytest.raises(TaskError, match=rf"nothing to learn: batch\[1\].* is ({value}) in all 400 training examples"):
        measured(labels, loss)


def test_inputs_that_are_all_the_same_are_refused() -> None:
    with pytest.raises(TaskError, match=r"nothing to learn: what loss\(\) hands the model is the same in all 400"):
        measured(LABELS, mean_loss, inputs=torch.ones(EXAMPLES, 4))


def test_one_other_label_is_something_to_learn() -> None:
    labels = torch.zeros(EXAMPLES, dtype=torch.long)
    labels[137] = 1
    assert measured(labels, mean_loss).metrics["val_loss"] == pytest.approx(0.0174, rel=0.05)


def test_labels_that_the_loss_does_not_look_at_may_all_be_the_same() -> None:
    labels = torch.zeros(EXAMPLES, dtype=torch.long)
    assert not measured(labels, info_nce, lambda: nn.Linear(4, 8)).metrics
    assert measured(labels, lambda m, b: F.mse_loss(m(b[0]), b[0]), lambda: nn.Linear(4, 4)).metrics


class Lazy(torch.utils.data.Dataset[Any]):
    """Examples made one by one, their labels all the same, and too dear to look at all of them."""

    def __init__(self, examples: int) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return self.examples

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return X[index % EXAMPLES], 1


def test_of_examples_made_one_by_one_the_same_label_in_a_part_is_said() -> None:
    def of(examples: int) -> ConstantPrediction:
        return best_constant(Workload(Parts(data=Lazy(examples))))

    with pytest.raises(TaskError, match="is 1 in all 12 training examples"):
        of(12)
    assert "if it is the same in all, there is nothing to learn" in of(200_000).notes[0]


class Bag(nn.Linear):
    """The mean over a nested tensor's parts, or a product with a sparse one."""

    def forward(self, input: Tensor) -> Tensor:
        if input.is_nested:
            input = torch.stack([part.mean(0) for part in input.unbind()])
        return super().forward(input.to_dense())


def nested(examples: list[Any]) -> Any:
    parts = [x.expand(1 + int(y) % 3, 4) for x, y in examples]
    return torch.nested.as_nested_tensor(parts), torch.stack([y for _, y in examples])


def jagged(examples: list[Any]) -> Any:
    inputs, labels = nested(examples)
    return torch.nested.as_nested_tensor(list(inputs.unbind()), layout=torch.jagged), labels


def sparse(examples: list[Any]) -> Any:
    return torch.stack([x for x, _ in examples]).to_sparse(), torch.stack([y for _, y in examples])


@dataclass
class Collated(Parts):
    collate: Any = None


@pytest.mark.parametrize("collate", [nested, jagged, sparse])
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_inputs_may_be_nested_or_sparse(collate: Any) -> None:
    def evaluate(model: nn.Module) -> dict[str, float]:
        return {"val_loss": float(mean_loss(model, collate(list(zip(X, LABELS, strict=True)))))}

    parts = Collated(
        make_model=lambda: Bag(4, 3),
        data=TensorDataset(X, LABELS),
        metrics=evaluate,
        collate=collate,
    )
    assert best_constant(Workload(parts)).metrics


def test_nothing_is_written_into_what_collate_returned() -> None:
    label = torch.tensor([1])

    def collate(examples: list[Any]) -> Any:
        return torch.stack([x for x, _ in examples]), label.expand(len(examples))

    with pytest.raises(TaskError, match="is 1 in all 400 training examples"):
        best_constant(Workload(Collated(data=TensorDataset(X, LABELS), collate=collate)))
    assert label.item() == 1


def test_it_is_not_measured_where_anything_fails(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(nn.Linear):
        def __setattr__(self, name: str, value: Any) -> None:
            if name == "forward":
                raise NotImplementedError("no other forward")
            super().__setattr__(name, value)

    with caplog.at_level("DEBUG", "batchscope"):
        assert measured(LABELS, mean_loss, lambda: Broken(4, 3)) == ConstantPrediction()
    assert "no other forward" in caplog.text


@pytest.mark.parametrize(("loss_s", "fitting_s", "examples"), [(0.0, 0.5, 16), (0.005, 0.0, 0)])
def test_a_loss_that_takes_long_is_asked_for_less(
    loss_s: float, fitting_s: float, examples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constant, "_LOSS_S", loss_s)
    monkeypatch.setattr(constant, "_FITTING_S", fitting_s)
    assert measured(LABELS, mean_loss).examples == examples


def test_a_forward_of_the_instance_is_put_back() -> None:
    made: list[nn.Module] = []

    def own(x: Tensor) -> Tensor:
        return F.linear(x, made[-1].weight)

    def model() -> nn.Module:
        made.append(nn.Linear(4, 3))
        made[-1].forward = own
        return made[-1]

    assert measured(LABELS, mean_loss, model).metrics
    assert all(each.forward is own for each in made)


def test_nothing_is_left_behind() -> None:
    made: list[nn.Module] = []

    def model() -> nn.Module:
        made.append(nn.Linear(4, 3))
        return made[-1]

    before = torch.get_rng_state()
    assert measured(LABELS, mean_loss, model).metrics
    assert all("forward" not in vars(each) and not each._forward_hooks for each in made)
    assert torch.equal(torch.get_rng_state(), before)
    data = make_data()
    assert torch.equal(data.tensors[1], make_data().tensors[1])
