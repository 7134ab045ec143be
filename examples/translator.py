"""A translator from English to digits: "seven hundred and five thousand and twelve" becomes 705012, letter by letter.

An encoder reads the letters of a number's name; a decoder writes its digits, one after the other, and at each looks at
those it has written and at the encoder's output (Vaswani et al. 2017). The layers are torch.nn's with `neurokern.nn` in
the place of `torch.nn`. Names differ in length: shorter ones are padded, and a mask hides the padding.

    python examples/translator.py
"""

from __future__ import annotations

from itertools import pairwise
from types import ModuleType

import neurokern
import torch
from neurokern.examples import training
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

NAME = "translator"
DATA = "numbers in words"
SECONDS = 55.0  # of an epoch on both sides, on two cores
WIDTH, HEADS, LAYERS = 128, 4, 2
NUMBERS, TESTS = 12_800, 500  # for training, for testing: different ones
EPOCHS, BATCH, RATE, TURN = 1, 32, 2e-3, 10
ACCURACY = 0.9  # least share of the test numbers of which every digit is right
AGREEMENT = 1e-2  # most that the mean loss of a turn may differ between our kernels and torch

ONES = [
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
LETTERS = "_ -abcdefghijklmnopqrstuvwxyz"  # a letter's class is its place; the first is padding
END, START = 10, 11  # classes of the output besides the ten digits
DIGITS = 7  # of a number below a million, with END


def words(n: int) -> str:
    """The name of a number below a million."""
    if n < 20:
        return ONES[n]
    if n < 100:
        return TENS[n // 10 - 2] + (f"-{ONES[n % 10]}" if n % 10 else "")
    unit, name = (100, "hundred") if n < 1000 else (1000, "thousand")
    rest = n % unit
    return f"{words(n // unit)} {name}" + (f"{' and ' if rest < 100 else ' '}{words(rest)}" if rest else "")


def encode(names: list[str]) -> Tensor:
    """Classes of the letters [n, length], those of shorter names padded."""
    return pad_sequence([torch.tensor([LETTERS.index(c) for c in name]) for name in names], batch_first=True)


def data() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Names [n, length] and digits [n, DIGITS], then END; as many numbers of six digits as of five and of four."""
    draw = torch.Generator().manual_seed(0)
    each = (NUMBERS + TESTS) // 3 + 1
    numbers = [a + torch.randperm(b - a, generator=draw)[:each] for a, b in pairwise((0, 10**4, 10**5, 10**6))]
    numbers = torch.cat(numbers)
    numbers = numbers[torch.randperm(len(numbers), generator=draw)][: NUMBERS + TESTS].tolist()
    x = encode([words(n) for n in numbers])
    y = [torch.tensor([*map(int, str(n))] + (DIGITS - len(str(n))) * [END]) for n in numbers]
    y = torch.stack(y)
    return x[TESTS:], y[TESTS:], x[:TESTS], y[:TESTS]


class Translator(torch.nn.Module):
    """Letters [batch, length] and the digits so far [batch, digits] -> logits of the next digit [batch, digits, 11]."""

    def __init__(self, nn: ModuleType) -> None:
        super().__init__()
        self.letters, self.digits = nn.Embedding(len(LETTERS), WIDTH), nn.Embedding(START + 1, WIDTH)
        self.letter_places, self.digit_places = nn.Embedding(96, WIDTH), nn.Embedding(DIGITS, WIDTH)
        shape = {"d_model": WIDTH, "nhead": HEADS, "dim_feedforward": 4 * WIDTH, "dropout": 0.0}
        shape |= {"activation": "gelu", "batch_first": True, "norm_first": True}
        encoder, decoder = nn.TransformerEncoderLayer(**shape), nn.TransformerDecoderLayer(**shape)
        self.encoder = nn.TransformerEncoder(encoder, LAYERS, nn.LayerNorm(WIDTH), enable_nested_tensor=False)
        self.decoder = nn.TransformerDecoder(decoder, LAYERS, nn.LayerNorm(WIDTH))
        self.head = nn.Linear(WIDTH, END + 1)

    def read(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The encoder's output, and where the padding is."""
        padding = x == 0
        places = self.letter_places.weight[: x.shape[1]]
        return self.encoder(self.letters(x) + places, src_key_padding_mask=padding), padding

    def write(self, memory: Tensor, padding: Tensor, before: Tensor) -> Tensor:
        """Logits of the digit behind each of those before it."""
        n = before.shape[1]
        later = torch.ones(n, n, dtype=torch.bool).triu(1)
        y = self.digits(before) + self.digit_places.weight[:n]
        y = self.decoder(y, memory, tgt_mask=later, tgt_is_causal=True, memory_key_padding_mask=padding)
        return self.head(y)

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        return self.write(*self.read(x), before)

    @torch.no_grad()
    def translate(self, x: Tensor) -> Tensor:
        """The likeliest digit at each place [batch, DIGITS]."""
        memory, padding = self.read(x)
        y = torch.full((len(x), 1), START)
        for _ in range(DIGITS):
            y = torch.cat([y, self.write(memory, padding, y)[:, -1:].argmax(-1)], 1)
        return y[:, 1:]


def ours() -> torch.nn.Module:
    """On our kernels."""
    return Translator(neurokern.nn)


def stock() -> torch.nn.Module:
    """The same by torch.nn."""
    return Translator(torch.nn)


class Trainer(training.AdamWTrainer):
    """At each place the decoder is given the right digits before it."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__(model, RATE, BATCH, EPOCHS * NUMBERS // BATCH)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Mean cross entropy of the digits."""
        x = x[:, : int((x != 0).sum(1).max())]
        before = torch.nn.functional.pad(y[:, :-1], (1, 0), value=START)
        return torch.nn.functional.cross_entropy(self.model(x, before).flatten(0, 1), y.flatten())

    def score(self, x: Tensor, y: Tensor) -> float:
        """Share of the numbers of which every digit is right."""
        self.model.eval()
        return float((self.model.translate(x) == y).all(1).float().mean())


def sample(model: torch.nn.Module) -> str:
    """A few translations."""
    names = ["seventy-six", "four thousand and two", "seven hundred and five thousand three hundred and twelve"]
    found = model.translate(encode(names)).tolist()
    return "\n".join(f"{n} -> {''.join(str(d) for d in row if d < END)}" for n, row in zip(names, found, strict=True))


def main() -> None:
    """Train on our kernels, then translate."""
    torch.manual_seed(0)
    trainer = Trainer(ours())
    training.run(trainer, data(), EPOCHS, 5 * TURN)
    print(sample(trainer.model))


if __name__ == "__main__":
    main()
