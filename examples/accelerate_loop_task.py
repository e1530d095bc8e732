"""The loop of `accelerate_loop.py` as a task: what it has, without the loop."""

from torch import nn

import batchscope
from accelerate_loop import class_loss, make_model, make_optimizer, validate
from pretraining import digits


def task():
    train, val = digits(0, 9)
    return batchscope.task(
        model=make_model,
        train=train,
        loss=class_loss,
        optimizer=make_optimizer,
        evaluate=lambda model: validate(model, val, next(model.parameters()).device),
        before_update=lambda model: nn.utils.clip_grad_norm_(model.parameters(), 1.0),
    )
