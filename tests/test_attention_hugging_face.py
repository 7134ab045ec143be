"""Unchanged models of transformers on our attention: the numbers of eager attention, forward and gradients."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import neurokern
import pytest
import torch
from neurokern.integrations import hugging_face

pytest.importorskip("transformers")
import transformers

SMALL = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
TEXT = {"input_ids": torch.arange(18).view(2, 9) * 7 % 90 + 3}
PADDED = {
    **TEXT,
    "attention_mask": torch.ones(2, 9, dtype=torch.long).index_put_(
        (torch.tensor(1), torch.tensor([7, 8])), torch.tensor(0)
    ),
}


@pytest.fixture(autouse=True)
def hook() -> Iterator[None]:
    with hugging_face.register():
        yield


def gpt2() -> Any:
    config = transformers.GPT2Config(vocab_size=99, n_positions=32, n_embd=32, n_layer=2, n_head=4)
    return transformers.GPT2LMHeadModel(config)


def llama() -> Any:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL, num_key_value_heads=2))


def mistral() -> Any:
    config = transformers.MistralConfig(**SMALL, num_key_value_heads=2, sliding_window=4)
    return transformers.MistralForCausalLM(config)


def bert() -> Any:
    return transformers.BertModel(transformers.BertConfig(**SMALL))


def vit() -> Any:
    return transformers.ViTModel(transformers.ViTConfig(**{**SMALL, "image_size": 16, "patch_size": 4}))


def t5() -> Any:
    config = transformers.T5Config(
        vocab_size=99, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0
    )
    return transformers.T5ForConditionalGeneration(config)


def gemma2() -> Any:
    config = transformers.Gemma2Config(
        **SMALL, num_key_value_heads=2, head_dim=8, sliding_window=4, attn_logit_softcapping=2.0
    )
    return transformers.Gemma2ForCausalLM(config)


def gpt_oss() -> Any:
    config = transformers.GptOssConfig(
        **SMALL, num_key_value_heads=2, head_dim=8, sliding_window=4, num_local_experts=2, num_experts_per_tok=1
    )
    return transformers.GptOssForCausalLM(config)


IMAGE = {"pixel_values": torch.linspace(-1, 1, 2 * 3 * 16 * 16).view(2, 3, 16, 16).sin()}
LABELS = {"labels": TEXT["input_ids"][:, :5].contiguous()}
CASES = {
    "gpt2": (gpt2, TEXT),
    "gpt2-padded": (gpt2, PADDED),
    "llama-gqa": (llama, TEXT),
    "llama-gqa-padded": (llama, PADDED),
    "mistral-window": (mistral, TEXT),
    "bert": (bert, TEXT),
    "bert-padded": (bert, PADDED),
    "vit": (vit, IMAGE),
    "t5-bias-padded": (t5, {**PADDED, **LABELS}),
    "gemma2-softcap-window": (gemma2, PADDED),
    "gpt_oss-sink-window": (gpt_oss, PADDED),
}


def made(name: str) -> tuple[torch.nn.Module, dict[str, Any]]:
    torch.manual_seed(5)
    make, given = CASES[name]
    model = make().double().eval() if name != "gpt_oss-sink-window" else make().eval()  # whose experts take no doubles
    for p in model.parameters():  # scores that differ, and no bias of zeros
        p.data += 0.1 * torch.randn_like(p)
    return model, {k: v.to(model.dtype) if v.is_floating_point() else v for k, v in given.items()}


def step(model: torch.nn.Module, given: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The first output where it means something, and all gradients of its squares."""
    model.zero_grad()
    out = model(**given)
    y = out.logits if "logits" in out else out.last_hidden_state
    if "attention_mask" in given and y.shape[:2] == given["attention_mask"].shape:
        y = y[given["attention_mask"].bool()]
    y.square().mean().backward()
    return {"": y.detach(), **{n: p.grad for n, p in model.named_parameters() if p.grad is not None}}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore")
def test_agrees_with_eager(name: str) -> None:
    model, given = made(name)
    model.set_attn_implementation("eager")
    expected = step(model, given)
    model.set_attn_implementation("neurokern")
    with neurokern.trace() as launches:
        got = step(model, given)
    assert got.keys() == expected.keys()
    largest = max(t.norm() for t in expected.values())
    for key, right in expected.items():
        # eager's softmax is float32's in most models; a gradient that is zero but for rounding counts nothing
        assert (got[key] - right).norm() <= 1e-5 * max(right.norm(), 1e-4 * largest), key
    assert any(row.op.startswith("attention") for row in launches)
    assert not [row for row in launches if row.backend == "torch"]


def test_the_mask_is_not_lost() -> None:
    model, given = made("bert-padded")
    model.set_attn_implementation("neurokern")
    changed = copy.deepcopy(given)
    changed["input_ids"][1, 7:] = 50
    kept = given["attention_mask"].bool()
    whole, other = (model(**g).last_hidden_state for g in (given, changed))
    assert torch.equal(whole[kept], other[kept])


@pytest.mark.parametrize("name", ["gpt2", "llama-gqa", "mistral-window"])
@pytest.mark.filterwarnings("ignore")
def test_generates_what_eager_does(name: str) -> None:
    model, given = made(name)
    texts = []
    for kind in ("eager", "neurokern"):
        model.set_attn_implementation(kind)
        texts.append(model.generate(**given, max_new_tokens=6, do_sample=False, pad_token_id=0))
    assert torch.equal(*texts)


def test_from_config_and_dropout() -> None:
    config = transformers.BertConfig(**SMALL, attention_probs_dropout_prob=0.5, hidden_dropout_prob=0.0)
    model = transformers.AutoModel.from_config(config, attn_implementation="neurokern")
    a, b = (model.train()(**TEXT).last_hidden_state for _ in range(2))
    assert not torch.equal(a, b)
    a, b = (model.eval()(**TEXT).last_hidden_state for _ in range(2))
    assert torch.equal(a, b)


def test_is_removed() -> None:
    registries = (transformers.AttentionInterface, transformers.AttentionMaskInterface)
    before = [dict(r._global_mapping) for r in registries]
    hook = hugging_face.register("sdpa")
    assert transformers.AttentionInterface._global_mapping["sdpa"] is hugging_face.attention_forward
    hook.remove()
    hook.remove()
    assert [dict(r._global_mapping) for r in registries] == before
    with hugging_face.register("another"):
        assert "another" in transformers.AttentionMaskInterface._global_mapping
    assert [dict(r._global_mapping) for r in registries] == before
    with pytest.raises(ValueError, match="argument name is 'eager'"):
        hugging_face.register("eager")
