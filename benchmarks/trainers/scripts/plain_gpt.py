"""The next letter of Shakespeare by a small GPT in a loop of its own: clipping, no decay for norms and biases."""

import os
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

SHARED = Path(os.environ.get("BATCHSCOPE_SHARED", Path(__file__).resolve().parents[4] / "shared"))
LETTERS, CONTEXT, WIDTH, HEADS, LAYERS, CLIP = 65, 48, 64, 4, 2, 1.0


def load(part, most):
    with np.load(SHARED / "data" / "tinyshakespeare" / "tinyshakespeare.npz") as arrays:
        codes = torch.from_numpy(arrays[part][: most * CONTEXT + 1].astype("int64"))
    return TensorDataset(codes[:-1].view(-1, CONTEXT), codes[1:].view(-1, CONTEXT))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.layers = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x):
        parts = self.attention(self.norm_1(x)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        heads = F.scaled_dot_product_attention(*parts, is_causal=True)
        x = x + self.out(heads.transpose(1, 2).flatten(2))
        return x + self.layers(self.norm_2(x))


class GPT(nn.Module):
    def __init__(self):
        super().__init__()
        self.letters, self.places = nn.Embedding(LETTERS, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.scores = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, LETTERS))

    def forward(self, codes):
        return self.scores(self.blocks(self.letters(codes) + self.places.weight))


def loss_of(model, batch):
    codes, following = batch
    return F.cross_entropy(model(codes).flatten(0, 1), following.flatten())


def make_optimizer(model, lr):
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95))


@torch.no_grad()
def validate(model, data):
    model.eval()
    value = loss_of(model, data.tensors).item()
    model.train()
    return value


def train(*, batch_size=8, lr=1e-3, seed=0, steps=3000, every=50, watch):
    data, val = load("train", 12_000), load("val", 100)
    torch.manual_seed(seed)
    model = GPT()
    optimizer = make_optimizer(model, lr)
    loader = DataLoader(data, batch_size, shuffle=True, drop_last=True)
    watch.begins()
    step = 0
    while step < steps:
        for batch in loader:
            loss = loss_of(model, batch)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            step += 1
            if step % every == 0:
                watch.validates()
                if watch.validated(step, validate(model, val)):
                    return
            if step == steps:
                return


def task():
    import batchscope

    val = load("val", 100)
    return batchscope.task(
        model=GPT,
        train=load("train", 12_000),
        loss=loss_of,
        optimizer=make_optimizer,
        before_update=lambda model: nn.utils.clip_grad_norm_(model.parameters(), CLIP),
        evaluate=lambda model: {"val_loss": validate(model, val)},
    )
