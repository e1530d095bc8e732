"""Task of `small_gpt.py`: batchscope find examples/small_gpt_task.py --target "val_loss<=2.5"."""

from torch.nn.utils import clip_grad_norm_

import batchscope
from small_gpt import CLIP, GPT, TEXT, count_tokens, load, lr_factor, make_optimizer, token_loss, validate


def task():
    train, val = load(TEXT)
    return batchscope.task(
        model=GPT,
        train=train,
        loss=token_loss,
        loss_weight=count_tokens,
        optimizer=make_optimizer,
        before_update=lambda model: clip_grad_norm_(model.parameters(), CLIP),
        schedule=lr_factor,
        precision="bfloat16",
        evaluate=lambda model: {"val_loss": validate(model, val)},
    )
