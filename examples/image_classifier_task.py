"""Task of `image_classifier.py`, whose cosine schedule is an option of the command.

batchscope find examples/image_classifier_task.py --target "val_accuracy>=0.97" --schedule cosine
"""

from torch.nn.functional import cross_entropy

import batchscope
from image_classifier import WORKERS, load, make_model, make_optimizer, validate


def task():
    train, val_loader = load()
    return batchscope.task(
        model=make_model,
        train=train,
        loss=lambda model, batch: cross_entropy(model(batch[0]), batch[1]),
        optimizer=make_optimizer,
        evaluate=lambda model: validate(model, val_loader),
        loader_options={"num_workers": WORKERS, "persistent_workers": True},
    )
