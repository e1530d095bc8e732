"""The next letter of Shakespeare's lines by a tiny GPT-2 in the Trainer: of unequal length, a mean over letters."""

import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

SHARED = Path(os.environ.get("BATCHSCOPE_SHARED", Path(__file__).resolve().parents[4] / "shared"))
LETTERS, LONGEST = 65, 48


def load(part, most):
    with np.load(SHARED / "data" / "tinyshakespeare" / "tinyshakespeare.npz") as arrays:
        codes, line_end = (
            torch.from_numpy(arrays[part].astype("int64")),
            int(np.flatnonzero(arrays["vocab"] == "\n")[0]),
        )
    ends = (codes == line_end).nonzero().flatten().tolist()
    lines = [codes[a + 1 : b + 1][:LONGEST] for a, b in zip([-1, *ends], ends, strict=False) if b - a > 2]
    return [{"input_ids": line} for line in lines[:most]]


def collate(examples):
    lines = [each["input_ids"] for each in examples]
    batch = {"input_ids": pad_sequence(lines, batch_first=True), "labels": pad_sequence(lines, True, -100)}
    return {**batch, "attention_mask": (batch["labels"] != -100).long()}


def make_model():
    off = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "use_cache": False}
    words = {"vocab_size": LETTERS, "n_positions": LONGEST, "bos_token_id": None, "eos_token_id": None}
    return GPT2LMHeadModel(GPT2Config(n_embd=64, n_layer=2, n_head=4, **off, **words))


def make_trainer(*, batch_size=8, lr=1e-3, seed=0, steps=2000, every=50, callbacks=()):
    arguments = TrainingArguments(
        output_dir=tempfile.gettempdir(),
        per_device_train_batch_size=batch_size,
        per_device_eval_batch_size=200,
        learning_rate=lr,
        lr_scheduler_type="constant",
        weight_decay=0.1,
        max_steps=steps,
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_drop_last=True,
        use_cpu=True,
        prediction_loss_only=True,
        seed=seed,
    )
    return Trainer(
        model_init=make_model,
        args=arguments,
        train_dataset=load("train", 12_000),
        eval_dataset=load("val", 200),
        data_collator=collate,
        callbacks=list(callbacks),
    )


class Watched(TrainerCallback):
    def __init__(self, watch):
        self.watch = watch

    def on_train_begin(self, args, state, control, **kwargs):
        self.watch.begins()

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step % args.eval_steps == 0:
            self.watch.validates()

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        control.should_training_stop = self.watch.validated(state.global_step, metrics["eval_loss"])


def train(*, watch, **settings):
    make_trainer(callbacks=[Watched(watch)], **settings).train()
