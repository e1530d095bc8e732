"""Task of `padded_sequences.py`: batchscope find examples/padded_sequences_task.py --target "val_loss<=0.1"."""

from torch.optim import Adam

import batchscope
from padded_sequences import Network, SimilarLengths, collate, load, sequence_loss, validate


def task():
    train, val_loader = load()
    return batchscope.task(
        model=Network,
        train=train,
        loss=sequence_loss,
        loss_weight=lambda batch: batch["lengths"].sum().item(),
        optimizer=Adam,
        collate=collate,
        sampler=lambda seed: SimilarLengths(train.lengths, seed),
        evaluate=lambda model: {"val_loss": validate(model, val_loader)},
    )
