"""The extension: every function reads its tensors through DLPack, checks, plans and launches.

`act` is an id of `ACTIVATIONS`, `p0` and `p1` its parameters. Outputs come first; for one that may be None a new tensor
is made and returned. Errors: RuntimeError (dtype, device, shape, overlap), IndexError (dim), ValueError (ids, names),
TypeError (no tensor).
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any

from torch import Tensor

ACTIVATIONS: dict[str, int]

# the common way through an op
def set_torch_state(
    is_grad_enabled: Callable[[], bool],
    is_transforming: Callable[[], bool],
    is_autocasting: Callable[[], bool],
    is_tracing: Callable[[], bool],
    forward_ad: ModuleType,
    dispatch_modes: ModuleType,
    tensor: type[Tensor],
    parameter: type[Tensor],
    increment_version: Callable[[tuple[Tensor, ...]], None],
) -> None: ...
def set_guards(guard: type | None, make_guard: Callable[..., Any] | None) -> None: ...
def answering_metaclass(base: type) -> Any: ...
def answer_for(type: type, attributes: dict[str, Any]) -> None: ...
def direct(
    forward: Callable[..., Tensor],
    recorded: Callable[..., Any],
    backward: Callable[..., Any] | None,
    tensors: int,
    saves: int,
    takes_out: bool,
    keeps_output: bool,
    autocasts: bool,
    asks_needs: bool,
    in_place: bool,
) -> tuple[Callable[..., Any], Callable[..., Tensor], Callable[..., Any], Callable[[Any], None]]: ...

# activation
def unary(out: Tensor | None, x: Tensor, act: int, p0: float = 0.0, p1: float = 0.0) -> Tensor: ...
def unary_recorded(out: None, x: Tensor, act: int, p0: float = 0.0, p1: float = 0.0) -> Tensor | tuple[Tensor, Any]: ...
def unary_backward(
    out: Tensor | None, g: Tensor, x: Tensor, act: int, p0: float = 0.0, p1: float = 0.0, kept: Any = None
) -> Tensor: ...
def unary_backward2(
    out: Tensor | None, gg: Tensor, g: Tensor, x: Tensor, act: int, p0: float = 0.0, p1: float = 0.0
) -> Tensor: ...
def gated(out: Tensor, a: Tensor, b: Tensor, act: int, p0: float = 0.0, p1: float = 0.0) -> None: ...
def gated_backward(
    ga: Tensor, gb: Tensor, g: Tensor, a: Tensor, b: Tensor, act: int, p0: float = 0.0, p1: float = 0.0
) -> None: ...
def glu(x: Tensor, dim: int, act: int, first: bool) -> Tensor: ...
def glu_backward(g: Tensor, x: Tensor, dim: int, act: int, first: bool) -> Tensor: ...
def prelu(out: Tensor | None, x: Tensor, w: Tensor) -> Tensor: ...
def rrelu(out: Tensor | None, x: Tensor, noise: Tensor) -> Tensor: ...
def prelu_backward(gx: Tensor, gw: Tensor | None, g: Tensor, x: Tensor, w: Tensor) -> None: ...
def prelu_gradients(out: None, g: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]: ...
def softmax(out: Tensor | None, x: Tensor, dim: int, kind: int) -> Tensor: ...
def softmax_backward(gx: Tensor | None, g: Tensor, y: Tensor, dim: int, kind: int) -> Tensor: ...
def math(name: str, out: Tensor, x: Tensor) -> None: ...

# matmul
def product(a: Tensor, b: Tensor, residual: Tensor | None, ndim: int, alpha: float, beta: float) -> Tensor: ...
def product_recorded(
    a: Tensor, b: Tensor, residual: Tensor | None, ndim: int, alpha: float, beta: float, needs: tuple[bool, ...]
) -> tuple[Tensor, None, Tensor | None, Tensor | None]: ...
def product_backward(
    g: Tensor, a: Tensor | None, b: Tensor | None, ndim: int, alpha: float, beta: float, needs: tuple[bool, ...]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]: ...
def matmul(
    out: Tensor | None,
    a: Tensor,
    b: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    preact: Tensor | None,
    act: int,
    p0: float,
    p1: float,
    alpha: float,
    beta: float,
) -> Tensor: ...
def linear(
    out: Tensor | None,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    preact: Tensor | None,
    act: int,
    p0: float,
    p1: float,
) -> Tensor: ...
def layer(
    input: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, act: int, p0: float, p1: float
) -> Tensor: ...
def layer_recorded(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    act: int,
    p0: float,
    p1: float,
    needs: tuple[bool, ...],
) -> tuple[Tensor, None, Tensor | None, Tensor | None, Tensor | None, Tensor | None]: ...
def layer_backward(
    g: Tensor,
    input: Tensor | None,
    weight: Tensor | None,
    preact: Tensor | None,
    bias: Tensor | None,
    act: int,
    p0: float,
    p1: float,
    needs: tuple[bool, ...],
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]: ...
def linear_preact(
    input: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, act: int, p0: float, p1: float
) -> tuple[Tensor, Tensor]: ...
def linear_backward(
    g: Tensor,
    x: Tensor | None,
    weight: Tensor | None,
    preact: Tensor | None,
    act: int,
    p0: float,
    p1: float,
    wants_x: bool,
    wants_w: bool,
    wants_b: bool,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]: ...
def activation_bias_backward(
    gz: Tensor | None, gb: Tensor | None, g: Tensor, z: Tensor | None, act: int, p0: float, p1: float
) -> None: ...
def matmul_plan(m: int, n: int, k: int, dtype: str, batches: int = 1, **device: Any) -> Any: ...
def matmul_kernels() -> dict[str, Any]: ...
def matmul_only(part: str) -> None: ...

# what is true of the module as a whole
def cpu_level() -> str: ...
def cpu_detected() -> str: ...
def cpu_model() -> str: ...
def cpu_threads() -> int: ...
def set_cpu_level(name: str) -> None: ...
def cuda_info() -> dict[str, Any]: ...
def set_kernel_dir(path: str) -> None: ...
def set_driver_table(address: int) -> None: ...
def set_allocator(
    empty_strided: Callable[..., Tensor] | None, empty_like: Callable[[Tensor], Tensor], dtypes: dict[str, Any]
) -> None: ...
def set_driver_library(path: str) -> None: ...
def set_tf32_hook(allowed: Callable[[], bool]) -> None: ...
def trace_start(on: bool) -> None: ...
def trace_take() -> list[tuple[str, str, str, str, str]]: ...
def poison_new_tensors(on: bool) -> None: ...
