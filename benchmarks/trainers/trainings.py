"""The five trainings: a user's script each, how it becomes a task, and what it is trained to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["TRAININGS", "Training"]

SCRIPTS = Path(__file__).resolve().parent / "scripts"


@dataclass(frozen=True, kw_only=True)
class Training:
    """One training.

    Attributes:
        name: of its script in `scripts/`, and of its rows.
        task: words of the command line that name its task; `{script}` is the script's path.
        target: `METRIC<=VALUE`.
        batch_size: the script's own default.
        lr: likewise.
        evaluate_every: examples between two validations of a run in the user's trainer.
        description: one line.
    """

    name: str
    task: tuple[str, ...]
    target: str
    batch_size: int
    lr: float
    evaluate_every: int
    description: str

    @property
    def script(self) -> Path:
        """The user's file."""
        return SCRIPTS / f"{self.name}.py"

    @property
    def words(self) -> list[str]:
        """Words of `batchscope find` for its task."""
        return [word.format(script=self.script) for word in self.task]

    def every(self, batch_size: int) -> int:
        """Steps between two validations."""
        return max(1, round(self.evaluate_every / batch_size))


def _lightning(module: str, data: str) -> tuple[str, ...]:
    named = (("module", module), ("data", data), ("trainer", "make_trainer"))
    settings = (word for key, name in named for word in ("--set", f"{key}={{script}}:{name}"))
    return ("batchscope.integrations.lightning:task", *settings)


_TRAINER = ("batchscope.integrations.transformers:task", "--set", "trainer={script}:make_trainer")

_ALL = (
    Training(
        name="lightning_cnn",
        task=_lightning("Classifier", "Images"),
        target="val_loss<=0.42",
        batch_size=32,
        lr=1e-3,
        evaluate_every=1000,
        description="Lightning: images, batch normalisation, clipping, cosine",
    ),
    Training(
        name="lightning_regression",
        task=_lightning("Regressor", "Hours"),
        target="val_loss<=0.11",
        batch_size=32,
        lr=1e-3,
        evaluate_every=1600,
        description="Lightning: regression on a table",
    ),
    Training(
        name="trainer_bert",
        task=_TRAINER,
        target="eval_loss<=2.4",
        batch_size=16,
        lr=1e-3,
        evaluate_every=800,
        description="Trainer: a tiny BERT, warm-up and linear decay",
    ),
    Training(
        name="trainer_language",
        task=_TRAINER,
        target="eval_loss<=2.3",
        batch_size=8,
        lr=1e-3,
        evaluate_every=320,
        description="Trainer: a language model, a mean over letters",
    ),
    Training(
        name="plain_gpt",
        task=("{script}",),
        target="val_loss<=2.25",
        batch_size=8,
        lr=1e-3,
        evaluate_every=320,
        description="plain loop: a small GPT, clipping",
    ),
)

TRAININGS: dict[str, Training] = {training.name: training for training in _ALL}
