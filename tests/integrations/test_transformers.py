"""A task of a Trainer makes the Trainer's own steps, and those of a task that is written by hand."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("transformers", reason="the tests of the Trainer need transformers; install the extra integrations")

from transformers import Trainer

from batchscope.integrations.transformers import task
from batchscope.store.records import RunConfig, Target
from batchscope.tasks.preflight.check import check
from batchscope.tasks.workload import Workload
from batchscope.training.loop import Training

from .trainers import classifier, language_model, make_classifier_trainer, make_language_trainer, padded, sequences

Make = Callable[..., Trainer]
SEED, STEPS = 42, 8
NEVER = Target(metric="eval_loss", value=-1.0, mode="min")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own, in which a task leaves nothing."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def trained(made: Any, *, batch_size: int, parts: int = 1, target: Target = NEVER, **changes: Any) -> nn.Module:
    """The model after all steps of a run of batchscope's."""
    how: dict[str, Any] = {"lr": 1e-2, "seed": SEED, "max_steps": STEPS, "schedule": "task", "target": target}
    micro = {"batch_size": batch_size, "micro_batch_size": batch_size // parts, "grad_accum_steps": parts}
    training = Training(Workload(made), RunConfig(task="made", **{**how, **micro, **changes}))
    training.advance()
    return training.model


def trained_by_itself(trainer: Trainer) -> nn.Module:
    trainer.train()
    assert isinstance(trainer.model, nn.Module)
    return trainer.model


def assert_same(one: nn.Module, other: nn.Module, tolerance: float = 2e-6) -> None:
    others = other.state_dict()
    for key, value in one.state_dict().items():
        torch.testing.assert_close(value, others[key], rtol=0.0, atol=tolerance, msg=lambda m, key=key: f"{key}: {m}")


def assert_moved(model: nn.Module, fresh: nn.Module) -> None:
    assert any(not torch.equal(a, b) for a, b in zip(model.parameters(), fresh.parameters(), strict=True))


@pytest.mark.parametrize(("parts", "optim"), [(1, "adamw_torch_fused"), (2, "sgd"), (4, "sgd")])
def test_token_weights_schedule_and_clipping_are_the_trainers(parts: int, optim: str) -> None:
    """Sums over micro-batches are rounded otherwise here, which AdamW blows up where a gradient is nothing but that."""
    micro = {"per_device_train_batch_size": 8 // parts, "gradient_accumulation_steps": parts}
    own = trained_by_itself(make_language_trainer(optim=optim, **micro))
    made = task(lambda: make_language_trainer(optim=optim))
    ours = trained(made, batch_size=8, parts=parts)
    assert_same(ours, own, tolerance=0.0 if parts == 1 else 1e-7)
    assert_moved(ours, Workload(made).model(SEED))


@pytest.mark.parametrize(
    "changes",
    [{}, {"label_smoothing_factor": 0.1}, {"bf16": True}, {"optim": "sgd"}, {"activation_checkpointing": True}],
)
def test_a_classifier_that_is_handed_over_makes_the_trainers_steps(changes: dict[str, Any]) -> None:
    own = trained_by_itself(make_classifier_trainer(**changes))
    made = task(lambda: make_classifier_trainer(**changes))
    ours = trained(made, batch_size=4)
    assert_same(ours, own)
    assert_moved(ours, classifier())


def test_every_run_of_a_model_with_weights_begins_at_them() -> None:
    workload = Workload(task(make_classifier_trainer))
    for seed in (0, 1):
        model = workload.model(seed)
        assert_same(model, classifier(), tolerance=0.0)
        with torch.no_grad():
            next(model.parameters()).zero_()


class Written:
    """The language model as a task written by hand."""

    name = "written"

    def model(self) -> nn.Module:
        return language_model()

    def train_data(self) -> Any:
        return sequences(64)

    collate = staticmethod(padded)

    def loss_weight(self, batch: dict[str, Tensor]) -> float:
        return float((batch["labels"] != -100).sum())  # of GPT2LMHeadModel the Trainer counts the first token, too

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        logits = model(input_ids=batch["input_ids"]).logits.float()
        targets = nn.functional.pad(batch["labels"], (0, 1), value=-100)[:, 1:]
        total = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
        return total / (batch["labels"] != -100).sum()

    def optimizer(self, model: nn.Module, lr: float) -> torch.optim.Optimizer:
        decayed = [p for p in model.parameters() if p.ndim > 1]
        others = [p for p in model.parameters() if p.ndim == 1]
        groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.999), eps=1e-8, fused=True)

    def before_update(self, model: nn.Module) -> None:
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)

    def schedule(self, progress: float) -> float:
        step = progress * STEPS
        return step / 2 if step < 2 else (STEPS - step) / (STEPS - 2)

    def sampler(self, seed: int) -> range:
        return range(64)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        batch = padded(sequences(16, seed=1)[:8]), padded(sequences(16, seed=1)[8:])
        return {"eval_loss": sum(float(self.loss(model, each)) for each in batch) / 2}


@pytest.mark.parametrize("parts", [1, 2])
def test_weights_and_metrics_are_those_of_a_written_task_bit_by_bit(parts: int) -> None:
    made = task(make_language_trainer)
    ours, written = trained(made, batch_size=8, parts=parts), trained(Written(), batch_size=8, parts=parts)
    assert_same(ours, written, tolerance=0.0)
    assert Workload(made).evaluate(ours) == pytest.approx(Workload(Written()).evaluate(written), rel=1e-6)


def test_metrics_are_those_of_the_trainers_evaluation() -> None:
    trainer = make_classifier_trainer(bf16_full_eval=False)
    own = trainer.evaluate()
    found = Workload(task(make_classifier_trainer)).evaluate(classifier())
    assert found == {key: own[key] for key in ("eval_loss", "eval_accuracy")}


def test_an_evaluation_leaves_the_model_the_random_state_and_the_folder_alone(
    here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    made = task(lambda: make_language_trainer(bf16_full_eval=True, logging_steps=1, disable_tqdm=False))
    model = Workload(made).model(0)
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    assert set(Workload(made).evaluate(model)) == {"eval_loss"}
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert list(here.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_the_preflight_passes_and_says_what_was_taken() -> None:
    found = check(Workload(task(make_language_trainer)))
    assert found.independent
    assert all(map(math.isfinite, found.metrics.values()))
    said = " ".join(found.notes)
    assert "the mean over tokens of a whole step (num_items_in_batch)" in said
    assert "linear with 2 warm-up steps of 8" in said


def test_a_task_of_parts_is_that_of_the_trainer_of_these_parts() -> None:
    trainer = make_language_trainer()
    parts: dict[str, Any] = {"data": sequences(64), "eval_data": sequences(16, seed=1), "collator": padded}
    made = task(model_init=language_model, args=trainer.args, **parts)
    assert_same(trained(made, batch_size=8), trained(task(make_language_trainer), batch_size=8), tolerance=0.0)
    assert trainer.args.learning_rate == 1e-2  # of the user's own arguments nothing is changed


def test_checkpointing_and_precision_are_the_trainers() -> None:
    def in_float16() -> Trainer:
        trainer = make_classifier_trainer(activation_checkpointing=True)
        trainer.args.fp16 = True  # the library refuses it without an accelerator, when a training begins
        return trainer

    made = task(in_float16)
    assert made.precision == "float16"
    model: Any = made.model()
    assert model.is_activation_checkpointing
    assert "fp16, gradient_checkpointing" in " ".join(made.data_notes)


def test_the_schedule_keeps_the_share_of_its_warm_up() -> None:
    made = task(make_language_trainer)
    assert made.schedule is not None
    assert [made.schedule(k / 4) for k in range(5)] == pytest.approx([0.0, 1.0, 2 / 3, 1 / 3, 0.0])
    constant = task(lambda: make_language_trainer(lr_scheduler_type="constant"))
    assert getattr(constant, "schedule", None) is None


def test_examples_of_like_length_come_together_as_the_trainer_orders_them() -> None:
    made = task(lambda: make_language_trainer(train_sampling_strategy="group_by_length"))
    order = list(Workload(made).task.sampler(0))
    assert sorted(order) == list(range(64))
    lengths = [len(sequences(64)[i]["input_ids"]) for i in order]
    within = sum(abs(a - b) for a, b in itertools.pairwise(lengths))
    drawn = [len(each["input_ids"]) for each in sequences(64)]
    assert within < sum(abs(a - b) for a, b in itertools.pairwise(drawn))


def test_without_validation_data_a_part_is_held_back() -> None:
    def make() -> Trainer:
        trainer = make_language_trainer()
        return Trainer(model_init=language_model, args=trainer.args, train_dataset=sequences(64), data_collator=padded)

    workload = Workload(task(make))
    assert workload.held_back == 6
    assert math.isfinite(workload.evaluate(workload.model(0))["val_loss"])
