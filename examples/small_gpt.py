"""The next byte of a text by a small GPT: warm-up, clipping, no decay for norms and embeddings, token means, bfloat16.

    python examples/small_gpt.py --text docs/log.md --steps 500

A paragraph is cut into windows; what is missing from its last one is padded, and counts in no loss.
"""

import argparse
import math
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

TEXT = Path(__file__).resolve().parents[1] / "docs" / "log.md"
CONTEXT, WIDTH, HEADS, LAYERS = 64, 64, 4, 2
IGNORED = -100
WARMUP, FINAL, CLIP = 0.1, 0.1, 1.0


def load(path):
    """Windows of codes with the same windows one byte later, to train on and (every tenth paragraph) to validate on."""
    parts = ([], [])
    for number, paragraph in enumerate(path.read_bytes().split(b"\n\n")):
        codes = torch.tensor(list(paragraph + b"\n\n"))
        for start in range(0, len(codes) - 1, CONTEXT):
            window = F.pad(codes[start : start + CONTEXT + 1], (0, CONTEXT + 1), value=IGNORED)[: CONTEXT + 1]
            parts[number % 10 == 9].append((window[:-1].clamp(min=0), window[1:]))
    return (TensorDataset(*(torch.stack(each) for each in zip(*part, strict=True))) for part in parts)


class Block(nn.Module):
    """Attention to what came before, then two layers on each byte by itself."""

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
    """Bytes and their places embedded, blocks, and scores of the next byte."""

    def __init__(self):
        super().__init__()
        self.bytes, self.places = nn.Embedding(256, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.scores = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 256))

    def forward(self, codes):
        places = self.places(torch.arange(codes.shape[1], device=codes.device))
        return self.scores(self.blocks(self.bytes(codes) + places))


def token_loss(model, batch):
    codes, following = batch
    return F.cross_entropy(model(codes).flatten(0, 1), following.flatten(), ignore_index=IGNORED)


def count_tokens(batch):
    return (batch[1] != IGNORED).sum().item()


def make_optimizer(model, lr):
    matrices = {module.weight for module in model.modules() if isinstance(module, nn.Linear)}
    groups = [
        {"params": [p for p in model.parameters() if p in matrices], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p not in matrices], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95))


def lr_factor(progress):
    """Linear from a tenth to the whole learning rate, then half a cosine down to a tenth."""
    if progress < WARMUP:
        return 0.1 + 0.9 * progress / WARMUP
    return FINAL + (1 - FINAL) * (1 + math.cos(math.pi * (progress - WARMUP) / (1 - WARMUP))) / 2


@torch.no_grad()
def validate(model, data):
    device = next(model.parameters()).device
    model.eval()
    total, tokens = 0.0, 0
    for batch in DataLoader(data, 256):
        batch = [each.to(device) for each in batch]
        with torch.autocast(device.type, torch.bfloat16):
            total += token_loss(model, batch).item() * count_tokens(batch)
        tokens += count_tokens(batch)
    model.train()
    return total / tokens


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, default=TEXT)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=50, help="steps between evaluations")
    parser.add_argument("--save", type=Path, default=Path("small_gpt.pt"))
    args = parser.parse_args(words)

    device = "cuda" if torch.cuda.is_available() else "cpu"
    train, val = load(args.text)
    loader = DataLoader(train, args.batch_size, shuffle=True, drop_last=True)
    torch.manual_seed(args.seed)
    model = GPT().to(device)
    optimizer = make_optimizer(model, args.lr)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: lr_factor(step / args.steps))

    step, best = 0, math.inf
    while step < args.steps:
        for batch in loader:
            with torch.autocast(device, torch.bfloat16):
                loss = token_loss(model, [each.to(device) for each in batch])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            scheduler.step()
            step += 1
            if step % args.every == 0 or step == args.steps:
                val_loss = validate(model, val)
                print(f"step {step}: loss {loss.item():.3f}, val_loss {val_loss:.3f}")
                if val_loss < best:
                    best = val_loss
                    torch.save(model.state_dict(), args.save)
            if step == args.steps:
                break


if __name__ == "__main__":
    main()
