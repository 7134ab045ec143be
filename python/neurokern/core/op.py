"""An op is one entry: `op(...)` makes of it all that stands between the user's call and the kernels.

From the schema and what only the op knows come ``torch.ops.neurokern.<name>`` with its fake, the same for the backward,
the autograd Function, the call in C (csrc/call/op.cpp) and the long way for whatever is unusual: autocast, subclasses,
tracers, torch's own op where no kernel is, ``torch.compile``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.graph import increment_version
from torch.compiler import is_dynamo_compiling, is_exporting

from .. import _C
from ..backends.context import adopted
from ..backends.fall_back import to_torch, why_not_ours, why_watched
from .autocast import autocast
from .dims import elementwise
from .kept import safe_from_writes
from .on_import import on_import
from .parameters import as_parameter, symbolic_as_tensors
from .profiler import FORMULAS
from .registry import register_symbolic, run_symbolic
from .subclass import is_distributed, not_plain
from .tensors import PLAIN, materialized, recording

# what autograd looks up by name at each call of a Function
_ASKED_FOR = ("_backward_cls", "setup_context", "forward", "clear_saved_tensors_on_access", "boxed_grads_call")
_Answering = _C.answering_metaclass(type(Function))

OPS: dict[str, Op] = {}
_backwards: dict[str, Any] = {}  # registered, by their kernel entry

# What torch.compile traces finds its op by a global name: it looks into no closure.
_TRACED = """
def otherwise(*args):
    return OPS[{name!r}].otherwise(*args)

class {function}(Function):
    @staticmethod
    def forward(ctx, *args):
        return OPS[{name!r}].forward(ctx, *args)

    @staticmethod
    def backward(ctx, *g):
        return OPS[{name!r}].gradients(ctx, *g)
"""


class Argument(NamedTuple):
    """An argument of a schema: its name and its type in torch's language."""

    name: str
    type: str

    @property
    def is_tensor(self) -> bool:
        return self.type.startswith("Tensor")


class Save(NamedTuple):
    """A tensor that the gradient needs: argument or output number ``index``, if one of ``wanted_by`` wants one."""

    name: str
    output: bool
    index: int
    wanted_by: tuple[int, ...]  # empty: always


def _parsed(schema: str) -> tuple[str, list[Argument], list[str], bool]:
    """(name, arguments, names of the outputs, whether it writes to its first argument) of a schema."""
    parsed = torch._C.parse_schema(f"neurokern::{schema}")
    name = schema.partition("(")[0]
    arguments = []
    for a in parsed.arguments:
        written = a.alias_info is not None and a.alias_info.is_write
        kind = {"number": "Scalar", "List[int]": "int[]"}.get(str(a.type), str(a.type))
        if kind.startswith("Optional["):
            kind = f"{kind[len('Optional[') : -1]}?"
        arguments.append(Argument(a.name, "Tensor(a!)" if written else kind))
    writes = arguments[0].type == "Tensor(a!)"
    return name, arguments, [r.name or f"y{i}" for i, r in enumerate(parsed.returns)], writes


def op(
    schema: str,
    *,
    fake: Callable[..., Any],
    torch: Callable[..., Any],
    entry: str | None = None,
    returns: int | None = None,
    attached: str = "",
    saves: str = "",
    backward: str | None = None,
    gradients: Callable[..., Any] | None = None,
    formula: Callable[..., Any] | None = None,
    torch_recorded: Callable[..., Any] | None = None,
    constants: str = "",
    integers: str = "",
    same_dtype: bool = False,
    keeps: bool = False,
    label: str | None = None,
    title: str | None = None,
    autocast: str | None = None,
    flops: Callable[..., int] | None = None,
    backward_flops: Callable[..., int] | None = None,
    prepare: Callable[..., Any] | None = None,
    parameters: Callable[..., dict[str, str]] | None = None,
    dims: Callable[..., Any] = elementwise,
) -> Callable[..., Any]:
    """Make an op of its entry; returns the function that a face calls, with all arguments by position.

    Args:
        schema: ``"name(Tensor x, Tensor? weight, int[] shape, float eps) -> (Tensor y, Tensor mean)"``, in torch's
            language: tensors first. ``Tensor(a!) x ... -> ()`` is an op that writes to x, and returns it.
        fake: (arguments) -> outputs of the right shape, dtype and layout, uncomputed.
        torch: (arguments) -> torch's own result: where no kernel of ours serves, and the reference of tests.
        entry: the kernel entry of ``_C``; None: of the op's name.
        returns: how many outputs the user is given, the others being for the gradient; None: all.
        attached: the outputs after these whose own gradient the formula is given behind the others' (None: there is
            none): a second derivative goes through them instead of through inputs that need not be saved, then.
        saves: names of arguments and outputs that the gradient needs; ``x:weight`` where weight's does.
        backward: the kernel entry ``(g of each output given, *saved, *parameters[, kept][, wants])`` that returns a
            gradient for each tensor; None: ``<entry>_backward`` where there is a formula.
        gradients: its fake, called as it without ``kept``; None: like the tensors, which must all be saved.
        formula: the same of differentiable functions, for second derivatives and batches of gradients.
        torch_recorded: as ``torch``, of all outputs, where the user is not given all.
        constants: names of tensors and outputs that have no gradient.
        integers: names of tensors that are not floating.
        same_dtype: floating tensors of several dtypes, which torch takes here, have no kernel.
        keeps: recorded, the entry returns one thing more, which is handed to backward.
        label: the parameter that messages have for the op's name.
        title: what messages call it otherwise; None: its name.
        autocast: a rule of `core.autocast`.
        flops, backward_flops: what FlopCounterMode counts, of the arguments with shapes in the place of tensors.
        parameters: (arguments) -> how messages call parameters that have other names.
        dims: (shape of the output or None, arguments with shapes in the place of tensors) -> (names of the dims of each
            tensor, of each output[, of each gradient]): what DTensor may cut, see `core.sharding`.
        prepare: (arguments) -> arguments, on the long way, of what torch takes and the kernels don't; or a result.
    """
    home = sys._getframe(1).f_globals["__name__"]
    return Op(**{k: v for k, v in locals().items() if k != "home"}, home=home).call


class Op:
    """What `op` makes of an entry. ``call`` is the op itself."""

    def __init__(self, schema: str, home: str, **entry: Any) -> None:
        self.name, self.arguments, self.outputs, self.writes = _parsed(schema)
        self.entry = entry["entry"] or self.name
        self.title = entry["title"] or self.name
        self.fake, self.torch, self.formula = entry["fake"], entry["torch"], entry["formula"]
        self.torch_recorded, self.dims = entry["torch_recorded"], entry["dims"]
        self.gradients_fake, self.prepare, self.parameters = entry["gradients"], entry["prepare"], entry["parameters"]
        self.autocast, self.keeps, self.same_dtype = entry["autocast"], entry["keeps"], entry["same_dtype"]
        self.tensors = sum(a.is_tensor for a in self.arguments)
        if any(a.is_tensor for a in self.arguments[self.tensors :]):
            raise ValueError(f"neurokern: the schema {schema} has a tensor behind a parameter")
        names = [a.name for a in self.arguments]
        constants = entry["constants"].split()
        self.label = None if entry["label"] is None else names.index(entry["label"])
        self.floating = [i for i in range(self.tensors) if names[i] not in entry["integers"].split()]
        self.differentiable = [i for i in self.floating if names[i] not in constants]
        self.returns = entry["returns"] or max(len(self.outputs), 1)
        self.attached = len(entry["attached"].split())
        self.saves = self._saves(entry["saves"])
        self.backward = entry["backward"] or (f"{self.entry}_backward" if self.formula is not None else "")
        self.wants = self.tensors > 1
        self.run, self.run_recorded = self._registered(entry["flops"])
        self.run_backward = self._registered_backward(entry["backward_flops"]) if self.backward else None
        self.function = self._made() if self.formula is not None else None
        self.call = self._call(home, constants)
        OPS[self.name] = self
        if _tracer_is_there:
            _substitute_one(self)

    def _saves(self, text: str) -> list[Save]:
        names, saves = [a.name for a in self.arguments], []
        for word in text.split():
            name, _, wanted_by = word.partition(":")
            output = name in self.outputs
            index = (self.outputs if output else names).index(name)
            saves.append(Save(name, output, index, tuple(names.index(n) for n in wanted_by.split(",") if n)))
        return saves

    # ---- registration ----

    def _registered(self, flops: Callable[..., int] | None) -> tuple[Any, Any]:
        given = ", ".join(f"{a.type} {a.name}" for a in self.arguments)
        hidden = len(self.outputs) > self.returns

        def body(kernel: Callable[..., Any], count: int, *args: Any) -> Any:
            made = kernel(*map(materialized, args[: self.tensors]), *args[self.tensors :])
            if self.writes:
                increment_version(args[0])  # so that autograd notices when something saved it
                return None
            return made[:count] if isinstance(made, tuple) and count > 1 else made[0] if type(made) is tuple else made

        def fake(count: int, *args: Any) -> Any:
            self._refuse_as_torch(args)
            made = self.fake(*args)
            return made[:count] if isinstance(made, tuple) and count > 1 else made[0] if type(made) is tuple else made

        def returned(count: int) -> str:
            return "()" if self.writes else "Tensor" if count == 1 else f"({', '.join(['Tensor'] * count)})"

        def registered(name: str, kernel: Callable[..., Any], count: int) -> Any:
            schema = f"{name}({given}) -> {returned(count)}"
            return register_symbolic(schema, partial(body, kernel, count), partial(fake, count), flops)

        run = registered(self.name, getattr(_C, self.entry), self.returns)
        if flops is not None:
            FORMULAS[self.name] = FORMULAS[f"{self.name}_recorded"] = lambda shapes: flops(*shapes)
        if not hidden:
            return run, run
        return run, registered(f"{self.name}_recorded", _C.recorded[self.entry], len(self.outputs))

    def _refuse_as_torch(self, args: Sequence[Any]) -> None:
        """Raise where torch's own op refuses these fakes: what is traced says so, and not only the kernel, later."""
        if self.writes or any(isinstance(p, Tensor) for p in args[self.tensors :]):  # fakes have no value to read
            return
        try:
            self.torch(*args)
        except Exception as error:
            if type(error).__name__.startswith("GuardOnDataDependent"):  # a size that nobody knows yet
                return
            if type(error).__module__ != "builtins":  # made of something else than a text
                raise
            raise type(error)(f"neurokern.{self.called(args)}: {error}") from error

    def _registered_backward(self, flops: Callable[..., int] | None) -> Any:
        if self.backward in _backwards:  # of an op that differs in its forward alone
            return _backwards[self.backward]
        kernel = getattr(_C, self.backward)
        g = "gg" if any(a.name == "g" for a in self.arguments) else "g"
        gs = [f"Tensor {g}{i or ''}" for i in range(self.returns)]
        saved = []
        for s in self.saves:
            optional = s.wanted_by or (not s.output and self.arguments[s.index].type == "Tensor?")
            saved.append(f"Tensor{'?' if optional else ''} {s.name}")
        parameters = [f"{a.type} {a.name}" for a in self.arguments[self.tensors :]]
        wants = [f"bool[{self.tensors}] wants"] if self.wants else []
        count = self.returns + len(self.saves)

        def body(*args: Any) -> Any:
            tensors, rest = [materialized(t) for t in args[:count]], list(args[count:])
            if self.keeps:
                rest.insert(len(parameters), None)
            made = kernel(*tensors, *rest)
            if made is NotImplemented:  # more than one kernel's work
                with torch.no_grad():
                    made = self.by_formula(tensors[: self.returns], (), [*tensors[self.returns :], *args[count:]])
            return as_schema_has_it(made, tensors, self.wants)

        def fake(*args: Any) -> Any:
            return as_schema_has_it((self.gradients_fake or self._like_tensors)(*args), args[:count], self.wants)

        if flops is not None:
            FORMULAS[self.backward] = lambda shapes: flops(*shapes, self._wanted(shapes))

        given = ", ".join([*gs, *saved, *parameters, *wants])
        outputs = f"({', '.join(['Tensor'] * self.tensors)})" if self.wants else "Tensor"
        made = register_symbolic(f"{self.backward}({given}) -> {outputs}", body, fake, flops)
        return _backwards.setdefault(self.backward, made)

    def _wanted(self, shapes: Sequence[Any]) -> list[bool]:
        """Which gradients a call of backward was asked for: as the row says, or by what was saved for it."""
        if self.wants and isinstance(shapes[-1], list):
            return (shapes[-1] + [False] * self.tensors)[: self.tensors]
        saved = dict(zip(self.saves, shapes[self.returns :], strict=False))
        return [all(s for save, s in saved.items() if i in save.wanted_by) for i in range(self.tensors)]

    def _like_tensors(self, *args: Any) -> Any:
        saved = {s.index: t for s, t in zip(self.saves, args[self.returns :], strict=False) if not s.output}
        wants = args[-1] if self.wants else [True]
        made = tuple(
            torch.empty_like(saved[i]) if i in saved and saved[i] is not None and wants[i] else None
            for i in range(self.tensors)
        )
        return made if self.wants else made[0]

    # ---- autograd ----

    def _made(self, what: str = "") -> Any:
        """``otherwise`` of `_TRACED`, or the Function."""
        made: dict[str, Any] = {}
        function = self.name.title().replace("_", "")  # its node is called by it: LinearBackward
        exec(_TRACED.format(name=self.name, function=function), globals(), made)
        return made[what or function]

    def forward(self, ctx: Any, *args: Any) -> Any:
        """What the Function does where the call in C does not: tracing, subclasses."""
        needs = ctx.needs_input_grad
        kept = [not s.wanted_by or any(needs[i] for i in s.wanted_by) for s in self.saves]
        if is_dynamo_compiling() and not self.writes:
            # the op takes the copies, too: one that the backward alone takes may be made there, after the write
            inputs = [s.index for s, k in zip(self.saves, kept, strict=True) if k and not s.output]
            args = tuple(safe_from_writes(a) if i in inputs and a is not None else a for i, a in enumerate(args))
        out = self.write(*args) if self.writes else run_symbolic(self.run_recorded, args[self.tensors :], *args)
        out = (out,) if isinstance(out, Tensor) else tuple(out)
        saved = [(out if s.output else args)[s.index] if k else None for s, k in zip(self.saves, kept, strict=True)]
        ctx.save_for_backward(*saved)
        ctx.spec = (*args[self.tensors :], None if is_dynamo_compiling() else _C.captured_block())
        if self.writes:
            ctx.mark_dirty(args[0])
        attached = 0 if is_dynamo_compiling() else self.attached
        if attached:
            ctx.set_materialize_grads(False)
        return out[0] if self.returns + attached == 1 else out[: self.returns + attached]

    def by_formula(self, g: Sequence[Any], attached: Sequence[Any], rest: Sequence[Any]) -> Any:
        return self.formula(*g, *attached, *[None] * (self.attached - len(attached)), *rest)

    def gradients(self, ctx: Any, *g: Any) -> Any:
        """A gradient for each tensor, None for each parameter, in the context of the call that made the node."""
        if is_dynamo_compiling() or ctx.spec[-1] is None:
            return self._gradients(ctx, *g)
        with adopted(ctx.spec[-1]):
            return self._gradients(ctx, *g)

    def _gradients(self, ctx: Any, *g: Any) -> Any:
        """Of formulas where the gradients get a graph or are watched."""
        saved = ctx.saved_tensors
        given = len(ctx.needs_input_grad)
        needs = [*ctx.needs_input_grad, *[False] * self.tensors]  # the last that are None are left out
        wants = [needs[i] and i in self.differentiable for i in range(self.tensors)]
        parameters = ctx.spec[: len(self.arguments) - self.tensors]
        more = (wants,) if self.wants else ()
        g, attached = g[: self.returns], g[self.returns :]
        tensors = (*g, *saved)
        unusual = any(t is not None for t in attached) or (self.attached and any(t is None for t in g))
        if unusual or recording(*tensors) or why_watched(*tensors) is not None or self.run_backward is None:
            made = self.by_formula(g, attached, [*saved, *parameters, *more])
        else:
            made = run_symbolic(self.run_backward, parameters, *tensors, *parameters, *more)
        made = made if isinstance(made, tuple | list) else (made,)
        made = [t if w else None for t, w in zip(made, wants, strict=True)]
        return tuple((made + [None] * given)[: max(given, 1)])

    # ---- the call ----

    def _call(self, home: str, constants: Sequence[str]) -> Callable[..., Any]:
        masks = [(s.output, s.index, sum(1 << i for i in s.wanted_by)) for s in self.saves]
        call, forward, apply, set_apply = _C.make_op(
            name=self.name,
            title=self.title,
            module=home,
            forward=self.entry,
            backward=self.backward,
            arguments=[a.name for a in self.arguments],
            tensors=self.tensors,
            outputs=max(len(self.outputs), 1),
            returns=max(self.returns, 1),
            attached=self.attached,
            constants=sum(1 << i for i, name in enumerate(self.outputs) if name in constants),
            saves=masks,
            keeps=self.keeps,
            wants=self.wants,
            writes=self.writes,
            label=-1 if self.label is None else self.label,
            otherwise=self.otherwise,
            autocast=None if self.autocast is None else partial(_autocast, self.autocast),
        )
        if self.function is not None:
            made: Any = _Answering(
                f"Direct{self.function.__name__}", (self.function,), {"forward": staticmethod(forward)}
            )
            _C.answer_for(made, {n: getattr(made, n) for n in _ASKED_FOR if hasattr(made, n)})
            made._backward_cls.apply = apply  # what the engine calls on the context
            # `made.apply` less its look for functorch's wrappers, which the call has taken
            set_apply(super(Function, made).apply)
        return call

    def called(self, args: Sequence[Any]) -> str:
        """The name that messages call it by."""
        return self.title if self.label is None else str(args[self.label])

    def otherwise(self, *args: Any) -> Any:
        """The long way: what the call in C leaves to it, or what it refused, which is explained here."""
        title, tensors = self.called(args), args[: self.tensors]
        if any(
            type(t) not in PLAIN and (t is not None or "?" not in a.type)
            for t, a in zip(tensors, self.arguments, strict=False)
        ):
            named = [(a.name, t, "?" in a.type) for t, a in zip(tensors, self.arguments, strict=False)]
            other = not_plain(title, named, lambda: self.torch(*args), partial(self.call, *args))
            if other is not NotImplemented:
                return other
        names = {} if self.parameters is None else self.parameters(*args)
        given = [
            as_parameter(title, names.get(a.name, a.name), a.type, v)
            for a, v in zip(self.arguments[self.tensors :], args[self.tensors :], strict=True)
        ]
        if is_dynamo_compiling():
            given = symbolic_as_tensors([a.type for a in self.arguments[self.tensors :]], given)
        args = (*autocast(self.autocast, tensors), *given)
        floating = [args[i] for i in self.floating]
        reason = why_not_ours(title, *floating)
        if reason is None and self.same_dtype and len(dtypes := {t.dtype for t in floating if t is not None}) > 1:
            reason = f"dtypes {', '.join(sorted(map(str, dtypes)))} have no kernel"
        if reason is not None:
            return to_torch(title, reason, lambda: self.torch(*args))
        if self.writes:
            refuse_in_place(title, args[0])
        if self.prepare is not None:
            args = self.prepare(*args)
            if not isinstance(args, tuple):
                return args
        if self.function is not None and recording(*args[: self.tensors]):
            if is_dynamo_compiling():
                args = (*_each_once(args[: self.tensors]), *args[self.tensors :])
            made = self.function.apply(*args)
            if not self.attached or not isinstance(made, tuple):
                return made
            return made[0] if self.returns == 1 else made[: self.returns]
        return self.write(*args) if self.writes else run_symbolic(self.run, args[self.tensors :], *args)

    def write(self, x: Tensor, *args: Any) -> Tensor:
        """The op that writes to ``x``, where its memory holds the other sign, too; returns x."""
        # functionalized, aten has no name for what writes here; DTensor has none for what returns nothing
        parameters = args[self.tensors - 1 :]
        if is_exporting() or is_distributed(type(x)):
            return x.copy_(run_symbolic(OPS[self.name.removesuffix("_")].run, parameters, x, *args))
        if is_dynamo_compiling() or not x.is_neg():
            run_symbolic(self.run, parameters, x, *args)
            return x
        made = x.resolve_neg()
        self.run(made, *args)
        return x.copy_(made)


def _autocast(rule: str, *tensors: Any) -> tuple[Any, ...]:
    return autocast(rule, tensors)


def as_schema_has_it(made: Any, tensors: Sequence[Any], wants: bool) -> Any:
    """The gradients of a backward: a schema has neither None nor an output that is an input."""
    if not wants:
        return made
    made = [tensors[0].new_empty(0) if t is None else t for t in made]
    return tuple(t.clone() if any(t is u for u in tensors) else t for t in made)


def _each_once(tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Views of those that come again: torch.compile takes no autograd Function with one tensor in two places."""
    made: list[Tensor | None] = []
    for t in tensors:
        made.append(t.view_as(t) if t is not None and any(t is other for other in made) else t)
    return made


def refuse_in_place(title: str, x: Tensor) -> None:
    """Raise, before anything is written, where autograd can't record that ``x`` is written to."""
    if not is_dynamo_compiling() and x.is_inference() and not torch.is_inference_mode_enabled():
        raise RuntimeError(
            f"neurokern.{title}: argument input is an inference tensor, in place outside of inference mode"
        )
    if not recording(x):
        return
    base = x if is_dynamo_compiling() or not x._is_view() else x._base
    if base.is_leaf and base.requires_grad:
        view = "" if base is x else "a view of "
        raise RuntimeError(
            f"neurokern.{title}: {view}a leaf tensor of shape {list(x.shape)} that requires grad is used in place; "
            "expected a tensor that was computed, or inplace=False"
        )
    if is_dynamo_compiling() or not x._is_view():
        return
    if torch._C._autograd._get_creation_meta(x) != torch._C._autograd.CreationMeta.DEFAULT:
        raise RuntimeError(
            f"neurokern.{title}: argument input of shape {list(x.shape)} is one of several views that one function "
            "returned, or was made without a graph, and can't be used in place; expected inplace=False"
        )


_tracer_is_there = False


def _substitute(dynamo: ModuleType) -> None:
    global _tracer_is_there
    _tracer_is_there = True
    for o in OPS.values():
        _substitute_one(o)


def _substitute_one(o: Op) -> None:
    """Let torch.compile trace the long way in the place of the call in C, which it can't look into."""

    torch.compiler.substitute_in_graph(o.call, skip_signature_check=True)(o._made("otherwise"))


on_import("torch._dynamo", _substitute)
