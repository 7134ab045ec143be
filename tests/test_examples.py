"""The networks of `examples/` at tiny sizes: they learn, as torch's do; what they are made of; the demo's turns."""

from __future__ import annotations

import math
from types import SimpleNamespace

import neurokern
import pytest
import torch
from neurokern.cli import demo, main
from neurokern.examples import (
    char_transformer,
    convolutional_network,
    dcgan,
    denoising_autoencoder,
    mlp,
    perceptron,
    pictures,
    residual_network,
    training,
    translator,
    vision_transformer,
)

TRANSFORMERS = {
    char_transformer: {"WIDTH": 32, "LAYERS": 2, "CONTEXT": 32, "BATCH": 8},
    vision_transformer: {"WIDTH": 32, "LAYERS": 1, "EPOCHS": 1, "RATE": 5e-3},
    translator: {"WIDTH": 32, "LAYERS": 1, "NUMBERS": 320, "TESTS": 20},
}
IMAGES = {
    convolutional_network: {"WIDTHS": (4, 8, 8, 8, 8), "HIDDEN": 32, "EPOCHS": 1, "RATE": 5e-3},
    residual_network: {"WIDTHS": (4, 8, 8)},
    denoising_autoencoder: {"WIDTH": 4, "EPOCHS": 1, "RATE": 1e-2},
    dcgan: {"WIDTH": 4, "SAMPLES": 50},
}
TINY = TRANSFORMERS | IMAGES
OPS = {
    convolutional_network: {"conv2d", "interpolate", "matmul", "max_pool2d", "unary"},
    residual_network: {"adaptive_avg_pool2d", "conv2d", "matmul", "unary"},
    denoising_autoencoder: {"conv2d", "interpolate", "unary"},
    dcgan: {"conv2d", "conv_transpose2d", "unary"},
}
NETWORKS = (perceptron, mlp, *TINY)


@pytest.fixture
def tiny(monkeypatch):
    """Small networks, of which an epoch takes little, too."""
    for example, sizes in TINY.items():
        for name, size in sizes.items():
            monkeypatch.setattr(example, name, size)
        whole = example.data
        monkeypatch.setattr(example, "data", lambda whole=whole: tuple(t[:320] for t in whole()))


@pytest.fixture(params=TINY, ids=lambda e: e.NAME.replace(" ", "-"))
def example(request, tiny):
    if request.param not in (char_transformer, translator):
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
    if example is not dcgan:  # the two losses of adversaries need not fall
        assert sum(ours[-4:]) < 0.95 * sum(ours[:4])
    assert ours[0] != ours[1]
    compared = getattr(example, "COMPARED", 40)
    torch.testing.assert_close(ours[:compared], theirs[:compared], rtol=1e-4, atol=0)


def test_both_sides_have_the_same_parameters_in_the_same_order(example):
    found = []
    for make in (example.ours, example.stock):
        torch.manual_seed(3)
        found.append(make().state_dict())
    ours, theirs = found
    assert list(ours) == list(theirs)
    assert all(torch.equal(a, b) for a, b in zip(ours.values(), theirs.values(), strict=True))


@pytest.mark.parametrize("example", TRANSFORMERS, ids=lambda e: e.NAME.replace(" ", "-"), indirect=True)
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


@pytest.mark.parametrize("example", IMAGES, ids=lambda e: e.NAME.replace(" ", "-"), indirect=True)
def test_the_networks_of_images_run_on_our_kernels_channels_last(example):
    x, y, *_ = example.data()
    for make in (example.ours, example.stock):
        trainer = example.Trainer(make())
        images = []
        for layer in trainer.model.modules():
            if not list(layer.children()):
                layer.register_forward_hook(lambda *given, images=images: images.append(given[-1]))
        with neurokern.strict(), neurokern.trace() as launches:
            trainer.epoch(x, y, torch.arange(example.BATCH))
        if make is example.ours:
            ops = {launch.op for launch in launches}
            assert OPS[example] | {"unary_backward"} <= ops
            assert any(launch.kernel.startswith("convolution_weight") for launch in launches)
        else:
            assert not launches
        found = [image for image in images if image.dim() == 4]
        assert found
        assert all(image.is_contiguous(memory_format=torch.channels_last) for image in found)


class TestPictures:
    """Digits as images, what is made of them, and files of it."""

    def test_images_lie_side_by_side_between_white_lines(self):
        rows = pictures.grid(torch.tensor([[[[0.1, 0.2]], [[0.3, 0.4]]]]))
        assert rows.shape == (3, 7)
        torch.testing.assert_close(rows[1], torch.tensor([1.0, 0.1, 0.2, 1.0, 0.3, 0.4, 1.0]))
        assert (rows[[0, 2]] == 1).all()

    def test_a_file_has_the_images_pixels(self, tmp_path):
        image = pytest.importorskip("matplotlib.image")
        file = tmp_path / "x.png"
        pictures.save(file, torch.tensor([[[[0.0, 0.5, 3.0]]]]))
        pixels = image.imread(file)[..., 0]
        assert pixels.shape == (3 * pictures.SCALE, 5 * pictures.SCALE)
        middle = pixels[pictures.SCALE + 1, 1 :: pictures.SCALE]
        assert middle.tolist() == pytest.approx([1.0, 0.0, 0.5, 1.0, 1.0], abs=0.01)

    def test_the_autoencoders_noise_is_new_at_every_step_and_the_same_on_both_sides(self, tiny):
        pytest.importorskip("sklearn")
        seen = []
        for _ in range(2):
            trainer = denoising_autoencoder.Trainer(denoising_autoencoder.ours())
            trainer.model.register_forward_pre_hook(lambda model, given: seen.append(given[0]))
            x, y, *_ = denoising_autoencoder.data()
            trainer.epoch(x, y, torch.zeros(2 * denoising_autoencoder.BATCH, dtype=torch.long))
        assert torch.equal(seen[0], seen[2])
        assert not torch.equal(seen[0], seen[1])
        assert float((seen[0] - x[:1]).std()) == pytest.approx(denoising_autoencoder.NOISE, rel=0.05)

    def test_dropout_is_the_same_on_both_sides_and_leaves_torchs_generator_alone(self, tiny):
        pytest.importorskip("sklearn")
        x, y, *_ = convolutional_network.data()
        masks = []
        for make in (convolutional_network.ours, convolutional_network.stock):
            trainer = convolutional_network.Trainer(make())
            trainer.model.classifier[1].register_forward_hook(lambda layer, x, out: masks.append((x[0] != 0, out == 0)))
            before = torch.get_rng_state()
            trainer.step(torch.ones_like(x[:32]), y[:32])
            assert torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(0)
        dropped = torch.nn.functional.dropout(torch.ones(32, 32), convolutional_network.DROPOUT) == 0
        for given, zero in masks:
            assert given.any()
            assert torch.equal(zero[given], dropped[given])

    def test_the_judge_tells_digits_from_noise_and_from_one_digit_alone(self):
        pytest.importorskip("sklearn")
        *_, x, y = dcgan.data()
        score, sure, bits = dcgan.judged(x)
        assert score > 9
        assert sure > 0.95
        assert bits == pytest.approx(math.log2(10), abs=0.02)
        score, sure, bits = dcgan.judged(x[y == 3][:1].expand(20, 1, 8, 8))
        assert score == pytest.approx(1.0, abs=1e-4)
        assert bits == 0
        noise = torch.rand(300, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        assert dcgan.judged(2 * noise - 1)[0] < 5

    def test_the_generator_learns_by_what_the_discriminator_says_and_moves_no_weight_of_its(self, tiny):
        pytest.importorskip("sklearn")
        trainer = dcgan.Trainer(dcgan.ours())
        x, y, *_ = dcgan.data()
        halves = {trainer.discriminators: trainer.model.discriminator, trainer.optimizer: trainer.model.generator}
        for optimizer, network in halves.items():
            held = {id(p) for group in optimizer.param_groups for p in group["params"]}
            assert held == {id(p) for p in network.parameters()}
        before = {k: p.detach().clone() for k, p in trainer.model.named_parameters()}
        trainer.step(x[:32], y[:32])
        assert all(not torch.equal(p, before[k]) for k, p in trainer.model.named_parameters())

    def test_the_discriminator_learns_to_tell_what_is_made_from_the_datas_images(self, tiny):
        pytest.importorskip("sklearn")
        torch.manual_seed(0)
        trainer = dcgan.Trainer(dcgan.ours())
        x, *_ = dcgan.data()
        made = trainer.model(dcgan.numbers(32, trainer.draw)).detach()
        losses = []
        for _ in range(60):
            loss = trainer.model.told_apart(x[:32], made)
            trainer.discriminators.zero_grad()
            loss.backward()
            trainer.discriminators.step()
            losses.append(float(loss))
        assert losses[0] == pytest.approx(2 * math.log(2), rel=0.05)
        assert losses[-1] < 0.7 * losses[0]


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


def test_the_demo_shows_scores_steps_and_what_was_made(tiny, monkeypatch, capsys, tmp_path):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    for example in NETWORKS:
        (bound,) = (name for name in demo.MEASURES if hasattr(example, name))
        monkeypatch.setattr(example, bound, 0.0 if demo.measure(example).least else 100.0)
    assert [f"neurokern.examples.{name}" for name in demo.NETWORKS] == [
        e.__name__ for e in (perceptron, mlp, *IMAGES, vision_transformer, translator, char_transformer)
    ]
    assert main(["demo", "--epochs", "1", "--output", str(tmp_path / "made")]) == 0
    out = capsys.readouterr().out
    for example in NETWORKS:
        assert f"{example.NAME} ({example.DATA})" in out
    assert "bits per character" in out
    assert "by the character transformer on our kernels:\nThe " in out
    assert "seventy-six -> " in out
    for words in ("inception score", "mean square error", "digits: inception score"):
        assert words in out
    assert sorted(f.name for f in (tmp_path / "made").iterdir()) == ["dcgan.png", "denoising_autoencoder.png"]


def test_a_score_is_judged_by_the_bound_and_the_way_that_its_name_says():
    for bound, least in {"ACCURACY": True, "SCORE": True, "BITS": False, "ERROR": False}.items():
        judged = demo.measure(SimpleNamespace(**{bound: 0.5}))
        assert judged.target == ("at least 0.5" if least else "at most 0.5")
        assert (judged.miss(0.6) is None) == least
        assert (judged.miss(0.4) is None) != least
        assert judged.miss(0.5) is None
        assert judged.miss(math.nan) is not None


def test_losses_are_compared_up_to_the_batches_that_the_example_names():
    example = SimpleNamespace(COMPARED=10)
    losses = {"ours": [1.0, 1.0, 1.0], "torch": [1.0, 1.25, 9.0]}
    result = demo.Result(example, losses=losses, batches=[5, 5, 5])
    assert result.difference == 0.25
    assert demo.Result(SimpleNamespace(), losses=losses, batches=[5, 5, 5]).difference == 8.0


def test_pictures_without_matplotlib_are_refused_before_training(monkeypatch, capsys, tmp_path):
    pytest.importorskip("sklearn")
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: None)
    assert main(["demo", "dcgan", "--output", str(tmp_path)]) == 1
    assert "pictures need matplotlib: pip install neurokern[demo]" in capsys.readouterr().err


def test_too_many_bits_fail_the_demo(tiny, monkeypatch, capsys):
    pytest.importorskip("sklearn")
    monkeypatch.setattr(char_transformer, "BITS", 0.5)
    assert main(["demo", "char_transformer", "--epochs", "1"]) == 1
    assert "above 0.5" in capsys.readouterr().err
