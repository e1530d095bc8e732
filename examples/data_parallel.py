"""A classifier of digits in a loop of its own, alone or data-parallel, with a noise monitor beside it.

python examples/data_parallel.py
torchrun --standalone --nproc-per-node 2 examples/data_parallel.py
batchscope find examples/data_parallel.py --target "val_accuracy>=0.95"
"""

import argparse
import os

import torch
from torch import distributed, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

import batchscope
from batchscope.live.csv_file import CsvFile
from batchscope.wording import with_interval
from pretraining import digits


def make_model():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


def class_loss(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


def make_optimizer(params, lr):
    return torch.optim.SGD(params, lr=lr, momentum=0.9)


@torch.no_grad()
def validate(model, data):
    images, labels = data.tensors
    scores = model(images)
    accuracy = (scores.argmax(1) == labels).float().mean().item()
    return {"val_loss": F.cross_entropy(scores, labels).item(), "val_accuracy": accuracy}


def task():
    train, val = digits(0, 9)
    evaluate = lambda model: validate(model, val)  # noqa: E731
    return batchscope.task(model=make_model, train=train, loss=class_loss, optimizer=make_optimizer, evaluate=evaluate)


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=64, help="of a step, over all processes and micro-batches")
    parser.add_argument("--accumulate", type=int, default=2)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument(
        "--share", type=float, default=1.0, help="of the time, for the monitor; 0.01 in a long training"
    )
    args = parser.parse_args(words)

    parallel = "RANK" in os.environ
    if parallel:
        distributed.init_process_group("gloo")
    rank, world = (distributed.get_rank(), distributed.get_world_size()) if parallel else (0, 1)
    torch.manual_seed(0)
    train, val = digits(0, 9)
    model = DistributedDataParallel(make_model()) if parallel else make_model()
    optimizer = make_optimizer(model.parameters(), args.lr)
    sampler = DistributedSampler(train, world, rank, drop_last=True)
    loader = DataLoader(train, args.batch_size // world // args.accumulate, sampler=sampler, drop_last=True)
    kept = CsvFile("data_parallel.csv") if rank == 0 else None
    how = {"batch_size": args.batch_size, "on_reading": kept, "share": args.share}
    monitor = batchscope.NoiseMonitor(model, optimizer, **how)

    for epoch in range(args.epochs):
        sampler.set_epoch(epoch)
        for number, batch in enumerate(loader, 1):
            (class_loss(model, batch) / args.accumulate).backward()
            if number % args.accumulate == 0:
                optimizer.step()
                optimizer.zero_grad()
        if rank == 0:
            metrics = validate(model.module if parallel else model, val)
            print(f"epoch {epoch + 1}: val_loss {metrics['val_loss']:.4f}, val_accuracy {metrics['val_accuracy']:.4f}")
    reading = monitor.read()
    if rank == 0:
        gain = reading.max_speedup(2 * args.batch_size)
        print(f"gradient noise scale {with_interval(reading.gradient_noise_scale)} examples, from {reading.source}")
        print(f"twice the batch: at most {with_interval(gain)} times fewer steps")
    if parallel:
        distributed.destroy_process_group()


if __name__ == "__main__":
    main()
