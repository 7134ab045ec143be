"""Every layer is exported with a dynamic batch, strict and not, and the program runs at another size, in aten, too."""

from __future__ import annotations

import io
import subprocess
import sys
import warnings
from pathlib import Path

import neurokern
import pytest
import torch
from neurokern import nn
from neurokern.testing import Maker, OpSpec
from torch.export import Dim, ExportedProgram, export

# what torch can't export to ONNX either
NO_ONNX = {"AdaptiveMaxPool1d", "AdaptiveMaxPool2d", "AdaptiveMaxPool3d", "AdaptiveAvgPool3d", "interpolate-area3d"}


def names(program: ExportedProgram) -> set[str]:
    """The ops of the graph and of those within it."""
    graphs = [m.graph for m in program.graph_module.modules() if isinstance(m, torch.fx.GraphModule)]
    return {str(n.target) for graph in graphs for n in graph.nodes if n.op == "call_function"}


@pytest.mark.slow
@pytest.mark.specs_with("layer")
@pytest.mark.parametrize("strict", [False, True], ids=["traced", "strict"])
def test_a_dynamic_batch(spec: OpSpec, strict: bool, seed: int) -> None:
    layer, _, args = spec.layer(Maker.seeded(seed, spec.id, "export"))
    program = export(layer, args, dynamic_shapes=tuple({0: Dim("batch")} for _ in args), strict=strict)
    larger = tuple(torch.cat((a, a, a[:1])) for a in args)
    assert torch.equal(program.module()(*larger), layer(*larger))


@pytest.mark.slow
@pytest.mark.specs_with("layer")
def test_decomposed_it_is_aten_with_a_dynamic_batch(spec: OpSpec, seed: int) -> None:
    layer, theirs, args = spec.layer(Maker.seeded(seed, spec.id, "export"))
    theirs.load_state_dict(layer.state_dict())
    program = export(layer, args, dynamic_shapes=tuple({0: Dim("batch")} for _ in args))
    assert any("neurokern" in name for name in names(program))  # those who have us keep the kernels
    with neurokern.trace() as launches:
        decomposed = program.run_decompositions()
        larger = tuple(torch.cat((a, a, a[:1])) for a in args)
        got = decomposed.module()(*larger)
    assert not [name for name in names(decomposed) if "neurokern" in name]
    assert not launches
    torch.testing.assert_close(got, theirs(*larger))


def in_place() -> torch.nn.Module:
    """Activations of both kinds that write to what was computed."""
    return torch.nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 6), nn.SiLU(inplace=True))


@pytest.mark.parametrize("strict", [False, True], ids=["traced", "strict"])
@pytest.mark.parametrize("recorded", [False, True], ids=["", "recorded"])
def test_in_place(strict: bool, recorded: bool) -> None:
    model = in_place().requires_grad_(recorded)
    x = torch.randn(3, 4)
    program = export(model, (x,), strict=strict)
    decomposed = program.run_decompositions()
    assert not [name for name in names(decomposed) if "neurokern" in name or "auto_functionalized" in name]
    for p in (program, decomposed):
        torch.testing.assert_close(p.module()(x), model(x))


def by_onnxruntime(model: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """What the exported model makes of the arguments."""
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(model.eval(), args, dynamo=True, verbose=False)
    file = io.BytesIO()
    program.save(file)
    session = runtime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    given = {i.name: a.numpy() for i, a in zip(session.get_inputs(), args, strict=True)}
    (got,) = session.run(None, given)
    return torch.from_numpy(got)


@pytest.mark.slow
@pytest.mark.specs_with("layer")
def test_onnx(spec: OpSpec, seed: int) -> None:
    layer, theirs, args = spec.layer(Maker.seeded(seed, spec.id, "export"))
    theirs.load_state_dict(layer.state_dict())
    if {type(theirs).__name__, spec.id} & NO_ONNX:
        with pytest.raises(torch.onnx.errors.OnnxExporterError):
            by_onnxruntime(theirs, args)
        pytest.skip("torch's own layer has no form there")
    torch.testing.assert_close(by_onnxruntime(layer, args), theirs.eval()(*args).detach(), rtol=1e-4, atol=1e-5)


def test_onnx_of_a_model() -> None:
    model = torch.nn.Sequential(
        in_place(), nn.LayerNorm(6), nn.LinearActivation(6, 6, activation="gelu"), nn.Softmax(1)
    )
    x = torch.randn(3, 4)
    torch.testing.assert_close(by_onnxruntime(model, (x,)), model(x).detach(), rtol=1e-4, atol=1e-5)


def load(path: Path, first: str) -> subprocess.CompletedProcess[str]:
    """Another process that loads a program and runs it."""
    run = f"import torch{first}; print(torch.export.load({str(path)!r}).module()(torch.ones(3, 4)).sum().item())"
    return subprocess.run([sys.executable, "-c", run], capture_output=True, text=True)


@pytest.mark.slow
def test_loaded_elsewhere(tmp_path: Path) -> None:
    """Without us the message says what to import; a decomposed program needs nothing of ours."""
    model = torch.nn.Sequential(nn.Linear(4, 6), nn.GELU())
    program = export(model, (torch.ones(3, 4),))
    torch.export.save(program, tmp_path / "ours.pt2")
    torch.export.save(program.run_decompositions(), tmp_path / "aten.pt2")
    expected = pytest.approx(model(torch.ones(3, 4)).sum().item(), rel=1e-4)
    without = load(tmp_path / "ours.pt2", "")
    assert without.returncode == 1
    assert "failed to resolve torch.ops.neurokern.linear.default" in without.stderr
    assert "Please import the custom op" in without.stderr
    for path, first in ((tmp_path / "ours.pt2", ", neurokern"), (tmp_path / "aten.pt2", "")):
        assert float(load(path, first).stdout) == expected
