"""A small language model with the Trainer of transformers: tokens of padded sequences, accumulation, warm-up, clipping.

python examples/trainer_language_model.py
batchscope find batchscope.integrations.transformers:task --set trainer=examples/trainer_language_model.py:make_trainer
"""

import argparse

import torch
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

from batchscope.integrations.transformers import NoiseCallback

LETTERS, LONGEST = 32, 48


def sentences(number, seed):
    """Sequences of unequal length, each letter from the one before but for one in ten."""
    draw = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(number):
        length = int(torch.randint(12, LONGEST, (1,), generator=draw))
        noise = torch.randint(1, LETTERS, (length,), generator=draw)
        free = torch.rand(length, generator=draw) < 0.1
        ids = noise.tolist()
        for i in range(1, length):
            if not free[i]:
                ids[i] = 1 + (3 * ids[i - 1] + 1) % (LETTERS - 1)
        made.append({"input_ids": torch.tensor(ids), "labels": torch.tensor(ids)})
    return made


def pad(examples):
    longest = max(len(each["input_ids"]) for each in examples)
    fill = {"input_ids": 0, "labels": -100}
    return {
        key: torch.stack([F.pad(each[key], (0, longest - len(each[key])), value=value) for each in examples])
        for key, value in fill.items()
    }


def make_model():
    size = {"n_positions": LONGEST, "n_embd": 64, "n_layer": 2, "n_head": 4, "bos_token_id": 0, "eos_token_id": 0}
    return GPT2LMHeadModel(GPT2Config(vocab_size=LETTERS, **size))


def make_trainer(steps: int = 300, examples: int = 2000):
    args = TrainingArguments(
        output_dir="trainer_language_model",
        max_steps=steps,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=2,
        per_device_eval_batch_size=64,
        learning_rate=3e-4,
        lr_scheduler_type="cosine",
        warmup_steps=0.1,
        weight_decay=0.1,
        max_grad_norm=1.0,
        eval_strategy="steps",
        eval_steps=50,
        logging_steps=50,
        save_strategy="no",
        seed=0,
    )
    return Trainer(
        model_init=make_model,
        args=args,
        train_dataset=sentences(examples, seed=0),
        eval_dataset=sentences(200, seed=1),
        data_collator=pad,
    )


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    trainer = make_trainer(parser.parse_args(words).steps)
    noise = NoiseCallback(trainer)
    trainer.add_callback(noise)
    trainer.train()
    print(f"eval_loss {trainer.evaluate()['eval_loss']:.4f}")
    print(f"gradient noise scale {noise.read().gradient_noise_scale.value}, from {noise.read().source}")


if __name__ == "__main__":
    main()
