"""Whole models with random weights, those of `transformers` and those of `examples/`: what users of a model gain."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from neurokern.nn.patch import patch
from torch import Tensor

NAME, TITLE = "models", "whole models: forward, training, generation"
DTYPES = ("f32", "bf16")
PROMPT, NEW_TOKENS = 32, 24

#: least ratio to torch of every measurement, and of some
LEAST = 1.0
LEAST_OF = {("GPT-2 small", "training step", "f32"): 1.4}


@dataclass(frozen=True)
class Model:
    """A model and what it is given.

    Attributes:
        kind: name of the class in `transformers`.
        config: name of its configuration's class, made with `options`; "" where there is none.
        batch: sequences or images of the forward pass and the training step.
        label: the shape in words.
        inputs: (batch, length) -> the arguments, drawn afresh, with labels.
        length: of the sequences.
        generates: whether it is a decoder.
    """

    name: str
    kind: str
    config: str
    batch: int
    label: str
    inputs: Callable[[Any, int, int], dict[str, Tensor]]
    length: int = 0
    generates: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    def make(self) -> torch.nn.Module:
        """The model in float32, with random weights."""
        import transformers

        transformers.logging.set_verbosity_error()  # of each model it says how the loss was chosen
        config = getattr(transformers, self.config)(**self.options)
        return getattr(transformers, self.kind)(config)

    def ours(self, stock: torch.nn.Module) -> torch.nn.Module:
        """The same model on our kernels, with the same parameters."""
        shared = {id(t): t for t in (*stock.parameters(), *stock.buffers())}
        return patch(copy.deepcopy(stock, shared))

    def draw(self, config: Any, batch: int | None = None) -> dict[str, Tensor]:
        """Random inputs with labels; of one sequence or image where `batch` is 1."""
        return self.inputs(config, batch or self.batch, self.length)

    def prompt(self, config: Any) -> dict[str, Tensor]:
        """What it is to continue, one sequence."""
        given = self.inputs(config, 1, PROMPT)
        return {k: v for k, v in given.items() if k in ("input_ids", "input_features")}


def cross_entropy(network: Any, labels: Tensor, **given: Tensor) -> Tensor:
    """Mean cross entropy of the logits."""
    logits = network(*given.values())
    return torch.nn.functional.cross_entropy(logits.flatten(0, -2), labels.flatten())


def squared_error(network: Any, images: Tensor, clean: Tensor) -> Tensor:
    """Mean square error of what is made of the images."""
    return torch.nn.functional.mse_loss(network(images), clean)


def adversarial(network: Any, numbers: Tensor, images: Tensor) -> Tensor:
    """The discriminator's loss and the generator's: both are one step's work."""
    made = network(numbers)
    return network.told_apart(images, made.detach()) + network.taken_for_true(made)


class Scored(torch.nn.Module):
    """A network with its loss, as models of `transformers` have it."""

    config = None

    def __init__(self, network: torch.nn.Module, loss: Callable[..., Tensor]) -> None:
        super().__init__()
        self.network, self.loss = network, loss

    def forward(self, **given: Tensor) -> SimpleNamespace:
        return SimpleNamespace(loss=self.loss(self.network, **given))


@dataclass(frozen=True)
class Network(Model):
    """A network of `examples/`; `kind` is its file, whose `ours` and `stock` are measured.

    Attributes:
        loss: (network, **inputs) -> a number.
    """

    loss: Callable[..., Tensor] = cross_entropy

    def _example(self) -> ModuleType:
        return importlib.import_module(f"neurokern.examples.{self.kind}")

    def make(self) -> torch.nn.Module:
        """The network by torch.nn, with its loss."""
        return Scored(self._example().stock(), self.loss)

    def ours(self, stock: torch.nn.Module) -> torch.nn.Module:
        """The network on our kernels, with the same parameters and buffers."""
        found = Scored(self._example().ours(), self.loss)
        for name, module in found.named_modules():
            module._parameters.update(stock.get_submodule(name)._parameters)
            module._buffers.update(stock.get_submodule(name)._buffers)
        return found


def _characters(config: Any, batch: int, length: int) -> dict[str, Tensor]:
    from neurokern.examples.char_transformer import alphabet

    ids = torch.randint(len(alphabet()), (batch, length + 1))
    return {"ids": ids[:, :-1], "labels": ids[:, 1:]}


def _digits(config: Any, batch: int, length: int) -> dict[str, Tensor]:
    return {"images": torch.rand(batch, 64), "labels": torch.randint(10, (batch,))}


def _pictures(config: Any, batch: int, length: int) -> dict[str, Tensor]:
    return {"images": torch.rand(batch, 1, 8, 8), "labels": torch.randint(10, (batch,))}


def _noisy(config: Any, batch: int, length: int) -> dict[str, Tensor]:
    clean = torch.rand(batch, 1, 8, 8)
    return {"images": clean + 0.4 * torch.randn(clean.shape), "clean": clean}


def _drawn(config: Any, batch: int, length: int) -> dict[str, Tensor]:
    from neurokern.examples.dcgan import NUMBERS

    return {"numbers": torch.randn(batch, NUMBERS), "images": 2 * torch.rand(batch, 1, 8, 8) - 1}


def _names(config: Any, batch: int, length: int) -> dict[str, Tensor]:
    from neurokern.examples.translator import DIGITS, LETTERS, START

    letters = torch.randint(1, len(LETTERS), (batch, length))
    ends = torch.randint(length // 2, length, (batch, 1))
    ends[0] = length
    digits = torch.randint(10, (batch, DIGITS))
    before = torch.nn.functional.pad(digits[:, :-1], (1, 0), value=START)
    return {"letters": letters.where(torch.arange(length) < ends, 0), "before": before, "labels": digits}


def _tokens(config: Any, batch: int, length: int) -> dict[str, Tensor]:
    ids = torch.randint(config.vocab_size, (batch, length))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}


def _classified(config: Any, batch: int, length: int) -> dict[str, Tensor]:
    return {**_tokens(config, batch, length), "labels": torch.randint(config.num_labels, (batch,))}


def _images(config: Any, batch: int, length: int) -> dict[str, Tensor]:
    pixels = torch.randn(batch, 3, config.image_size, config.image_size)
    return {"pixel_values": pixels, "labels": torch.randint(config.num_labels, (batch,))}


def _speech(config: Any, batch: int, length: int) -> dict[str, Tensor]:
    features = torch.randn(batch, config.num_mel_bins, 2 * config.max_source_positions)
    return {"input_features": features, "labels": torch.randint(config.vocab_size, (batch, length))}


MODELS = (
    Model("BERT-base", "BertForSequenceClassification", "BertConfig", 4, "4 x 128 tokens", _classified, 128),
    Model("GPT-2 small", "GPT2LMHeadModel", "GPT2Config", 2, "2 x 128 tokens", _tokens, 128, True),
    Model(
        "Llama, 8 layers", "LlamaForCausalLM", "LlamaConfig", 2, "2 x 128 tokens", _tokens, 128, True,
        {
            "hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 8, "num_attention_heads": 12,
            "num_key_value_heads": 4, "vocab_size": 32000, "max_position_embeddings": 2048,
        },
    ),
    Model("ViT-B/16", "ViTForImageClassification", "ViTConfig", 2, "2 images", _images),
    # the defaults of its configuration are those of Whisper-tiny
    Model(
        "Whisper-base", "WhisperForConditionalGeneration", "WhisperConfig", 1, "30 s, 64 tokens", _speech, 64, True,
        {
            "d_model": 512, "encoder_layers": 6, "decoder_layers": 6, "encoder_attention_heads": 8,
            "decoder_attention_heads": 8, "encoder_ffn_dim": 2048, "decoder_ffn_dim": 2048,
        },
    ),
    Network("convolutional network", "convolutional_network", "", 32, "32 images", _pictures),
    Network("residual network", "residual_network", "", 32, "32 images", _pictures),
    Network("denoising autoencoder", "denoising_autoencoder", "", 32, "32 images", _noisy, loss=squared_error),
    Network("DCGAN", "dcgan", "", 32, "32 images", _drawn, loss=adversarial),
    Network("character transformer", "char_transformer", "", 8, "8 x 256 characters", _characters, 256),
    Network("vision transformer", "vision_transformer", "", 32, "32 images", _digits),
    Network("translator", "translator", "", 32, "32 x 64 letters, 7 digits", _names, 64),
)  # fmt: skip


def chosen(quick: bool) -> list[Model]:
    """All models, or the two that are the soonest done."""
    return list(MODELS[:2] if quick else MODELS)
