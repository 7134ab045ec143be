"""A transformer that writes English, letter by letter: a decoder of four blocks on the texts of Python's `help()`.

Each block is x + attention(norm(x)), then x + mlp(norm(x)). Query, key and value of all heads are views of one product,
which attention reads in place; GELU and both sums are fused into linear layers. A head knows places by ALiBi (Press et
al. 2022): a score falls with the distance, in each head at a slope of its own. Text is written through a cache of keys
and values, so that a new letter costs one row of every product and not all those before it again.

    python examples/char_transformer.py
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from types import ModuleType

import neurokern
import neurokern.functional as F
import torch
from neurokern.examples import training
from torch import Tensor

Cache = tuple[Tensor, Tensor]  # keys and values of a block [batch, HEADS, CONTEXT, WIDTH / HEADS]
Pick = Callable[[Tensor], Tensor]  # logits [batch, classes] -> the next character's class [batch, 1]

NAME = "character transformer"
DATA = "Python's help texts"
CONTEXT, WIDTH, HEADS, LAYERS = 256, 128, 4, 4
SLOPES = 4.0 ** -torch.arange(HEADS)  # what a head takes off a score for each character in between
SECONDS = 55.0  # of an epoch on both sides, on two cores
EPOCHS, BATCH, RATE, TURN = 1, 8, 4e-3, 10
BITS = 2.6  # most bits per character of text that it was not trained on
AGREEMENT = 1e-4  # most that the loss of a turn may differ between our kernels and torch


@lru_cache
def text() -> str:
    """About 450,000 characters of prose and code, those of ASCII."""
    from pydoc_data.topics import topics

    return "".join(topics[name] for name in sorted(topics)).encode("ascii", "ignore").decode()


@lru_cache
def alphabet() -> str:
    """The characters of the text; a character's class is its place here."""
    return "".join(sorted(set(text())))


def encode(characters: str) -> Tensor:
    """Their classes."""
    place = {c: i for i, c in enumerate(alphabet())}
    return torch.tensor([place[c] for c in characters])


def data() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Windows of the text [n, CONTEXT] and the character that follows each of theirs; the last tenth is for testing."""
    ids = encode(text())
    n = (len(ids) - 1) // CONTEXT
    x, y = (part.view(n, CONTEXT) for part in (ids[: n * CONTEXT], ids[1 : n * CONTEXT + 1]))
    cut = n * 9 // 10
    return x[:cut], y[:cut], x[cut:], y[cut:]


class StockLinear(torch.nn.Linear):
    """neurokern.nn.LinearActivation by torch.nn: product, activation and residual one after the other."""

    def __init__(self, k: int, n: int, activation: str | None = None) -> None:
        super().__init__(k, n)
        self.activation = activation

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        y = super().forward(x)
        if self.activation is not None:
            y = getattr(torch.nn.functional, self.activation)(y)
        return y if residual is None else residual + y


def stock_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """neurokern.functional.attention with ALiBi by torch.nn, which is given the matrix that is added to the scores."""
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=_matrix(q.shape[2], q.dtype))


@lru_cache
def _matrix(n: int, dtype: torch.dtype) -> Tensor:
    distance = torch.arange(n).unsqueeze(1) - torch.arange(n)
    matrix = -SLOPES.view(1, HEADS, 1, 1) * distance  # of four dimensions, which torch's fused kernel asks for
    return matrix.masked_fill(distance < 0, -math.inf).to(dtype)


def our_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same without a matrix."""
    return F.attention(q, k, v, is_causal=True, alibi_slopes=SLOPES)


class Block(torch.nn.Module):
    """Attention of each place to those before it, and a perceptron; each is added to what it is given."""

    def __init__(self, nn: ModuleType, linear: type[torch.nn.Linear], attention: Callable[..., Tensor]) -> None:
        super().__init__()
        self.attention = attention
        self.norm1, self.qkv = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3 * WIDTH)
        self.out = linear(WIDTH, WIDTH, activation=None)
        self.norm2, self.up = nn.LayerNorm(WIDTH), linear(WIDTH, 4 * WIDTH, activation="gelu")
        self.down = linear(4 * WIDTH, WIDTH, activation=None)

    def forward(self, x: Tensor, kept: Cache | None = None, lengths: Tensor | None = None) -> Tensor:
        # [batch, length, WIDTH] -> three views [batch, HEADS, length, WIDTH / HEADS] of one product
        q, k, v = (t.transpose(1, 2) for t in self.qkv(self.norm1(x)).unflatten(-1, (3, HEADS, -1)).unbind(2))
        if kept is None:
            y = self.attention(q, k, v)
        else:
            y = F.attention_with_kv_cache(q, *kept, k, v, cache_seqlens=lengths, alibi_slopes=SLOPES)
        x = self.out(y.transpose(1, 2).flatten(2), x)
        return self.down(self.up(self.norm2(x)), x)


class CharTransformer(torch.nn.Module):
    """Characters [batch, length] -> logits of each one's next [batch, length, classes]."""

    def __init__(self, nn: ModuleType, linear: type[torch.nn.Linear], attention: Callable[..., Tensor]) -> None:
        super().__init__()
        classes = len(alphabet())
        self.characters = nn.Embedding(classes, WIDTH)
        self.blocks = nn.ModuleList(Block(nn, linear, attention) for _ in range(LAYERS))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, classes)

    def forward(self, ids: Tensor, caches: list[Cache] | None = None, done: int = 0) -> Tensor:
        """With caches, which are written to, ids follow the `done` characters that these hold."""
        lengths = torch.full((len(ids),), done, dtype=torch.int32)
        x = self.characters(ids)
        for block, kept in zip(self.blocks, caches or [None] * LAYERS, strict=True):
            x = block(x, kept, lengths)
        return self.head(self.norm(x))


@torch.no_grad()
def write(model: CharTransformer, start: str, length: int, pick: Pick, cached: bool = True) -> str:
    """Continue a text up to a length of at most CONTEXT characters; cached: only what is new goes through the model."""
    ids, done = encode(start)[None], 0
    shape = (1, HEADS, CONTEXT, WIDTH // HEADS)
    caches = [(torch.empty(shape), torch.empty(shape)) for _ in range(LAYERS)] if cached else None
    while ids.shape[1] < length:
        logits = model(ids[:, done:], caches, done)
        done = ids.shape[1] if cached else 0
        ids = torch.cat([ids, pick(logits[:, -1])], 1)
    return "".join(alphabet()[i] for i in ids[0])


def ours() -> torch.nn.Module:
    """On our kernels."""
    return CharTransformer(neurokern.nn, neurokern.nn.LinearActivation, our_attention)


def stock() -> torch.nn.Module:
    """The same by torch.nn."""
    return CharTransformer(torch.nn, StockLinear, stock_attention)


class Trainer(training.AdamWTrainer):
    """The score is in bits per character."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__(model, RATE, BATCH, EPOCHS * 250)

    @torch.no_grad()
    def score(self, x: Tensor, y: Tensor) -> float:
        """Mean of -log2 of the probability of the character that follows."""
        self.model.eval()
        nats = [float(self.loss(xb, yb)) * len(xb) for xb, yb in zip(x.split(64), y.split(64), strict=True)]
        return sum(nats) / len(x) / math.log(2)


def sample(model: torch.nn.Module) -> str:
    """A text by the model, each character drawn from what it expects."""
    draw = torch.Generator().manual_seed(0)

    def pick(logits: Tensor) -> Tensor:
        return torch.multinomial((logits / 0.7).softmax(-1), 1, generator=draw)

    return write(model, "The ", CONTEXT, pick)


def main() -> None:
    """Train on our kernels, then write."""
    torch.manual_seed(0)
    trainer = Trainer(ours())
    training.run(trainer, data(), EPOCHS, 5 * TURN)
    print(sample(trainer.model))


if __name__ == "__main__":
    main()
