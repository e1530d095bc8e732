"""A task of a Lightning module: its runs make the steps of a hand-written task, and of Lightning's own Trainer."""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lightning", reason="lightning is not installed: pip install -e '.[integrations]'")

import lightning as L
import torch
import torchmetrics
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, WeightedRandomSampler

import batchscope
from batchscope.errors import TaskError
from batchscope.integrations.lightning import task
from batchscope.store.records import RunConfig, Target
from batchscope.tasks.loading import as_loaded, load_task
from batchscope.tasks.preflight.check import check
from batchscope.tasks.workload import Workload
from batchscope.training.loop import Training

from .lightning_modules import Classifier, Data, make_trainer, table

pytestmark = [
    pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings(r"ignore:.*isinstance.treespec, LeafSpec.*"),
    pytest.mark.filterwarnings(r"ignore:.*`torch.jit.*"),
    pytest.mark.filterwarnings(r"ignore:.*max_epochs.*"),
]
STEPS, SIZE = 12, 16
NEVER = Target(metric="val_loss", value=-1.0, mode="min")


class Kept(Workload):
    """A task on its device that keeps the batches which it hands out."""

    def __init__(self, made: Any) -> None:
        super().__init__(made)
        self.batches: list[Any] = []

    def micro_batches(self, *given: Any, **named: Any) -> Iterator[list[Any]]:
        for parts in super().micro_batches(*given, **named):
            self.batches += parts
            yield parts


def run(workload: Workload, *, lr: float = 0.1, micro: int = SIZE, steps: int = STEPS) -> Training:
    schedule = "constant" if workload.schedule is None else "task"
    config = {
        "batch_size": SIZE,
        "micro_batch_size": micro,
        "grad_accum_steps": SIZE // micro,
        "lr": lr,
        "seed": 3,
        "max_steps": steps,
        "target": NEVER,
    }
    training = Training(workload, RunConfig(task="task", schedule=schedule, **config))
    training.advance()
    return training


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], atol: float = 0.0) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=0.0, atol=atol, msg=name)


class Whole(Dataset[Any]):
    """Batches in the order in which they came, the next ones in each epoch."""

    def __init__(self, batches: list[Any], epoch: int) -> None:
        self.batches, self.epoch, self.given = batches, epoch, 0

    def __len__(self) -> int:
        return self.epoch

    def __getitem__(self, index: int) -> Any:
        self.given += 1
        return self.batches[self.given - 1]


def as_they_came(batches: list[Any], epoch: int) -> DataLoader[Any]:
    return DataLoader(Whole(batches, epoch), batch_size=None)


def by_hand() -> Any:
    """The classifier's task as a person writes it without Lightning's help."""
    x, y = table()

    def model() -> nn.Module:
        made = Classifier()
        return nn.ModuleDict({"body": made.body, "head": made.head})

    def scores(model: Any, inputs: torch.Tensor) -> torch.Tensor:
        return model["head"](model["body"](inputs))

    def optimizer(model: Any, lr: float) -> torch.optim.Optimizer:
        groups = [{"params": model["body"].parameters()}, {"params": model["head"].parameters(), "lr": lr / 5}]
        return torch.optim.SGD(groups, lr=lr, momentum=0.9)

    return batchscope.task(
        model=model,
        train=TensorDataset(x[:64], y[:64]),
        loss=lambda model, batch: F.cross_entropy(scores(model, batch[0]), batch[1]),
        optimizer=optimizer,
        evaluate=lambda model: {"val_loss": F.cross_entropy(scores(model, x[64:]), y[64:]).item()},
        before_update=lambda model: nn.utils.clip_grad_norm_(model.parameters(), 0.5),
        schedule=lambda progress: 0.5 * (1.0 + math.cos(math.pi * progress)),
    )


def test_a_run_ends_in_the_weights_of_a_task_written_by_hand() -> None:
    workload = Workload(task(Classifier, Data, make_trainer))
    taken, own = run(workload), run(Workload(by_hand()))
    assert_equal(weights(taken.model), weights(own.model), atol=1e-7)  # the factors of a cosine are rounded otherwise
    assert taken.steps == STEPS
    constant = []
    for made in (task(Classifier, Data, make_trainer), by_hand()):
        vars(made).pop("schedule")
        constant.append(weights(run(Workload(made)).model))
    assert_equal(*constant)


@pytest.mark.parametrize(
    "more", [{}, {"gradient_clip_algorithm": "value", "gradient_clip_val": 0.01}, {"precision": "bf16-mixed"}]
)
def test_a_run_ends_in_the_weights_of_the_trainer(more: dict[str, Any]) -> None:
    workload = Kept(task(Classifier, Data, lambda: make_trainer(**more)))
    training = run(workload)
    torch.manual_seed(3)
    module = Classifier()
    make_trainer(**more).fit(module, train_dataloaders=as_they_came(workload.batches, STEPS))
    assert_equal(weights(training.model), weights(module), atol=1e-6)


def test_micro_batches_are_those_of_accumulation() -> None:
    workload = Kept(task(Plain, Data, make_trainer))
    training = run(workload, micro=4)
    torch.manual_seed(3)
    module = Plain()
    make_trainer(accumulate_grad_batches=4).fit(module, train_dataloaders=as_they_came(workload.batches, 4 * STEPS))
    assert_equal(weights(training.model), weights(module), atol=1e-6)


class Plain(Classifier):
    """Without batch normalisation and scheduler."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.Tanh())

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


def test_the_metrics_are_those_of_the_trainer() -> None:
    made = task(Classifier, Data)
    workload = Workload(made)
    model = workload.model(0)
    found = [workload.evaluate(model) for _ in range(2)]
    own = Classifier()
    own.load_state_dict(model.state_dict())
    theirs = make_trainer().validate(own, Data(), verbose=False)[0]
    assert found[0] == found[1] == pytest.approx(theirs, abs=1e-7)
    assert found[0].keys() == {"val_loss", "val_accuracy"}


class Logs(Plain):
    """Logs in all ways, in several hooks."""

    def __init__(self) -> None:
        super().__init__()
        self.score = torchmetrics.AUROC(task="binary")
        self.seen: list[float] = []

    def on_validation_epoch_start(self) -> None:
        self.seen.clear()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        scores = self(x)
        loss = F.cross_entropy(scores, y)
        self.seen.append(loss.item())
        self.score.update(scores.softmax(1)[:, 1], y)
        self.log("both", loss, on_step=True, on_epoch=True)
        self.log("most", loss, reduce_fx="max")
        self.log("total", float(len(y)), reduce_fx="sum")
        self.log("weighed", loss, batch_size=1)
        self.log("step_only", loss, on_step=True, on_epoch=False)

    def on_validation_epoch_end(self) -> None:
        self.log("auroc", self.score.compute())
        self.score.reset()
        self.log("mean_of_batches", sum(self.seen) / len(self.seen))


class TwoSets(Data):
    def val_dataloader(self) -> Any:
        x, y = table()
        return [DataLoader(self.val, batch_size=5), DataLoader(TensorDataset(x[:7], y[:7]), batch_size=4)]


class LogsOfTwo(Plain):
    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))
        self.log(f"set_{dataloader_idx}", float(len(batch[1])), add_dataloader_idx=False, reduce_fx="sum")


@pytest.mark.parametrize(("module", "data"), [(Logs, Data), (LogsOfTwo, TwoSets)])
def test_everything_that_is_logged_for_the_epoch_is_a_metric(module: Any, data: Any) -> None:
    workload = Workload(task(module, data))
    model = workload.model(1)
    found = workload.evaluate(model)
    theirs: dict[str, float] = {}
    for each in make_trainer().validate(copy.deepcopy(model), data(), verbose=False):
        theirs |= {name.removesuffix("_epoch"): value for name, value in each.items()}
    assert found == pytest.approx(theirs, abs=1e-6)
    assert found == workload.evaluate(model)


def test_a_tenth_of_the_validation_batches() -> None:
    made = task(Plain, Data, lambda: make_trainer(limit_val_batches=1))
    model = Workload(made).model(0)
    x, y = table()
    with torch.no_grad():
        first = F.cross_entropy(model(x[64:76]), y[64:76]).item()
    assert Workload(made).evaluate(model)["val_loss"] == pytest.approx(first, abs=1e-6)


class Hooked(Plain):
    """Notes each hook; the number of steps stands in a buffer, so that it is part of the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Any] = []
        self.register_buffer("average", torch.zeros(2, 8))

    def on_train_start(self) -> None:
        self.calls.append("start")

    def on_train_epoch_start(self) -> None:
        self.calls.append(("epoch", self.current_epoch))

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.calls.append(("batch", batch_idx, self.global_step))

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        self.calls.append(type(optimizer).__name__)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.calls.append(("end", outputs["seen"], self.global_step))
        self.average.lerp_(self.head.weight.detach(), 0.1)

    def configure_gradient_clipping(self, optimizer: Any, gradient_clip_val: Any, gradient_clip_algorithm: Any) -> None:
        self.clip_gradients(optimizer, gradient_clip_val=0.3, gradient_clip_algorithm="norm")


def test_hooks_are_called_in_lightnings_order() -> None:
    workload = Kept(task(Hooked, Data, lambda: make_trainer(gradient_clip_val=None)))
    training = run(workload, steps=8)
    torch.manual_seed(3)
    module = Hooked()
    trainer = make_trainer(gradient_clip_val=None, max_steps=8)
    trainer.fit(module, train_dataloaders=as_they_came(workload.batches, 4))
    assert_equal(weights(training.model), weights(module), atol=1e-6)
    assert training.model.calls == module.calls


def test_a_run_that_goes_on_knows_its_step(tmp_path: Path) -> None:
    workload = Workload(task(Hooked, Data))
    training = run(workload, steps=6)
    state = copy.deepcopy(training.state())
    model = workload.model(3)
    optimizer = workload.optimizer(model, 0.1)
    optimizer.load_state_dict(state["update"]["optimizer"])
    assert (model.global_step, model.current_epoch) == (6, 1)
    copied = copy.deepcopy(training.model)
    assert workload.evaluate(copied) == workload.evaluate(training.model)
    assert copied.trainer is not training.model.trainer


def test_what_a_module_logs_in_training_goes_nowhere_and_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    training = run(Workload(task(Classifier, Data)))
    assert capfd.readouterr() == ("", "")
    assert training.model.trainer.callback_metrics.keys() == {"val_loss", "val_accuracy"}


class Manual(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False


class TwoOptimizers(Plain):
    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(self.body.parameters(), 0.1), torch.optim.Adam(self.head.parameters(), 0.1)], []


class OwnStep(Plain):
    def optimizer_step(self, *given: Any, **named: Any) -> None:
        super().optimizer_step(*given, **named)


class OwnBackward(Plain):
    def backward(self, loss: Any) -> None:
        loss.backward()


class Nothing(Plain):
    def training_step(self, batch: Any, batch_idx: int) -> None:
        super().training_step(batch, batch_idx)


class SilentValidation(Plain):
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self(batch[0])


class NoOptimizer(Plain):
    def configure_optimizers(self) -> None:
        return None


class AsksItsLength(Plain):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        share = self.global_step / self.trainer.estimated_stepping_batches
        return super().training_step(batch, batch_idx)["loss"] * (1.0 + share)


class AsksForMore(Plain):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.trainer.save_checkpoint("here.ckpt")


class Needy(Plain):
    def __init__(self, width: int) -> None:
        super().__init__()


class WholeBatches(Data):
    def train_dataloader(self) -> Any:
        return as_they_came([torch.zeros(16, 6)], 4)


class Two(Data):
    def train_dataloader(self) -> Any:
        return {"one": super().train_dataloader(), "other": super().train_dataloader()}


class LoaderOfItsOwn(Data):
    def train_dataloader(self) -> Any:
        return iter([])


@pytest.mark.parametrize(
    ("module", "data", "message"),
    [
        (Manual, Data, "Manual has automatic_optimization=False.*return one loss from training_step"),
        (TwoOptimizers, Data, r"2 optimizers \(SGD, Adam\).*a parameter group for each part"),
        (NoOptimizer, Data, r"configure_optimizers\(\) returned None.*return the optimizer"),
        (OwnStep, Data, r"optimizer_step\(\) of OwnStep makes the optimizer's step itself.*--warmup"),
        (OwnBackward, Data, r"backward\(\) of OwnBackward makes the backward pass itself"),
        (Nothing, Data, r"training_step\(\) returned None"),
        (SilentValidation, Data, r"logged no metric of an epoch: add self.log\('val_loss', loss\)"),
        (AsksItsLength, Data, "asks for trainer.estimated_stepping_batches, which a run does not know"),
        (AsksForMore, Data, "asks for trainer.save_checkpoint.*no Trainer of Lightning"),
        (Needy, Data, "Needy needs width.*def make_module"),
        (Plain, WholeBatches, "batch_size=None: its Whole yields whole batches"),
        (Plain, Two, "a dict of 2 loaders, each with a batch size of its own"),
        (Plain, LoaderOfItsOwn, "returned list_iterator, which alone holds the data"),
        (Plain, None, r"Plain makes no loader itself: give its LightningDataModule, --set data="),
        (nn.Linear(2, 2), Data, r"is one Linear, and every run begins with a fresh one: .*lambda: Linear"),
        (lambda: nn.Linear(2, 2), Data, "an object of type Linear, which is no LightningModule"),
        (Plain, dict, "an object of type dict, which has no train_dataloader"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_what_to_change(module: Any, data: Any, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        check(Workload(task(module, data)))


class OwnLoaders(Plain):
    """Makes its loaders itself, as small scripts do."""

    def setup(self, stage: str) -> None:
        self.held = Data()
        self.held.setup(stage)

    def train_dataloader(self) -> Any:
        return self.held.train_dataloader()

    def val_dataloader(self) -> Any:
        return self.held.val_dataloader()


class Unvalidated(Plain):
    validation_step = L.LightningModule.validation_step


class WithoutValidationData(Data):
    val_dataloader = L.LightningDataModule.val_dataloader


def test_a_module_with_loaders_needs_no_data_module() -> None:
    found = check(Workload(task(OwnLoaders)))
    assert found.metrics.keys() == {"val_loss", "val_accuracy"}
    assert_equal(weights(run(Workload(task(OwnLoaders))).model), weights(run(Workload(task(Plain, Data))).model))


@pytest.mark.parametrize(("module", "data"), [(Unvalidated, Data), (Plain, WithoutValidationData)])
def test_without_validation_a_part_of_the_training_data_is_held_back(module: Any, data: Any) -> None:
    workload = Workload(task(module, data))
    assert workload.held_back == 6
    assert check(workload).metrics.keys() == {"val_loss"}
    said = " ".join(workload.notes)
    assert ("validation_step() of Plain is not used" in said) is (module is Plain)


class Numbered(Dataset[Any]):
    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> Any:
        return {"x": self.x[index], "y": self.y[index]}


def joined(examples: list[Any]) -> Any:
    return [torch.stack([each[name] for each in examples]) for name in ("x", "y")]


class Weighted(Data):
    """A collate, workers and a sampler; the batches are changed on their way to the device."""

    def train_dataloader(self) -> Any:
        x, y = table()
        sampler = WeightedRandomSampler([1.0] * 32 + [0.0] * 32, 48, generator=torch.Generator())
        data = Numbered(x[:64], y[:64])
        return DataLoader(data, 8, sampler=sampler, collate_fn=joined, num_workers=1, persistent_workers=True)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return [2.0 * batch[0] if self.trainer.training else batch[0], batch[1]]


def test_the_loader_is_taken_apart() -> None:
    made = task(Plain, Weighted)
    assert made.loader_options == {"num_workers": 1, "persistent_workers": True, "prefetch_factor": 2}
    assert made.collate is joined
    assert made.sampler(1) == made.sampler(1) != made.sampler(2)
    assert max(made.sampler(0)) < 32
    del made.loader_options
    workload = Workload(made)
    assert (workload.epoch, len(workload.drawable)) == (48, len(set(made.sampler(0))))
    model, batch = workload.model(0), workload.batch(torch.arange(8))
    doubled = F.cross_entropy(model(2.0 * batch[0]), batch[1])
    assert workload.loss(model, batch).item() == pytest.approx(doubled.item())


class Unending(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        while True:
            x = torch.randn(6)
            yield x, (x[0] > 0).long()


class Streamed(Data):
    def train_dataloader(self) -> Any:
        return DataLoader(Unending(), batch_size=8)


def test_a_stream_is_one() -> None:
    workload = Workload(task(Plain, Streamed))
    assert workload.examples_in_epoch is None
    assert check(workload).metrics["val_loss"] > 0
    assert run(workload, steps=3).steps == 3


def test_what_is_not_taken_over_is_named() -> None:
    from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

    def trainer() -> Any:
        stops = [EarlyStopping("val_loss"), ModelCheckpoint()]
        more = {"accumulate_grad_batches": 4, "precision": "64-true", "callbacks": stops, "limit_train_batches": 0.5}
        return make_trainer(enable_checkpointing=True, max_steps=-1, max_epochs=3, **more)

    class Saves(Classifier):
        def on_save_checkpoint(self, checkpoint: Any) -> None: ...

    notes = " ".join(task(Saves, Data, trainer()).data_notes)
    for part in (
        "accumulate_grad_batches=4 is not taken over",
        "max_epochs=3",
        "precision '64-true' is not taken over, runs compute in float32",
        "callbacks are not called in the runs: EarlyStopping",
        "limit_train_batches=0.5",
        "on_save_checkpoint() of Saves are not called",
        "CosineAnnealingLR is taken over as the task's schedule, over the 3 steps of the Trainer",
        '--current "batch_size=64,lr=0.1"',
    ):
        assert part in notes, part
    assert "ModelCheckpoint" not in notes


@pytest.mark.parametrize(
    ("precision", "member"), [("16-mixed", "float16"), ("bf16-mixed", "bfloat16"), ("32-true", None)]
)
def test_mixed_precision_is_that_of_the_task(precision: str, member: str | None, monkeypatch: Any) -> None:
    class Given:
        gradient_clip_val = gradient_clip_algorithm = None
        max_epochs, max_steps, accumulate_grad_batches, limit_val_batches, world_size = 1, -1, 1, 1.0, 1
        callbacks: tuple[()] = ()
        loggers: tuple[()] = ()

    given: Any = Given()
    given.precision = precision
    made = task(Plain, Data, given)
    assert getattr(made, "precision", None) == member
    assert run(Workload(made), steps=3).steps == 3


def test_the_identity_follows_the_users_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = (Path(__file__).parent / "lightning_modules.py").read_text()
    (tmp_path / "own_training.py").write_text(source + "\nfrom own_widths import WIDTH\n")
    (tmp_path / "own_widths.py").write_text("WIDTH = 4\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    names = {"module": "Classifier", "data": "Data", "trainer": "make_trainer"}

    def identity() -> Any:
        settings = [f"{key}=own_training.py:{name}" for key, name in names.items()]
        found = load_task("batchscope.integrations.lightning:task", settings)
        assert isinstance(found.task.model(), sys.modules["own_training"].Classifier)
        return found

    try:
        first = identity()
        assert first.name == "own_training-Classifier"
        assert "own_widths.py" in first.files
        assert identity().identity("cpu") == first.identity("cpu")
        (tmp_path / "own_widths.py").write_text("WIDTH = 5\n")
        assert identity().identity("cpu") != first.identity("cpu")
    finally:
        for name in ("own_training", "own_widths"):
            sys.modules.pop(name, None)


def test_a_task_made_in_python_is_told_apart_by_its_code() -> None:
    one, other, again = (as_loaded(task(module, Data)) for module in (Plain, Unvalidated, Plain))
    assert one.source_sha256 != other.source_sha256
    assert (one.name, one.source_sha256) == (again.name, again.source_sha256)
    assert one.notes == ()


def test_settings_are_spoken_of_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("class Model: ...\n")
    for given, message in (
        (["module=mine.py:Modle"], "has no 'Modle'; did you mean 'Model'"),
        ([], "needs --set module=VALUE"),
        (["module=mine.py:Model"], "an object of type Model, which is no LightningModule"),
    ):
        with pytest.raises(TaskError, match=message):
            load_task("batchscope.integrations.lightning:task", given)
