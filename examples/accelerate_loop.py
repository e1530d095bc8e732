"""The digits with a loop of Accelerate: accumulation, clipping, mixed precision; and a noise monitor beside it.

accelerate launch examples/accelerate_loop.py
batchscope find examples/accelerate_loop_task.py --target "val_accuracy>=0.95"
"""

import argparse

import torch
from accelerate import Accelerator
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from batchscope import NoiseMonitor
from pretraining import digits


def make_model():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.GELU(), nn.LayerNorm(128), nn.Linear(128, 10))


def make_optimizer(params, lr):
    return torch.optim.AdamW(params, lr=lr, weight_decay=0.05)


def class_loss(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1], label_smoothing=0.05)


@torch.no_grad()
def validate(model, data, device):
    model.eval()
    images, labels = (each.to(device) for each in data.tensors)
    scores = model(images).float()
    model.train()
    accuracy = (scores.argmax(1) == labels).float().mean().item()
    return {"val_loss": F.cross_entropy(scores, labels).item(), "val_accuracy": accuracy}


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=16, help="of a micro-batch")
    parser.add_argument("--accumulate", type=int, default=4)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--mixed-precision", default="no", choices=["no", "bf16", "fp16"])
    parser.add_argument("--cpu", action="store_true")
    args = parser.parse_args(words)

    accelerator = Accelerator(
        gradient_accumulation_steps=args.accumulate, mixed_precision=args.mixed_precision, cpu=args.cpu
    )
    torch.manual_seed(0)
    train, val = digits(0, 9)
    model = make_model()
    loader = DataLoader(train, args.batch_size, shuffle=True, drop_last=True)
    model, optimizer, loader = accelerator.prepare(model, make_optimizer(model.parameters(), args.lr), loader)
    examples = args.batch_size * args.accumulate * accelerator.num_processes
    monitor = NoiseMonitor(model, optimizer, batch_size=examples, scaler=accelerator.scaler)

    for epoch in range(args.epochs):
        for batch in loader:
            monitor.micro_batch(len(batch[0]))
            with accelerator.accumulate(model):
                accelerator.backward(class_loss(model, batch))
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
        metrics = validate(model, val, accelerator.device)
        accelerator.print(
            f"epoch {epoch + 1}: val_loss {metrics['val_loss']:.4f}, val_accuracy {metrics['val_accuracy']:.4f}"
        )
    reading = monitor.read()
    accelerator.print(f"gradient noise scale {reading.gradient_noise_scale.value}, from {reading.source}")
    monitor.close()
    return reading


if __name__ == "__main__":
    main()
