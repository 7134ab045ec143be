"""The networks of `examples/` at tiny sizes: they learn, as torch's do; what they are made of; the demo's turns."""

from __future__ import annotations

import math
from types import SimpleNamespace

import neurokern
import pytest
import torch
from neurokern.cli import demo, main
from neurokern.examples import char_transformer, mlp, perceptron, training, translator, vision_transformer

TINY = {
    char_transformer: {"WIDTH": 32, "LAYERS": 2, "CONTEXT": 32, "BATCH": 8},
    vision_transformer: {"WIDTH": 32, "LAYERS": 1, "EPOCHS": 1, "RATE": 5e-3},
    translator: {"WIDTH": 32, "LAYERS": 1, "NUMBERS": 320, "TESTS": 20},
}
NETWORKS = (perceptron, mlp, *TINY)


@pytest.fixture
def tiny(monkeypatch):
    """Small transformers, of which an epoch takes little, too."""
    for example, sizes in TINY.items():
        for name, size in sizes.items():
            monkeypatch.setattr(example, name, size)
        whole = example.data
        monkeypatch.setattr(example, "data", lambda whole=whole: tuple(t[:320] for t in whole()))


@pytest.fixture(params=TINY, ids=lambda e: e.NAME.replace(" ", "-"))
def example(request, tiny):
    if request.param is vision_transformer:
        pytest.importorskip("sklearn")
    return request.param


def trained(example, make, steps):
    """Losses of steps on two batches in turn."""
    torch.manual_seed(0)
    trainer = example.Trainer(make())
    x, y, *_ = example.data()
    parts = torch.arange(2 * example.BATCH).repeat(steps).split(example.BATCH)
    return [trainer.epoch(x, y, part) for part in parts[:steps]], trainer


def test_the_loss_falls_on_our_kernels_as_it_does_on_torchs(example):
    ours, _ = trained(example, example.ours, 40)
    theirs, _ = trained(example, example.stock, 40)
    assert sum(ours[-4:]) < 0.95 * sum(ours[:4])
    assert ours[0] != ours[1]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=0)


def test_both_sides_have_the_same_parameters_in_the_same_order(example):
    found = []
    for make in (example.ours, example.stock):
        torch.manual_seed(3)
        found.append(make().state_dict())
    ours, theirs = found
    assert list(ours) == list(theirs)
    assert all(torch.equal(a, b) for a, b in zip(ours.values(), theirs.values(), strict=True))


def test_the_transformers_layers_run_on_our_kernels_alone(example):
    x, y, *_ = example.data()
    trainer = example.Trainer(example.ours())
    with neurokern.strict(), neurokern.trace() as launches:
        trainer.loss(x[: example.BATCH], y[: example.BATCH]).backward()
    ops = {launch.op for launch in launches}
    assert {"attention", "attention_backward", "layer_norm", "layer_norm_backward", "matmul"} <= ops
    with neurokern.trace() as launches:
        example.Trainer(example.stock()).loss(x[: example.BATCH], y[: example.BATCH])
    assert not launches


class TestText:
    """The character transformer's text and cache."""

    def test_windows_hold_the_text_and_the_targets_are_one_character_on(self):
        x, y, x_test, y_test = char_transformer.data()
        text = char_transformer.text()
        assert x.shape[1] == y.shape[1] == char_transformer.CONTEXT
        whole, after = torch.cat([x, x_test]).flatten(), torch.cat([y, y_test]).flatten()
        assert "".join(char_transformer.alphabet()[i] for i in whole[:1000]) == text[:1000]
        assert torch.equal(whole[1:], after[:-1])
        assert len(text) > 200_000

    def test_the_score_of_a_model_that_knows_nothing_is_the_alphabets_logarithm(self, tiny):
        trainer = char_transformer.Trainer(char_transformer.ours())
        torch.nn.init.zeros_(trainer.model.head.weight)
        torch.nn.init.zeros_(trainer.model.head.bias)
        *_, x, y = char_transformer.data()
        assert trainer.score(x, y) == pytest.approx(math.log2(len(char_transformer.alphabet())), rel=1e-5)

    def test_greedy_text_through_the_cache_is_that_of_whole_passes(self, tiny):
        _, trainer = trained(char_transformer, char_transformer.ours, 12)
        model = trainer.model

        def greedy(logits):
            return logits.argmax(-1, keepdim=True)

        with neurokern.trace() as launches:
            cached = char_transformer.write(model, "The ", char_transformer.CONTEXT, greedy)
        assert any("cache" in launch.op for launch in launches)
        assert cached == char_transformer.write(model, "The ", char_transformer.CONTEXT, greedy, cached=False)
        assert len(cached) == char_transformer.CONTEXT
        assert cached.startswith("The ")

    def test_logits_of_a_text_given_in_pieces_are_those_of_the_whole(self, tiny):
        torch.manual_seed(0)
        model = char_transformer.ours()
        ids = torch.randint(len(char_transformer.alphabet()), (3, 20))
        shape = (3, char_transformer.HEADS, 20, char_transformer.WIDTH // char_transformer.HEADS)
        caches = [(torch.full(shape, torch.nan), torch.full(shape, torch.nan)) for _ in model.blocks]
        with torch.no_grad():
            pieces, done = [], 0
            for piece in ids.split([9, 1, 1, 6, 3], 1):
                pieces.append(model(piece, caches, done))
                done += piece.shape[1]
            torch.testing.assert_close(torch.cat(pieces, 1), model(ids))

    def test_torchs_side_runs_on_torchs_fused_attention(self, tiny):
        trainer = char_transformer.Trainer(char_transformer.stock())
        x, y, *_ = char_transformer.data()
        with torch.profiler.profile() as profile:
            trainer.loss(x[:2], y[:2]).backward()
        ran = {event.key for event in profile.key_averages()}
        fused = "aten::_scaled_dot_product_flash_attention_for_cpu"
        assert {fused, f"{fused}_backward"} <= ran

    def test_a_sample_is_a_text_of_the_contexts_length(self, tiny):
        text = char_transformer.sample(char_transformer.ours())
        assert len(text) == char_transformer.CONTEXT
        assert set(text) <= set(char_transformer.alphabet())


class TestNumbers:
    """The translator's data."""

    @pytest.mark.parametrize("n,name", [
        (0, "zero"), (13, "thirteen"), (20, "twenty"), (42, "forty-two"), (100, "one hundred"),
        (305, "three hundred and five"), (1000, "one thousand"), (1012, "one thousand and twelve"),
        (705320, "seven hundred and five thousand three hundred and twenty"),
    ])  # fmt: skip
    def test_names(self, n, name):
        assert translator.words(n) == name

    def test_names_and_digits_belong_together_and_no_test_number_is_trained_on(self):
        x, y, x_test, y_test = translator.data()
        assert (len(x), len(x_test)) == (translator.NUMBERS, translator.TESTS)
        for letters, digits in zip(x[:50], y[:50], strict=True):
            n = int("".join(str(d) for d in digits.tolist() if d < translator.END))
            assert "".join(translator.LETTERS[i] for i in letters if i) == translator.words(n)
        trained_on = {tuple(row) for row in y.tolist()}
        assert not trained_on & {tuple(row) for row in y_test.tolist()}

    def test_padding_changes_nothing(self):
        torch.manual_seed(0)
        model = translator.ours().eval()
        x = translator.encode(["seventy-six", "nine hundred and ninety-nine thousand"])
        alone = translator.encode(["seventy-six"])
        before = torch.tensor([[translator.START, 7]])
        padded = model(x, before.expand(2, 2))[0]
        torch.testing.assert_close(padded, model(alone, before)[0])

    def test_greedy_translations_are_scored_by_all_their_digits(self):
        model = SimpleNamespace(eval=lambda: None, translate=lambda x: torch.tensor([[1, 2, 3], [1, 2, 4]]))
        scorer = SimpleNamespace(model=model)
        assert translator.Trainer.score(scorer, None, torch.tensor([[1, 2, 3], [1, 2, 3]])) == 0.5


def test_patches_are_the_squares_of_the_image():
    image = torch.arange(64.0).view(1, 64)
    squares = vision_transformer.patches(image)
    assert squares.shape == (1, 16, 4)
    assert squares[0, 0].tolist() == [0, 1, 8, 9]
    assert squares[0, 5].tolist() == [18, 19, 26, 27]


def test_the_rate_rises_and_falls():
    model = torch.nn.Linear(2, 3)
    trainer = training.AdamWTrainer(model, 1.0, 4, 20)
    rates = []
    for _ in range(25):
        rates.append(trainer.optimizer.param_groups[0]["lr"])
        trainer.step(torch.zeros(4, 2), torch.zeros(4, dtype=torch.long))
    assert rates[:2] == [0.5, 0.95]
    assert rates[10] == 0.5
    assert rates[-1] == 0.05
    assert rates[1:] == sorted(rates[1:], reverse=True)


def test_a_demo_in_turns_trains_on_every_sample_once_an_epoch():
    example = SimpleNamespace(BATCH=4, TURN=3)
    parts = demo.turns(example, 30, 2, 0)
    assert [len(p) for p in parts] == [12, 12, 6] * 2
    for epoch in (parts[:3], parts[3:]):
        assert sorted(torch.cat(epoch).tolist()) == list(range(30))
    assert [len(p) for p in demo.turns(SimpleNamespace(BATCH=4), 30, 2, 0)] == [30, 30]


def test_the_demo_shows_scores_steps_and_what_was_written(tiny, monkeypatch, capsys):
    pytest.importorskip("sklearn")
    for example in NETWORKS:
        monkeypatch.setattr(
            example, "BITS" if hasattr(example, "BITS") else "ACCURACY", 100.0 * hasattr(example, "BITS")
        )
    assert main(["demo", "--epochs", "1"]) == 0
    out = capsys.readouterr().out
    for example in NETWORKS:
        assert f"{example.NAME} ({example.DATA})" in out
    assert "bits per character" in out
    assert "by the character transformer on our kernels:\nThe " in out
    assert "seventy-six -> " in out


def test_too_many_bits_fail_the_demo(tiny, monkeypatch, capsys):
    pytest.importorskip("sklearn")
    monkeypatch.setattr(char_transformer, "BITS", 0.5)
    assert main(["demo", "char_transformer", "--epochs", "1"]) == 1
    assert "bits per character are more than 0.5" in capsys.readouterr().err
