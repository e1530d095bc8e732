"""Trainings of Hugging Face `transformers` (5 or newer): a task made of a `Trainer`.

`batchscope find batchscope.integrations.transformers:task --set trainer=package.module:make_trainer`
"""

from .task import TrainerTask, task

__all__ = ["TrainerTask", "task"]
