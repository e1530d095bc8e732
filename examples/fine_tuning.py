"""The digits 5 to 9 by a network that was trained on 0 to 4: two parts frozen, one at a tenth of the learning rate.

python examples/pretraining.py --save pretrained.pt
python examples/fine_tuning.py --weights pretrained.pt
"""

import argparse
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from pretraining import WEIGHTS, Network, digits


def load_model(weights):
    """The trained body with a fresh head, the first two parts frozen."""
    model = Network()
    model.load_state_dict(torch.load(weights, weights_only=True))
    model.head = nn.Linear(model.head.in_features, 5)
    for part in (model.edges, model.shapes):
        part.requires_grad_(False)
    return model


def class_loss(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


def make_optimizer(model, lr):
    groups = [{"params": model.features.parameters(), "lr": 0.1 * lr}, {"params": model.head.parameters()}]
    return torch.optim.AdamW(groups, lr=lr)


@torch.no_grad()
def validate(model, data):
    device = next(model.parameters()).device
    model.eval()
    images, labels = (each.to(device) for each in data.tensors)
    scores = model(images)
    model.train()
    accuracy = (scores.argmax(1) == labels).float().mean().item()
    return {"val_loss": F.cross_entropy(scores, labels).item(), "val_accuracy": accuracy}


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="of pretraining.py")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path, default=Path("fine_tuning.pt"))
    args = parser.parse_args(words)

    device = "cuda" if torch.cuda.is_available() else "cpu"
    train, val = digits(5, 9)
    loader = DataLoader(train, args.batch_size, shuffle=True, drop_last=True)
    torch.manual_seed(args.seed)
    model = load_model(args.weights).to(device)
    optimizer = make_optimizer(model, args.lr)

    best = 0.0
    for epoch in range(args.epochs):
        for batch in loader:
            loss = class_loss(model, [each.to(device) for each in batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        metrics = validate(model, val)
        print(f"epoch {epoch + 1}: val_loss {metrics['val_loss']:.4f}, val_accuracy {metrics['val_accuracy']:.4f}")
        if metrics["val_accuracy"] > best:
            best = metrics["val_accuracy"]
            torch.save(model.state_dict(), args.save)


if __name__ == "__main__":
    main()
