"""Letters by sixteen small numbers, read as sixteen words by a tiny BERT in the Trainer, with its linear decay."""

import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainerCallback, TrainingArguments

SHARED = Path(os.environ.get("BATCHSCOPE_SHARED", Path(__file__).resolve().parents[4] / "shared"))
LETTERS, NUMBERS, PLACES = 26, 16, 16


def load(part, most):
    with np.load(SHARED / "data" / "letter" / "letter.npz") as arrays:
        x, y = arrays[f"x_{part}"][:most].astype("int64"), arrays[f"y_{part}"][:most].astype("int64")
    return [{"input_ids": torch.from_numpy(a), "labels": int(b)} for a, b in zip(x, y, strict=True)]


def make_model():
    shape = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    words = {"vocab_size": NUMBERS, "max_position_embeddings": PLACES, "num_labels": LETTERS, "pad_token_id": None}
    return BertForSequenceClassification(BertConfig(**shape, **off, **words))


def metrics(prediction):
    scores, labels = map(torch.as_tensor, prediction)
    return {
        "accuracy": (scores.argmax(1) == labels).float().mean().item(),
        "nll": F.cross_entropy(scores, labels).item(),
    }


def make_trainer(*, batch_size=16, lr=1e-3, seed=0, steps=1500, every=50, callbacks=()):
    arguments = TrainingArguments(
        output_dir=tempfile.gettempdir(),
        per_device_train_batch_size=batch_size,
        per_device_eval_batch_size=500,
        learning_rate=lr,
        warmup_steps=0.1,
        max_steps=steps,
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_drop_last=True,
        use_cpu=True,
        seed=seed,
    )
    return Trainer(
        model_init=make_model,
        args=arguments,
        train_dataset=load("train", 10_000),
        eval_dataset=load("val", 500),
        compute_metrics=metrics,
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
