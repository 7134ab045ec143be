"""Launches with clusters and programmatic dependence, and tensor maps, on the emulator and on a fake driver."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator
from pathlib import Path

import neurokern
import pytest
import torch
from neurokern import _C
from neurokern.backends import emulation
from neurokern.testing import fake_driver as fakes
from neurokern.testing.fake_driver import H100, fake_driver

pytestmark = pytest.mark.skipif(fakes.missing() is not None, reason=str(fakes.missing()))

# each block writes its rank in its cluster, and the cluster's size
RANKS = """.version 9.0
.target sm_90
.address_size 64
.visible .entry ranks(.param .u64 p) {
  .reg .b32 %r<4>; .reg .b64 %a<3>;
  ld.param.u64 %a0, [p];
  griddepcontrol.wait;
  mov.u32 %r0, %ctaid.x; mul.wide.u32 %a1, %r0, 8; add.s64 %a0, %a0, %a1;
  mov.u32 %r1, %cluster_ctarank; mov.u32 %r2, %cluster_nctarank;
  st.global.u32 [%a0], %r1; st.global.u32 [%a0 + 4], %r2;
  ret;
}
\0"""


@pytest.fixture(autouse=True)
def _kernels(tmp_path: Path) -> Iterator[None]:
    (tmp_path / "ranks.fatbin").write_text(RANKS)
    before = _C.cuda_info()["kernel_dir"]
    _C.set_kernel_dir(str(tmp_path))
    yield
    _C.set_kernel_dir(before)


def ranks(blocks: int, **how: object) -> list[list[int]]:
    out = torch.full((blocks, 2), -1, dtype=torch.int32)
    _C.launch_kernel("ranks", "ranks", [struct.pack("<Q", out.data_ptr())], (blocks, 1, 1), (32, 1, 1), **how)
    return out.tolist()


class TestExtendedLaunch:
    def test_clusters(self) -> None:
        with fake_driver(H100) as driver:
            assert ranks(4) == [[0, 1]] * 4
            assert driver.calls()[-2].startswith("cuLaunchKernel stream")
            assert ranks(4, cluster=(2, 1, 1), stream=0x10) == [[0, 2], [1, 2]] * 2
            assert driver.calls() == ["cuLaunchKernelEx stream 0x10 in 0 4:2,1,1"]

    def test_large_clusters_are_allowed_once(self) -> None:
        with fake_driver(H100) as driver:
            ranks(16)
            driver.calls()
            assert ranks(16, cluster=(16, 1, 1), stream=0x10)[-1] == [15, 16]
            first = driver.calls()
            assert "cuKernelSetAttribute 14 1 on 0" in first
            assert first.index("cuThreadExchangeStreamCaptureMode 2") < first.index("cuKernelSetAttribute 14 1 on 0")
            ranks(16, cluster=(16, 1, 1), stream=0x10)
            assert driver.calls() == ["cuLaunchKernelEx stream 0x10 in 0 4:16,1,1"]

    def test_shared_memory_is_allowed_once(self) -> None:
        with fake_driver(H100) as driver:
            for shared, asks in [(48 << 10, False), (100 << 10, True), (60 << 10, False), (120 << 10, True)]:
                driver.calls()
                ranks(1, shared=shared, stream=0x10)
                assert (f"cuKernelSetAttribute 8 {shared} on 0" in driver.calls()) is asks

    def test_beside_the_launch_before(self) -> None:
        with fake_driver(H100) as driver:
            assert ranks(2, overlaps_former=True, stream=0x10) == [[0, 1]] * 2
            assert driver.calls()[-1] == "cuLaunchKernelEx stream 0x10 in 0 6:1,0,0"
            ranks(2, overlaps_former=True, cluster=(2, 1, 1), stream=0x10)
            assert driver.calls() == ["cuLaunchKernelEx stream 0x10 in 0 4:2,1,1 6:1,0,0"]

    def test_emulated(self) -> None:
        with neurokern.emulate(check=False):
            assert ranks(4, cluster=(4, 1, 1)) == [[i, 4] for i in range(4)]

    def test_that_cannot_be(self) -> None:
        with (
            fake_driver(H100),
            pytest.raises(RuntimeError, match=r"ranks .*cuLaunchKernelEx says .*CLUSTER_SIZE"),
        ):
            ranks(3, cluster=(2, 1, 1))


class TestTensorMap:
    @pytest.mark.parametrize(
        ("dtype", "element", "shape", "box", "swizzle"),
        [
            (torch.bfloat16, 9, (64, 128), (16, 64), 128),
            (torch.float16, 6, (3, 8, 64), (1, 8, 16), 32),
            (torch.float32, 7, (2, 3, 4, 5, 16), (1, 1, 2, 5, 4), 0),
            (torch.float64, 8, (10, 6), (10, 2), 64),
            (torch.uint8, 0, (7, 256), (7, 128), 128),
        ],
    )
    def test_is_what_the_driver_makes_of_it(
        self, dtype: torch.dtype, element: int, shape: tuple[int, ...], box: tuple[int, ...], swizzle: int
    ) -> None:
        x = torch.zeros(shape, dtype=dtype)
        with neurokern.emulate():
            got = _C.tensor_map(x, box, swizzle)
        n = len(shape)
        sizes = (ctypes.c_uint64 * n)(*reversed(shape))
        strides = (ctypes.c_uint64 * n)(*(s * x.element_size() for s in reversed(x.stride()[:-1])))
        boxes, steps = (ctypes.c_uint32 * n)(*reversed(box)), (ctypes.c_uint32 * n)(*[1] * n)
        memory = ctypes.create_string_buffer(192)
        at = (ctypes.addressof(memory) + 63) // 64 * 64
        code = emulation.library().cuTensorMapEncodeTiled(
            ctypes.c_void_p(at), element, n, ctypes.c_void_p(x.data_ptr()), sizes, strides, boxes, steps, 0,
            {0: 0, 32: 1, 64: 2, 128: 3}[swizzle], 2, 0,
        )  # fmt: skip
        assert code == 0
        assert got == ctypes.string_at(at, 128)

    def test_nan_outside(self) -> None:
        x = torch.zeros(8, 16)
        with neurokern.emulate():
            assert _C.tensor_map(x, (8, 16)) != _C.tensor_map(x, (8, 16), nan_outside=True)

    @pytest.mark.parametrize(
        ("tensor", "box", "swizzle", "says"),
        [
            (torch.zeros(64), (64,), 0, "it has 1 dimensions, expected 2 to 5"),
            (torch.zeros(1, 1, 1, 1, 1, 4), (1,) * 5 + (4,), 0, "it has 6 dim"),
            (torch.zeros(8, 17)[:, 1:], (8, 16), 0, "its address is no multiple of 16 bytes"),
            (
                torch.zeros(8, 18)[:, :16],
                (8, 16),
                0,
                "its stride in dimension 0 is 72 bytes, expected a multiple of 16",
            ),
            (torch.zeros(16, 8).mT, (8, 16), 0, "its last stride is 8, expected 1"),
            (torch.zeros(0, 16), (1, 16), 0, "its size in dimension 0 is 0, expected 1 to"),
            (torch.zeros(8, 16), (8, 0), 0, "the box's size in dimension 1 is 0, expected 1 to 256"),
            (torch.zeros(300, 16), (257, 16), 0, "the box's size in dimension 0 is 257"),
            (torch.zeros(8, 16), (8, 3), 0, "a row of the box has 12 bytes, expected a multiple of 16"),
            (torch.zeros(8, 64), (8, 64), 128, "a row of the box has 256 bytes, expected at most the 128"),
        ],
    )
    def test_what_the_hardware_cannot_do(
        self, tensor: torch.Tensor, box: tuple[int, ...], swizzle: int, says: str
    ) -> None:
        with neurokern.emulate(), pytest.raises(RuntimeError, match="tensor_map: argument tensor can't be copied") as e:
            _C.tensor_map(tensor, box, swizzle)
        assert says in str(e.value)

    def test_wrong_arguments(self) -> None:
        x = torch.zeros(8, 16)
        with neurokern.emulate():
            with pytest.raises(ValueError, match="argument box has 1 sizes, expected 2"):
                _C.tensor_map(x, (8,))
            with pytest.raises(ValueError, match="argument swizzle is 16, expected 0, 32, 64 or 128"):
                _C.tensor_map(x, (8, 16), 16)
            with pytest.raises(RuntimeError, match="NaN beyond its edges needs a floating dtype"):
                _C.tensor_map(x.to(torch.int32), (8, 16), 0, True)
