"""The common way through an op in C: plain tensors, the default backend, nothing that traces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.autograd import Function

from .. import _C

# what autograd looks up by name at each call
_ASKED_FOR = ("_backward_cls", "setup_context", "forward", "clear_saved_tensors_on_access", "boxed_grads_call")
_Answering = _C.answering_metaclass(type(Function))


def direct(
    forward: Callable[..., Any],
    backward: Callable[..., Any] | None = None,
    function: type[Function] | None = None,
    *,
    recorded: Callable[..., Any] | None = None,
    tensors: int = 1,
    saves: int | None = None,
    takes_out: bool = True,
    keeps_output: bool = False,
    autocasts: bool = False,
    asks_needs: bool = False,
    in_place: bool = False,
) -> Callable[..., Any]:
    """``call(*tensors, *parameters)``: the op, recorded when autograd wants it.

    It returns NotImplemented when this is not the way: an argument is neither None nor a plain tensor, functorch or
    autocast is at work, a kernel refused, or a gradient is wanted and there is no ``function``. The caller makes sure
    of the default backend and of not compiling.

    Args:
        forward: kernel, called as ``([None,] *tensors, *parameters)``.
        backward: kernel, called as ``([None,] g, *saved, *parameters)``; a gradient for each tensor.
        recorded: ``forward`` where autograd records it; it may return (output, besides, *more tensors to save): unless
            it is None, ``backward`` is given ``besides`` as its last argument.
        function: its ``backward(ctx, g)`` runs when the gradient is to have a graph, or is no plain tensor. It finds
            the tensors, or the output, in ``ctx.saved_tensors`` and the parameters in ``ctx.spec``, and behind
            them what was kept besides.
        saves: how many of the tensors, from the first, the gradient needs; None: all.
        takes_out: whether the kernels take None for an output to be made.
        keeps_output: what is saved is the output instead of the tensors.
        autocasts: autocast changes what this op takes.
        asks_needs: ``recorded`` and ``backward`` are given ``ctx.needs_input_grad`` as their very last argument, and
            ``backward`` may return NotImplemented for ``function`` to do it.
        in_place: ``forward`` and ``recorded`` are given the first tensor for their output. Not the way then: a leaf
            that requires a gradient, a tensor of inference mode.
    """
    saved = tensors if saves is None else saves
    options = tensors, saved, takes_out, keeps_output, autocasts, asks_needs, in_place
    call, forward_turn, backward_turn, set_apply = _C.direct(forward, recorded or forward, backward, *options)
    if function is not None:
        name = f"Direct{function.__name__.removeprefix('_')}"
        made: Any = _Answering(name, (function,), {"forward": staticmethod(forward_turn)})
        _C.answer_for(made, {n: getattr(made, n) for n in _ASKED_FOR if hasattr(made, n)})
        made._backward_cls.apply = backward_turn  # what the engine calls on the context
        # `made.apply` less its look for functorch's wrappers, which `call` has taken
        set_apply(super(Function, made).apply)
    return call
