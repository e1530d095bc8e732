"""Task of `fine_tuning.py`, which loads the weights anew in every run.

python examples/pretraining.py --save pretrained.pt
batchscope find examples/fine_tuning_task.py --set weights=pretrained.pt --target "val_accuracy>=0.97"
"""

from pathlib import Path

import batchscope
from fine_tuning import class_loss, load_model, make_optimizer, validate
from pretraining import WEIGHTS, digits


def task(weights: Path = WEIGHTS):
    train, val = digits(5, 9)
    return batchscope.task(
        model=lambda: load_model(weights),
        train=train,
        loss=class_loss,
        optimizer=make_optimizer,
        evaluate=lambda model: validate(model, val),
    )
