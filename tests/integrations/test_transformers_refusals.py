"""Trainers that a search cannot stand for are refused with what to change; what is not taken over is named."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset

pytest.importorskip("transformers", reason="the tests of the Trainer need transformers; install the extra integrations")

from transformers import BertConfig, BertForSequenceClassification, EarlyStoppingCallback, Trainer, TrainerCallback

from batchscope.errors import TaskError
from batchscope.integrations.transformers import NoiseCallback, TrainerTask, task
from batchscope.tasks.loading import as_loaded, load_task
from batchscope.tasks.preflight.check import check
from batchscope.tasks.workload import Workload

from .trainers import (
    arguments,
    classifier,
    language_model,
    make_classifier_trainer,
    make_language_trainer,
    padded,
    sentences,
    sequences,
)

SPEC = "batchscope.integrations.transformers:task"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said_of(made: TrainerTask) -> str:
    return "\n".join(made.data_notes)


def with_argument(name: str, value: Any) -> Callable[[], Trainer]:
    """A factory whose arguments hold what only another installation could have set."""

    def make() -> Trainer:
        trainer = make_language_trainer()
        setattr(trainer.args, name, value)
        return trainer

    return make


def nothing() -> None:
    return None


def without_data() -> Trainer:
    return Trainer(model=classifier(), args=arguments())


def with_optimizers() -> Trainer:
    model = classifier()
    made = torch.optim.SGD(model.parameters(), lr=0.1)
    return Trainer(model=model, args=arguments(), train_dataset=sentences(8), optimizers=(made, None))


def packed() -> Trainer:
    def join(examples: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        return {key: torch.cat([each[key] for each in examples])[None] for key in ("input_ids", "labels")}

    return Trainer(model_init=language_model, args=arguments(), train_dataset=sequences(8), data_collator=join)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (nothing, "returned None; end it with `return Trainer"),
        (lambda: {}, "object of type dict; end it with `return Trainer"),
        (without_data, "no train_dataset"),
        (with_optimizers, "override create_optimizer"),
        (packed, "made 1 row of 2 examples"),
        (with_argument("deepspeed", {"zero": 2}), "leave deepspeed out"),
        (with_argument("fsdp", "full_shard"), "leave fsdp out"),
        (with_argument("optim", "lomo"), "for example optim='adamw_torch'"),
    ],
)
def test_what_a_search_cannot_stand_for_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        task(make)


def test_a_trainer_that_is_there_already_is_refused_and_its_factory_taken() -> None:
    with pytest.raises(TaskError, match=r"task\(make_trainer\)"):
        task(make_classifier_trainer())
    assert task(make_classifier_trainer).name == "make_classifier_trainer"


def test_without_anything_the_message_says_both_ways() -> None:
    with pytest.raises(TaskError, match=r"--set trainer=path/to/file.py:make_trainer.*model_init="):
        task()


class Stepping(Trainer):
    def training_step(self, *given: Any, **named: Any) -> Tensor:
        return super().training_step(*given, **named)


class Watching(TrainerCallback):
    pass


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"auto_find_batch_size": True}, "auto_find_batch_size"),
        ({"torch_compile": True}, "torch_compile"),
        ({"neftune_noise_alpha": 5.0}, "neftune_noise_alpha=5"),
        ({"dataloader_drop_last": True}, "dataloader_drop_last"),
        ({"kind": Stepping}, "Stepping.training_step()"),
        (
            {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "steps"},
            "lr_scheduler_type=reduce_lr_on_plateau",
        ),
    ],
)
def test_what_is_not_taken_over_is_named(changes: dict[str, Any], named: str) -> None:
    made = task(lambda: make_language_trainer(**changes))
    assert named in said_of(made)
    assert math.isfinite(Workload(made).evaluate(made.model())["eval_loss"])


def test_callbacks_are_named_but_for_those_of_the_library_and_the_noise_monitor() -> None:
    def make() -> Trainer:
        trainer = make_classifier_trainer()
        trainer.add_callback(NoiseCallback(trainer))
        trainer.add_callback(Watching())
        trainer.add_callback(EarlyStoppingCallback(3))
        return trainer

    (left,) = [note for note in task(make).data_notes if note.startswith("not taken over")]
    assert left.endswith("the callback Watching, the callback EarlyStoppingCallback")
    assert not [note for note in task(make_classifier_trainer).data_notes if note.startswith("not taken over")]


def regression() -> nn.Module:
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    return BertForSequenceClassification(BertConfig(vocab_size=12, num_labels=1, problem_type="regression", **small))


class Halved(Trainer):
    loss_is_scaled_for_ga = False


@pytest.mark.parametrize("kind", [Trainer, Halved])
def test_a_loss_that_ignores_the_items_of_the_step_is_noticed_and_the_advice_helps(kind: type[Trainer]) -> None:
    data = [{"input_ids": each["input_ids"], "label": float(each["label"])} for each in sentences(16)]
    made = task(lambda: kind(model_init=regression, args=arguments(), train_dataset=data))
    assert ("its gradients are n times" in said_of(made)) is (kind is Trainer)
    assert getattr(made, "loss_weight", None) is None


def test_a_stream_is_read_as_one_and_needs_validation_data() -> None:
    class Endless(IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            return itertools.cycle(sequences(32))

    def make(**evaluated: Any) -> Trainer:
        how: dict[str, Any] = {"args": arguments(), "data_collator": padded}
        return Trainer(model_init=language_model, train_dataset=Endless(), **how, **evaluated)

    workload = Workload(task(lambda: make(eval_dataset=sequences(8))))
    assert workload.examples_in_epoch is None
    stream = workload.micro_batches(4, 2, 0)
    assert [len(batch["input_ids"]) for batch in next(stream)] == [2, 2]
    stream.close()
    with pytest.raises(TaskError, match="evaluate"):
        Workload(task(make))


class Adapter(nn.Module):
    """A frozen model with one layer more, as adapters wrap it."""

    def __init__(self) -> None:
        super().__init__()
        self.base = classifier().requires_grad_(False)
        self.base.classifier = nn.Linear(16, 2)

    def forward(self, input_ids: Tensor | None = None, labels: Tensor | None = None) -> Any:
        return self.base(input_ids=input_ids, labels=labels)


def test_a_wrapped_model_with_frozen_weights_trains_what_is_left() -> None:
    def make() -> Trainer:
        data: dict[str, Any] = {"train_dataset": sentences(32), "eval_dataset": sentences(16)}
        return Trainer(model=Adapter(), args=arguments(label_names=["labels"]), **data)

    workload = Workload(task(make))
    assert math.isfinite(check(workload).metrics["eval_loss"])
    optimizer = workload.optimizer(workload.model(0), 0.1)
    assert sum(p.numel() for group in optimizer.param_groups for p in group["params"]) == 16 * 2 + 2


def test_an_evaluation_without_labels_says_how_they_are_named() -> None:
    def make(**named: Any) -> Trainer:
        data: dict[str, Any] = {"train_dataset": sentences(32), "eval_dataset": sentences(16)}
        return Trainer(model=Adapter(), args=arguments(**named), **data)

    wrong, right = (Workload(task(lambda given=given: make(**given))) for given in ({"label_names": ["y"]}, {}))
    with pytest.raises(TaskError, match=r"are y; name those of your data, TrainingArguments\(label_names"):
        wrong.evaluate(wrong.model(0))
    assert right.evaluate(right.model(0)).keys() == {"eval_loss"}


class Weighed(Trainer):
    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss = nn.functional.cross_entropy(outputs.logits, labels, weight=torch.tensor([1.0, 3.0]))
        return (loss, outputs) if return_outputs else loss


def test_an_own_compute_loss_is_the_one_that_is_trained_on() -> None:
    made = task(lambda: Weighed(model=classifier(), args=arguments(), train_dataset=sentences(32)))
    workload = Workload(made)
    model, batch = workload.model(0), workload.batch(torch.arange(8))
    expected = nn.functional.cross_entropy(
        model(input_ids=batch["input_ids"]).logits, batch["labels"], weight=torch.tensor([1.0, 3.0])
    )
    assert workload.loss(model, batch).item() == pytest.approx(expected.item())
    assert "labels" in batch
    assert "compute_loss()" in said_of(made)


def test_workers_load_training_and_validation_data(capfd: pytest.CaptureFixture[str]) -> None:
    workload = Workload(task(lambda: make_classifier_trainer(dataloader_num_workers=1)))
    assert workload.loader_workers == 1
    stream = workload.micro_batches(4, 1, 0)
    assert next(stream)[0]["input_ids"].shape == (4, 8)
    stream.close()
    assert workload.evaluate(workload.model(0)).keys() == {"eval_loss", "eval_accuracy"}
    assert capfd.readouterr() == ("", "")


def test_nothing_is_pushed_or_written(here: Path) -> None:
    task(lambda: make_language_trainer(push_to_hub=True, hub_token="none"))
    assert list(here.iterdir()) == []
    trainer = make_language_trainer()  # what was kept from writing is as it was
    assert trainer.args.should_save
    assert (here / "out").is_dir()


MODULE = """
from tests.integrations.trainers import make_language_trainer
from {helper} import EXAMPLES

def make_trainer(warm: float = 0.0):
    return make_language_trainer(examples=EXAMPLES, warmup_steps=warm)
"""


@pytest.mark.parametrize("by_name", [False, True])
def test_the_files_of_the_trainer_make_the_task_what_it_is(
    here: Path, monkeypatch: pytest.MonkeyPatch, by_name: bool
) -> None:
    monkeypatch.syspath_prepend(str(here))
    monkeypatch.setattr(sys, "path", [*sys.path])
    loaded: list[Any] = []
    for examples in (32, 32, 48):
        Path("sizes_of_it.py").write_text(f"EXAMPLES = {examples}\n")
        Path("mine_of_it.py").write_text(MODULE.format(helper="sizes_of_it"))
        for name in ("sizes_of_it", "mine_of_it"):
            sys.modules.pop(name, None)
        spec = "mine_of_it:make_trainer" if by_name else "mine_of_it.py:make_trainer"
        loaded.append(load_task(SPEC, [f"trainer={spec}", "warm=0.25"]))
    one, same, other = (each.source_sha256 for each in loaded)
    assert one == same
    assert one != other
    assert loaded[0].name == "mine_of_it-make_trainer"
    assert {"mine_of_it.py", "sizes_of_it.py"} <= set(loaded[0].files)
    assert len(loaded[2].task.train_data()) == 48
    assert "2 warm-up steps of 8" in said_of(loaded[0].task)


def test_a_trainer_that_cannot_be_found_is_named() -> None:
    with pytest.raises(TaskError, match=r"there is no file nowhere\.py"):
        load_task(SPEC, ["trainer=nowhere.py:make_trainer"])


def test_in_python_a_changed_factory_is_another_task() -> None:
    def make_with(lr: float) -> TrainerTask:
        return task(lambda: make_classifier_trainer(weight_decay=lr), name="mine")

    one, same, other = (as_loaded(make_with(lr)).source_sha256 for lr in (0.1, 0.1, 0.2))
    assert one == same != other
