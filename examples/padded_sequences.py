"""The largest number so far at each place of a sequence, by a recurrent network: padded batches of similar lengths.

    python examples/padded_sequences.py --epochs 5

The sequences are made from a seed: 3 to 60 numbers of 1 to 9, small ones more often. Padding counts in no loss.
"""

import argparse
import math
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence
from torch.utils.data import DataLoader, Dataset, Sampler

EXAMPLES, SHORTEST, LONGEST, BUCKET = 4000, 3, 60, 256
PADDING = 0


class Sequences(Dataset):
    """Sequences of numbers, each with the largest so far."""

    def __init__(self, examples, seed):
        generator = torch.Generator().manual_seed(seed)
        self.lengths = torch.randint(SHORTEST, LONGEST + 1, (examples,), generator=generator).tolist()
        odds = 0.6 ** torch.arange(9)
        self.numbers = [torch.multinomial(odds, n, replacement=True, generator=generator) + 1 for n in self.lengths]

    def __len__(self):
        return len(self.numbers)

    def __getitem__(self, index):
        numbers = self.numbers[index]
        return numbers, numbers.cummax(0).values


class SimilarLengths(Sampler):
    """Order of an epoch: shuffled, sorted by length in buckets, the buckets shuffled."""

    def __init__(self, lengths, seed):
        self.lengths, self.generator = lengths, torch.Generator().manual_seed(seed)

    def __len__(self):
        return len(self.lengths)

    def __iter__(self):
        order = torch.randperm(len(self.lengths), generator=self.generator)
        buckets = [sorted(bucket.tolist(), key=self.lengths.__getitem__) for bucket in order.split(BUCKET)]
        for index in torch.randperm(len(buckets), generator=self.generator).tolist():
            yield from buckets[index]


def collate(examples):
    numbers, largest = zip(*examples, strict=True)
    return {
        "numbers": pad_sequence(numbers, batch_first=True, padding_value=PADDING),
        "largest": pad_sequence(largest, batch_first=True, padding_value=PADDING),
        "lengths": torch.tensor([len(each) for each in numbers]),
    }


def load():
    train, val = Sequences(EXAMPLES, seed=0), Sequences(500, seed=1)
    return train, DataLoader(val, 250, collate_fn=collate)


class Network(nn.Module):
    """Embedded numbers through one recurrent layer, which sees no padding."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10, 16, padding_idx=PADDING)
        self.recurrent = nn.GRU(16, 48, batch_first=True)
        self.scores = nn.Linear(48, 10)

    def forward(self, numbers, lengths):
        packed = pack_padded_sequence(self.embedding(numbers), lengths.cpu(), batch_first=True, enforce_sorted=False)
        return self.scores(pad_packed_sequence(self.recurrent(packed)[0], batch_first=True)[0])


def sequence_loss(model, batch):
    scores = model(batch["numbers"], batch["lengths"])
    return F.cross_entropy(scores.flatten(0, 1), batch["largest"].flatten(), ignore_index=PADDING)


@torch.no_grad()
def validate(model, loader):
    model.eval()
    device = next(model.parameters()).device
    total, places = 0.0, 0
    for batch in loader:
        batch = {name: each.to(device) for name, each in batch.items()}
        count = batch["lengths"].sum().item()
        total += sequence_loss(model, batch).item() * count
        places += count
    model.train()
    return total / places


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=5e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path, default=Path("padded_sequences.pt"))
    args = parser.parse_args(words)

    device = "cuda" if torch.cuda.is_available() else "cpu"
    train, val_loader = load()
    sampler = SimilarLengths(train.lengths, args.seed)
    loader = DataLoader(train, args.batch_size, sampler=sampler, drop_last=True, collate_fn=collate)
    torch.manual_seed(args.seed)
    model = Network().to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)

    best = math.inf
    for epoch in range(args.epochs):
        for batch in loader:
            loss = sequence_loss(model, {name: each.to(device) for name, each in batch.items()})
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        val_loss = validate(model, val_loader)
        print(f"epoch {epoch + 1}: val_loss {val_loss:.4f}")
        if val_loss < best:
            best = val_loss
            torch.save(model.state_dict(), args.save)


if __name__ == "__main__":
    main()
