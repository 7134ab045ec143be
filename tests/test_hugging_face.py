"""Models of transformers, patched: the same outputs and gradients, on our kernels."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
import subprocess
import sys
from typing import Any

import neurokern
import pytest
import torch
from neurokern import nn

pytest.importorskip("transformers")
import transformers
from transformers import activations
from transformers.pytorch_utils import Conv1D

SMALL = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}


def text(length: int = 9) -> dict[str, Any]:
    return {"input_ids": torch.arange(2 * length).view(2, length) * 7 % 90 + 3}


def image(size: int = 16) -> dict[str, Any]:
    return {"pixel_values": torch.linspace(-1, 1, 2 * 3 * size * size).view(2, 3, size, size).sin()}


def gpt2() -> Any:
    config = transformers.GPT2Config(vocab_size=99, n_positions=32, n_embd=32, n_layer=2, n_head=4)
    return transformers.GPT2LMHeadModel(config), text()


def bert() -> Any:
    return transformers.BertModel(transformers.BertConfig(**SMALL)), text()


def llama() -> Any:
    config = transformers.LlamaConfig(**SMALL, num_key_value_heads=2)
    return transformers.LlamaForCausalLM(config), text()


def vit() -> Any:
    config = transformers.ViTConfig(**{**SMALL, "image_size": 16, "patch_size": 4})
    return transformers.ViTModel(config), image()


def t5() -> Any:
    config = transformers.T5Config(
        vocab_size=99, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0
    )
    return transformers.T5ForConditionalGeneration(config), {**text(), "labels": text(5)["input_ids"]}


def whisper() -> Any:
    config = transformers.WhisperConfig(
        vocab_size=99,
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        num_mel_bins=8,
        max_source_positions=10,
        max_target_positions=12,
        pad_token_id=0,
        decoder_start_token_id=1,
        bos_token_id=1,
        eos_token_id=2,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    features = torch.linspace(-1, 1, 2 * 8 * 20).view(2, 8, 20).sin()
    given = {"input_features": features, "decoder_input_ids": text(6)["input_ids"]}
    return transformers.WhisperForConditionalGeneration(config), given


def clip() -> Any:
    texts = {**SMALL, "max_position_embeddings": 16, "eos_token_id": 2, "bos_token_id": 1, "pad_token_id": 0}
    images = {"image_size": 16, "patch_size": 4, **{k: v for k, v in SMALL.items() if k != "vocab_size"}}
    config = transformers.CLIPConfig(text_config=texts, vision_config=images, projection_dim=16)
    return transformers.CLIPModel(config), {**text(), **image()}


def mamba() -> Any:
    config = transformers.MambaConfig(vocab_size=99, hidden_size=32, state_size=4, num_hidden_layers=2)
    return transformers.MambaForCausalLM(config), text()


MODELS = {f.__name__: f for f in (gpt2, bert, llama, vit, t5, whisper, clip, mamba)}
# classes that have to be taken of each, besides Linear
TAKEN = {
    "gpt2": {"Conv1D", "NewGELUActivation", "LayerNorm"},
    "bert": {"GELUActivation", "LayerNorm", "Tanh"},
    "llama": {"LlamaRMSNorm", "SiLUActivation"},
    "vit": {"GELUActivation", "LayerNorm", "Tanh"},
    "t5": {"T5LayerNorm", "ReLU"},
    "whisper": {"GELUActivation", "LayerNorm"},
    "clip": {"LayerNorm"},
    "mamba": {"MambaRMSNorm", "SiLUActivation"},
}


def step(model: torch.nn.Module, given: dict[str, Any]) -> list[torch.Tensor]:
    """The outputs and all gradients."""
    model.zero_grad()
    made = [t for t in model(**given).to_tuple() if isinstance(t, torch.Tensor) and t.requires_grad]
    sum(t.float().square().mean() for t in made).backward()
    return [*(t.detach().double() for t in made), *(p.grad.double() for p in model.parameters() if p.grad is not None)]


def error(got: list[torch.Tensor], exact: list[torch.Tensor]) -> float:
    """Of all tensors together, each relative to its size; those that are zero but for rounding count nothing."""
    least = 1e-4 * max(float(t.norm()) for t in exact)
    return (
        sum(float((a - b).norm() / b.norm()) ** 2 for a, b in zip(got, exact, strict=True) if b.norm() > least) ** 0.5
    )


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("ignore")
def test_outputs_and_gradients(name: str) -> None:
    torch.manual_seed(5)
    model, given = MODELS[name]()
    model = model.eval().double()
    for p in model.parameters():  # norms' weights that show, and no bias of zeros
        p.data += 0.05 * torch.randn_like(p)

    def given_as(dtype: torch.dtype) -> dict[str, Any]:
        return {k: v.to(dtype) if v.is_floating_point() else v for k, v in given.items()}

    model = model.bfloat16()  # numbers that all dtypes have
    exact = step(copy.deepcopy(model).double(), given_as(torch.float64))
    for dtype in (torch.float32, torch.bfloat16):
        theirs = model.to(dtype)
        ours = neurokern.patch(copy.deepcopy(theirs))
        report = neurokern.report(ours)
        assert {r.kind for r in report.rows if r.taken} >= TAKEN[name]
        assert not [r.name for r in report.rows if r.reason == "not patched"]
        got, by_torch = step(ours, given_as(dtype)), step(theirs, given_as(dtype))
        assert error(got, exact) <= 1.5 * error(by_torch, exact) + torch.finfo(dtype).eps
        assert (
            error(by_torch, exact) < 50 * torch.finfo(dtype).eps * len(exact) ** 0.5
        )  # which refuses another function


def classes(module: Any) -> dict[str, Any]:
    return {n: c for n, c in vars(module).items() if isinstance(c, type) and issubclass(c, torch.nn.Module)}


ACTIVATIONS = (
    *("AccurateGELUActivation", "FastGELUActivation", "GELUActivation", "GELUTanh", "MishActivation"),
    *("NewGELUActivation", "ReLUSquaredActivation", "SiLUActivation"),
)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_activations(name: str, dtype: torch.dtype) -> None:
    """At most twice as far from what the class computes in float64 as the class itself, and a rounding."""
    theirs = getattr(activations, name)()
    x = torch.linspace(-6, 6, 1001).to(dtype)
    exact = theirs(x.double())
    ours = neurokern.patch(copy.deepcopy(theirs))
    with neurokern.trace() as launches:
        got = ours(x)
    assert launches or (name, dtype) == ("FastGELUActivation", torch.float64)
    eps = torch.finfo(dtype).eps
    wrong = 4 * eps if dtype == torch.float64 else float((theirs(x).double() - exact).abs().max())
    assert got.dtype == dtype
    assert bool(((got.double() - exact).abs() <= 2 * wrong + eps * exact.abs()).all())
    assert wrong < 20 * eps
    assert isinstance(ours, type(theirs))
    assert type(neurokern.unpatch(ours)) is type(theirs)


def test_activations_that_are_left() -> None:
    left = set(classes(activations)) - set(ACTIVATIONS) - {"PytorchGELUTanh"}
    reasons = {}
    for name in left:
        kind = getattr(activations, name)
        module = kind(-1, 1) if name.startswith("Clipped") else kind()
        reasons[name] = neurokern.report(neurokern.patch(module)).rows[0].reason
        assert type(module) is kind
    assert reasons["QuickGELUActivation"] == "no kernel of ours for x * sigmoid(1.702 x)"
    assert reasons["LinearActivation"] == "computes nothing"
    assert reasons["LaplaceActivation"] == "no layer of ours for transformers.activations.LaplaceActivation"


@pytest.mark.parametrize("leading", [(), (3,), (2, 3), (0,)], ids=str)
def test_conv1d(leading: tuple[int, ...], seed: int) -> None:
    torch.manual_seed(seed)
    theirs = Conv1D(6, 4)
    theirs.bias.data.normal_()
    ours = neurokern.patch(copy.deepcopy(theirs))
    results = []
    for layer in (ours, theirs):
        x = torch.linspace(-1, 1, 4 * int(torch.tensor(leading).prod())).view(*leading, 4).requires_grad_()
        if not leading:
            x = torch.linspace(-1, 1, 4).requires_grad_()
        y = layer(x)
        y.square().sum().backward()
        results.append([y, x.grad, layer.weight.grad, layer.bias.grad])
    torch.testing.assert_close(*results)
    assert results[0][2].stride() == ours.weight.stride()


NORMS = {
    "llama.modeling_llama.LlamaRMSNorm": True,
    "mistral.modeling_mistral.MistralRMSNorm": True,
    "t5.modeling_t5.T5LayerNorm": True,
    "longt5.modeling_longt5.LongT5LayerNorm": True,
    "olmo2.modeling_olmo2.Olmo2RMSNorm": True,
    "moshi.modeling_moshi.MoshiRMSNorm": True,
    "mamba2.modeling_mamba2.MambaRMSNormGated": False,  # takes a gate
    "cohere.modeling_cohere.CohereLayerNorm": False,  # subtracts the mean
    "gemma.modeling_gemma.GemmaRMSNorm": False,  # scales by 1 + weight
}


def norm(path: str, size: int) -> torch.nn.Module:
    module, _, name = path.rpartition(".")
    kind = getattr(pytest.importorskip(f"transformers.models.{module}"), name)
    return kind(size, **({"group_size": size} if "group_size" in inspect.signature(kind).parameters else {}))


@pytest.mark.parametrize("path", NORMS)
def test_rms_norms(path: str, seed: int) -> None:
    torch.manual_seed(seed)
    theirs, x = norm(path, 40), torch.randn(7, 40, dtype=torch.float64)
    ours = neurokern.patch(copy.deepcopy(theirs))
    if not NORMS[path]:
        assert type(ours) is type(theirs)
        assert neurokern.report(ours).rows[0].reason
        return
    assert neurokern.report(ours).rows[0].taken
    for of_x in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        for of_weight in (of_x, torch.float32, torch.bfloat16):
            for layer in (ours, theirs):
                layer.to(of_weight).weight.data.copy_(torch.linspace(0.5, 2, 40))
            given = x.to(of_x)
            got, expected = ours(given), theirs(given)
            assert got.dtype == expected.dtype, (of_x, of_weight)
            if of_x == of_weight:
                exact = torch.nn.functional.rms_norm(
                    given.double(), (40,), eps=getattr(ours, "variance_epsilon", None) or ours.eps
                )
                exact *= ours.weight.double()
                torch.testing.assert_close(got, exact.to(of_x), rtol=max(torch.finfo(of_x).eps, 1e-15) * 2, atol=0)
            else:
                assert torch.equal(got, expected), (of_x, of_weight)


@pytest.mark.parametrize("make", [lambda: Conv1D(6, 4), lambda: norm("llama.modeling_llama.LlamaRMSNorm", 4)])
def test_copies_of_patched_ones(make: Any, seed: int) -> None:
    torch.manual_seed(seed)
    ours, x = neurokern.patch(make()), torch.randn(3, 4)
    saved = io.BytesIO()
    torch.save(ours, saved)
    saved.seek(0)
    for other in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours)), torch.load(saved, weights_only=False)):
        assert type(other) is type(ours)
        assert torch.equal(other(x), ours(x))


def test_transformers_is_not_imported() -> None:
    code = (
        "import neurokern, sys, torch; neurokern.patch(torch.nn.Linear(2, 2)); assert 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert nn.Linear is not torch.nn.Linear
