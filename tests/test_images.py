"""cmake/images.py: each kernel's PTX by itself, which is what a GPU without machine code in the build compiles."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import struct
import subprocess
from pathlib import Path
from types import ModuleType

import neurokern
import pytest
import torch
from neurokern import _C
from neurokern.testing import fake_driver as fakes
from neurokern.testing.fake_driver import A100, RTX_5090, CudaTensor, fake_driver

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "cmake" / "images.py"
FOLDER = Path(_C.cuda_info()["kernel_dir"])
needs_kernels = pytest.mark.skipif(not (FOLDER / "build.txt").is_file(), reason="this build has no CUDA kernels")
needs_driver = pytest.mark.skipif(fakes.missing() is not None, reason=str(fakes.missing()))
in_checkout = pytest.mark.skipif(not SCRIPT.is_file(), reason="not in a checkout")


@pytest.fixture(scope="module")
def images() -> ModuleType:
    spec = importlib.util.spec_from_file_location("neurokern_images_under_test", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def kernels() -> dict[str, set[str]]:
    table = json.loads((FOLDER / "resources.json").read_text())
    return {fatbin: {row["kernel"] for row in rows} for fatbin, rows in table.items()}


def index(fatbin: str) -> dict[str, tuple[int, int]]:
    head = (FOLDER / f"{fatbin}.kernels").read_bytes().split(b"\n\n")[0].decode()
    return {name: (int(offset), int(size)) for name, offset, size in map(str.split, head.splitlines())}


MODULE = """// made by hand
.version 9.0
.target sm_80
.address_size 64
	.file	1 "a;b{.cu"
.global .align 4 .u32 table[2] = {1, 2};
.const .align 4 .b8 pair[8] = {1, 2}; // {;
.extern .shared .align 16 .b8 shared[];
.func (.param .b32 r) twice(.param .b32 x);
.func  (.param .b32 r) helper(.param .b32 x)
{
	.loc	1 2 3, function_name $L__info_string0, inlined_at 1 4 5
	ld.global.u32 %r1, [table];
	{ call.uni (r), twice, (x); }
	ret;
}
.func (.param .b32 r) twice(.param .b32 x)
{
	ret;
}
.visible .entry first(
	.param .u64 p
)
.maxntid 128
{
	call (r), helper, (x);
}
.visible .entry second()
{
	mov.u32 %r1, shared;
}
.section	.debug_str
{
$L__info_string0:
.b8 102
}
"""


@in_checkout
class TestSplit:
    def test_takes_what_each_kernel_needs(self, images: ModuleType) -> None:
        modules = images.split(MODULE)
        assert set(modules) == {"first", "second"}
        first, second = modules["first"], modules["second"]
        for text in modules.values():
            assert text.startswith(".version 9.0\n.target sm_80\n.address_size 64\n")
            assert not re.search(r"\.(loc|file|section)\b|//|pair|info_string", text)
        assert re.findall(r"(?<!ld)\.(?:entry|func|global)\b[^\n]*", first) == [
            ".global .align 4 .u32 table[2] = {1, 2};", ".func (.param .b32 r) twice(.param .b32 x);",
            ".func  (.param .b32 r) helper(.param .b32 x)", ".func (.param .b32 r) twice(.param .b32 x)",
            ".entry first(",
        ]  # fmt: skip
        assert ".maxntid 128" in first
        assert "shared" not in first
        assert re.findall(r"\b(table|helper|twice|shared)\b", second) == ["shared"] * 3

    def test_says_what_is_no_ptx(self, images: ModuleType) -> None:
        with pytest.raises(ValueError, match="no PTX"):
            images.split("hello")
        with pytest.raises(ValueError, match=r"ends in the middle of '\.visible \.entry k"):
            images.split(MODULE[: MODULE.index(".global")] + ".visible .entry k() {")
        with pytest.raises(ValueError, match="no fatbin"):
            images.ptx_of(b"\x7fELF" + bytes(60))

    def test_overlapping_matches(self, images: ModuleType) -> None:
        """Literals, a match that writes what it reads, lengths beyond 15."""
        packed = bytes([0x2F]) + b"ab" + struct.pack("<H", 2) + bytes([255, 3]) + bytes([0x30]) + b"end"
        size = 2 + 15 + 255 + 3 + 4 + 3
        assert images.lz4(packed, size) == (b"ab" * 200)[: size - 3] + b"end"

    @needs_kernels
    def test_bodies_are_those_of_the_whole(self, images: ModuleType) -> None:
        for fatbin in kernels():
            whole = images.ptx_of((FOLDER / f"{fatbin}.fatbin").read_bytes())
            plain = {p.split("(")[0].split()[-1]: p for p in images.items(whole[whole.index(".address_size 64") + 16 :])
                     if ".entry" in p}  # fmt: skip
            data = (FOLDER / f"{fatbin}.kernels").read_bytes()
            data = data[data.index(b"\n\n") + 2 :]
            for name, (offset, size) in index(fatbin).items():
                alone = images.ptx_of(data[offset : offset + size])
                assert plain[name] in alone, name
                assert re.findall(r"\.entry\s+(\w+)", alone) == [name]


@needs_kernels
def test_each_kernel_has_an_image() -> None:
    assert {f: set(index(f)) for f in kernels()} == kernels()


@needs_kernels
@needs_driver
def test_each_loads() -> None:
    with fake_driver(RTX_5090) as driver:
        count = neurokern.warm_up(device=0)
        names = driver.names()
    assert count == sum(map(len, kernels().values()))
    assert names.count("cuLibraryLoadData") == names.count("cuLibraryGetKernel") == count


@needs_kernels
@needs_driver
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_results_are_those_of_the_whole(dtype: torch.dtype, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    x, y, w = (torch.randn(*shape, generator=g).to(dtype) for shape in [(24, 40), (24, 40), (40,)])

    def results() -> list[torch.Tensor]:
        a, b, c = map(CudaTensor, (x, y, w))
        made = [
            _C.unary(a, "gelu", 0.0, 0.0), _C.unary_backward(a, b, "gelu", 0.0, 0.0), _C.softmax(a, 1, "softmax"),
            _C.softmax(a, 0, "softmax"), _C.layer_norm(a, c, c, (40,), 1e-5), _C.linear(a, b, None, None),
            _C.linear_activation(a, b, None, None, "gelu", 0.0, 0.0),
        ]  # fmt: skip
        return [t.host for m in made for t in (m if isinstance(m, tuple) else (m,)) if t is not None]

    with fake_driver(A100):
        whole = results()
    with fake_driver(RTX_5090):
        alone = results()
    assert len(whole) == len(alone) >= 7
    for p, q in zip(whole, alone, strict=True):
        assert not p.isnan().any()
        assert torch.equal(p, q)


@in_checkout
@needs_kernels
def test_an_assembler_takes_them(images: ModuleType, tmp_path: Path) -> None:
    """As the driver's own will: for a chip that the build has no machine code for."""
    nvcc = shutil.which("nvcc")
    ptxas = Path(images.fatbinary_of(nvcc)).with_name("ptxas") if nvcc else Path("none")
    if not ptxas.is_file():
        pytest.skip("no ptxas beside nvcc")
    fatbin = "elementwise_uniform"
    for name, text in images.split(images.ptx_of((FOLDER / f"{fatbin}.fatbin").read_bytes())).items():
        (tmp_path / "k.ptx").write_text(text)
        subprocess.run([ptxas, "-arch=sm_120", "-o", tmp_path / f"{name}.cubin", tmp_path / "k.ptx"], check=True)
        assert (tmp_path / f"{name}.cubin").stat().st_size > 1000
