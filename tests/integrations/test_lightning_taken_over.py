"""What a Lightning task takes over of Trainer and files, and what it names."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lightning", reason="lightning is not installed: pip install -e '.[integrations]'")


import torch

from batchscope.errors import TaskError
from batchscope.integrations.lightning import task
from batchscope.report.program import last_step, library_call
from batchscope.tasks.loading import as_loaded, load_task
from batchscope.tasks.workload import Workload

from ..report import plans
from .lightning_modules import (
    QUIET,
    Classifier,
    Data,
    Plain,
    Unvalidated,
    make_trainer,
    run,
)

pytestmark = QUIET


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
        "not called in the runs: on_save_checkpoint() of Saves",
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


class Talks(Plain):
    """Writes to the terminal and to its logger, and looks at its scheduler."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.print("one more")
        self.logger.experiment.add_histogram("x", batch[0])
        self.logger.log_metrics({"x": 1.0})
        self.log("lr", self.lr_schedulers().get_last_lr()[0])
        self.log("gathered", self.all_gather(torch.ones(2)).sum())
        return super().training_step(batch, batch_idx)


def test_a_logger_that_needs_a_network_is_not_asked(capfd: pytest.CaptureFixture[str]) -> None:
    from lightning.pytorch.loggers.logger import Logger

    class Remote(Logger):
        name, version = "remote", 0

        def log_metrics(self, *given: Any, **named: Any) -> None:
            raise ConnectionError

        log_hyperparams = experiment = log_metrics

    made = task(Talks, Data, make_trainer(logger=Remote()))
    assert "nothing is sent to Remote" in " ".join(made.data_notes)
    capfd.readouterr()
    assert run(Workload(made), steps=3).steps == 3
    assert capfd.readouterr() == ("", "")


def test_the_recipe_is_told_in_the_words_of_lightning() -> None:
    plan, recipe = plans.ok(), plans.recipe(128, lr=0.25, micro=32)
    told = library_call(plan, recipe, task(Plain, Data).library)
    steps = last_step(plan, recipe)
    for line in (
        "# train_dataloader(): batch_size=32",
        "# configure_optimizers(): lr=0.25, the peak of the scheduler, if there is one",
        "Trainer(",
        "    accumulate_grad_batches=4,",
        f"    max_steps={steps},",
    ):
        assert line in told.splitlines(), line
