"""Trainers as people write them, tiny: a language model with padded examples and a BERT classifier."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

pytest.importorskip("transformers", reason="the tests of the Trainer need transformers; install the extra integrations")

from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    Trainer,
    TrainingArguments,
)

WORDS, LONGEST = 12, 16


def sequences(number: int, seed: int = 0) -> list[dict[str, Tensor]]:
    """Stretches of a cycle, of 4 to 12 tokens each."""
    draw = torch.Generator().manual_seed(seed)
    made: list[dict[str, Tensor]] = []
    for _ in range(number):
        length, start = (int(torch.randint(*ends, (1,), generator=draw)) for ends in ((4, 13), (0, 11)))
        ids = (torch.arange(length) + start) % 11
        made.append({"input_ids": ids, "labels": ids})
    return made


def padded(examples: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    longest = max(len(each["input_ids"]) for each in examples)
    fill = {"input_ids": WORDS - 1, "labels": -100}
    return {
        key: torch.stack([F.pad(each[key], (0, longest - len(each[key])), value=value) for each in examples])
        for key, value in fill.items()
    }


def language_model() -> nn.Module:
    none = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "bos_token_id": 0, "eos_token_id": 0}
    return GPT2LMHeadModel(GPT2Config(vocab_size=WORDS, n_positions=LONGEST, n_embd=16, n_layer=1, n_head=2, **none))


def classifier() -> nn.Module:
    torch.manual_seed(3)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    none = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return BertForSequenceClassification(
        BertConfig(vocab_size=WORDS, max_position_embeddings=LONGEST, num_labels=2, **small, **none)
    )


def sentences(number: int, seed: int = 0) -> list[dict[str, Any]]:
    """Eight tokens each, labelled by whether the first of them is in the upper half; beside it a column of no use."""
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, WORDS, (number, 8), generator=draw)
    return [{"input_ids": row, "label": int(row[0] >= WORDS // 2), "source": "drawn"} for row in ids]


def accuracy(prediction: Any) -> dict[str, float]:
    return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


def arguments(**changes: Any) -> TrainingArguments:
    how: dict[str, Any] = {
        "output_dir": "out",
        "max_steps": 8,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-2,
        "weight_decay": 0.1,
        "use_cpu": True,
        "train_sampling_strategy": "sequential",
        "save_strategy": "no",
    }
    return TrainingArguments(**{**how, **changes})


def make_language_trainer(kind: type[Trainer] = Trainer, examples: int = 64, **changes: Any) -> Trainer:
    """Token weights, accumulation, warm-up, a linear schedule, clipping."""
    args = arguments(**{"gradient_accumulation_steps": 2, "warmup_steps": 2, "max_grad_norm": 0.5, **changes})
    data: dict[str, Any] = {"train_dataset": sequences(examples), "eval_dataset": sequences(16, seed=1)}
    return kind(model_init=language_model, args=args, data_collator=padded, **data)


def make_classifier_trainer(**changes: Any) -> Trainer:
    """A model that is handed over with its weights, metrics, cosine."""
    args = arguments(**{"lr_scheduler_type": "cosine", "warmup_steps": 0.25, **changes})
    data: dict[str, Any] = {"train_dataset": sentences(64), "eval_dataset": sentences(40, seed=1)}
    return Trainer(model=classifier(), args=args, compute_metrics=accuracy, **data)
