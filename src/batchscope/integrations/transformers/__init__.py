"""Trainings of Hugging Face `transformers` (5 or newer): a task made of a `Trainer`, and a noise monitor inside one.

`batchscope find batchscope.integrations.transformers:task --set trainer=package.module:make_trainer`, and
`trainer.add_callback(NoiseCallback(trainer))`.
"""

from .callback import NoiseCallback
from .task import TrainerTask, task

__all__ = ["NoiseCallback", "TrainerTask", "task"]
