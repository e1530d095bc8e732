"""A number from a table by a network with dropout: judged by RMSE, averaged weights, early stopping.

    python examples/table_regression.py
    python examples/table_regression.py --table FILE.npz          # x_train, y_train, x_val, y_val

Without a table, the regression problem 1 of Friedman 1991 (Multivariate Adaptive Regression Splines) is drawn anew:
y = 10 sin(pi x1 x2) + 20 (x3 - 0.5)^2 + 10 x4 + 5 x5 + noise, ten columns uniform in [0, 1].
"""

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, TensorDataset

EMA_DECAY = 0.99


def friedman(examples, seed):
    rng = np.random.default_rng(seed)
    x = rng.random((examples, 10))
    y = 10 * np.sin(np.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2 + 10 * x[:, 3] + 5 * x[:, 4]
    return x, y + rng.standard_normal(examples)


class Table:
    """Columns standardised by the training part; the target too, and `spread` is its unit."""

    def __init__(self, path=None):
        if path is None:
            (x, y), (x_val, y_val) = friedman(4000, seed=0), friedman(1000, seed=1)
        else:
            with np.load(path) as file:
                x, y, x_val, y_val = (
                    file[f"{each}_{part}"].astype(np.float64) for part in ("train", "val") for each in "xy"
                )
        mean, self.spread = y.mean(), float(y.std())
        self.columns = x.shape[1]
        x, x_val = ((each - x.mean(0)) / np.where(x.std(0) > 0, x.std(0), 1) for each in (x, x_val))
        y, y_val = ((each - mean) / self.spread for each in (y, y_val))
        self.train, self.val = (
            TensorDataset(*(torch.from_numpy(np.asarray(each, dtype=np.float32)) for each in part))
            for part in ((x, y), (x_val, y_val))
        )


def make_model(columns):
    return nn.Sequential(
        nn.Linear(columns, 128), nn.ReLU(), nn.Dropout(0.1), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 1)
    )


def squared_error(model, batch):
    return F.mse_loss(model(batch[0]).squeeze(1), batch[1])


def make_optimizer(params, lr):
    return torch.optim.AdamW(params, lr=lr, weight_decay=1e-2)


@torch.no_grad()
def rmse(model, table):
    device = next(model.parameters()).device
    model.eval()
    error = squared_error(model, [each.to(device) for each in table.val.tensors]).item()
    model.train()
    return table.spread * math.sqrt(error)


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--patience", type=int, default=10, help="epochs without a better RMSE")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path, default=Path("table_regression.pt"))
    args = parser.parse_args(words)

    device = "cuda" if torch.cuda.is_available() else "cpu"
    table = Table(args.table)
    loader = DataLoader(table.train, args.batch_size, shuffle=True, drop_last=True)
    torch.manual_seed(args.seed)
    model = make_model(table.columns).to(device)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY))
    optimizer = make_optimizer(model.parameters(), args.lr)

    best, best_epoch = math.inf, 0
    for epoch in range(args.epochs):
        for batch in loader:
            loss = squared_error(model, [each.to(device) for each in batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            averaged.update_parameters(model)
        now, of_average = rmse(model, table), rmse(averaged, table)
        print(f"epoch {epoch + 1}: val_rmse {now:.4f}, of the averaged weights {of_average:.4f}")
        if of_average < best:
            best, best_epoch = of_average, epoch
            torch.save({"model": model.state_dict(), "averaged": averaged.module.state_dict()}, args.save)
        if epoch - best_epoch >= args.patience:
            break
    print(f"best: {best:.4f} after epoch {best_epoch + 1}")


if __name__ == "__main__":
    main()
