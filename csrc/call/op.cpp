// The common way through an op, from the user's call to the kernel and back through autograd, as C functions: each
// frame of Python that it saves costs as much as a kernel does on thousands of elements.
#include <pybind11/pybind11.h>

#include <algorithm>
#include <new>
#include <stdexcept>
#include <utility>
#include <vector>

#include "call/bind.h"
#include "call/guards.h"
#include "call/kernel_entry.h"
#include "call/torch_state.h"
#include "tensor/check.h"

namespace nk {

namespace py = pybind11;

namespace {

constexpr const char* kName = "neurokern.direct";
constexpr Py_ssize_t kMost = 16;  // arguments of a kernel

struct Words {
    PyObject* const to_save = PyUnicode_InternFromString("to_save");  // what save_for_backward sets
    PyObject* const saved = PyUnicode_InternFromString("saved_tensors");
    PyObject* const spec = PyUnicode_InternFromString("spec");
    PyObject* const function = PyUnicode_InternFromString("_forward_cls");
    PyObject* const backward = PyUnicode_InternFromString("backward");
    PyObject* const needs = PyUnicode_InternFromString("needs_input_grad");
    PyObject* const dirty = PyUnicode_InternFromString("dirty_tensors");  // what mark_dirty sets
};

const Words& words() {
    static const Words w;
    return w;
}

std::vector<std::pair<PyObject*, KernelEntry>> entries;  // bound functions, which the module keeps, and what they bind

// The exceptions that pybind11 translates where a kernel is called through it.
[[noreturn]] void translate() {
    try {
        throw;
    } catch (const py::error_already_set&) {
        throw;
    } catch (const TypeError& e) {
        PyErr_SetString(PyExc_TypeError, e.what());
    } catch (const std::out_of_range& e) {
        PyErr_SetString(PyExc_IndexError, e.what());
    } catch (const std::invalid_argument& e) {
        PyErr_SetString(PyExc_ValueError, e.what());
    } catch (const std::bad_alloc& e) {
        PyErr_SetString(PyExc_MemoryError, e.what());
    } catch (const std::exception& e) {
        PyErr_SetString(PyExc_RuntimeError, e.what());
    }
    throw py::error_already_set();
}

// An error that is under way is a kernel's, and no hook's or mode's of the user, which autograd calls around it.
thread_local bool refused = false;

struct Kernel {
    py::object object;
    KernelEntry own;

    explicit Kernel(py::object o) : object(std::move(o)) {
        for (const auto& [function, known] : entries)
            if (function == object.ptr()) own = known;
    }
    py::object call(PyObject* const* arguments, Py_ssize_t count) const {
        try {
            if (own.call == nullptr || count < own.least || count > own.most)
                return checked(PyObject_Vectorcall(object.ptr(), arguments, count, nullptr));
            return own.call(arguments, count);
        } catch (...) {
            refused = true;
            translate();
        }
    }
};

// An op of a few tensors in and one out, and how its kernels are called: ([None,] *tensors, *parameters), or one that
// writes where its first tensor is: (tensor, *tensors, *parameters).
struct Op {
    // recorded: forward where autograd records it, (..., *parameters[, needs_input_grad]), and may return (output, what
    // to hand to backward besides or None, *tensors to save behind the others);
    // backward: ([None,] g, *saved, *parameters[, besides][, needs_input_grad]), one tensor or one for each input, or
    // NotImplemented: the Function's own
    Kernel forward, recorded, backward;
    Py_ssize_t tensors, saves;  // the first of the tensors are kept for backward
    bool takes_out, keeps_output, autocasts, asks_needs, in_place;
    mutable Seen arguments, gradient;
    py::object apply;  // of its autograd Function; none: no gradient by this way

    py::object call(const Kernel& kernel, PyObject* const* a, Py_ssize_t na, PyObject* const* b, Py_ssize_t nb,
                    PyObject* out = Py_None) const {
        PyObject* arguments[kMost];
        PyObject** end = arguments;
        if (takes_out) *end++ = out;
        end = std::copy(a, a + na, end);
        end = std::copy(b, b + nb, end);
        return kernel.call(arguments, end - arguments);
    }
    PyObject* out(PyObject* const* inputs) const { return in_place ? inputs[0] : Py_None; }
    bool fits(Py_ssize_t arguments) const { return arguments >= tensors && arguments + 4 <= kMost; }
};

PyObject* const* items(const py::handle& tuple) { return reinterpret_cast<PyTupleObject*>(tuple.ptr())->ob_item; }

// The parameters of the call that is under way: autograd charges for each argument that it hands to forward.
struct Parameters {
    PyObject* const* begin = nullptr;
    Py_ssize_t count = 0;
};
thread_local Parameters under_way;

struct UnderWay {
    explicit UnderWay(Parameters p) { under_way = p; }
    ~UnderWay() { under_way = {}; }  // also where autograd fails before it comes to forward
};

py::object tuple_of(PyObject* const* begin, Py_ssize_t count) {
    py::object made = checked(PyTuple_New(count));
    for (Py_ssize_t i = 0; i < count; ++i) PyTuple_SET_ITEM(made.ptr(), i, Py_NewRef(begin[i]));
    return made;
}

// forward(ctx, *tensors), less the last ones that are None
py::object forward(const Op& op, PyObject* const* arguments, Py_ssize_t count) {
    PyObject *const ctx = arguments[0], *tensors[kMost];
    std::fill(std::copy(arguments + 1, arguments + count, tensors), tensors + op.tensors, Py_None);
    const Parameters more = std::exchange(under_way, {});
    PyObject* given[kMost];
    PyObject** given_end = std::copy(more.begin, more.begin + more.count, given);
    py::object needs;
    if (op.asks_needs) *given_end++ = (needs = checked(PyObject_GetAttr(ctx, words().needs))).ptr();
    py::object y = op.call(op.recorded, tensors, op.tensors, given, given_end - given, op.out(tensors));
    if (op.in_place && PyObject_SetAttr(ctx, words().dirty, tuple_of(tensors, 1).ptr()) < 0)
        throw py::error_already_set();
    PyObject *spec[kMost + 1], *save[kMost];
    PyObject** spec_end = std::copy(more.begin, more.begin + more.count, spec);
    PyObject** save_end = op.keeps_output ? save : std::copy(tensors, tensors + op.saves, save);
    const py::object made = y;
    if (PyTuple_CheckExact(made.ptr())) {
        PyObject* const* item = items(made);
        y = py::reinterpret_borrow<py::object>(item[0]);
        if (item[1] != Py_None) *spec_end++ = item[1];
        save_end = std::copy(item + 2, item + PyTuple_GET_SIZE(made.ptr()), save_end);
    }
    if (op.keeps_output) *save_end++ = y.ptr();
    if (PyObject_SetAttr(ctx, words().to_save, tuple_of(save, save_end - save).ptr()) < 0 ||
        PyObject_SetAttr(ctx, words().spec, tuple_of(spec, spec_end - spec).ptr()) < 0)
        throw py::error_already_set();
    return y;
}

// Whether the common way fits these tensors; wants: one of them requires a gradient.
bool is_common(Seen& seen, bool autocasts, PyObject* const* tensors, Py_ssize_t count, bool& wants) {
    if (seen.again(tensors, count, wants)) return true;
    wants = false;
    for (Py_ssize_t i = 0; i < count; ++i) {
        if (tensors[i] == Py_None) continue;
        if (!is_plain(tensors[i])) return false;
        wants = wants || requires_grad(tensors[i]);
    }
    if (is_watched()) return false;
    if (is_autocasting()) return !autocasts;
    seen.keep(tensors, count, wants);
    return true;
}

// apply(ctx, g): the Function's own backward where the gradient is to have a graph, somebody watches, or something is
// no plain tensor.
py::object backward(const Op& op, PyObject* const* arguments, Py_ssize_t) {
    PyObject *const ctx = arguments[0], *const g = arguments[1];
    bool wants = false;
    if (!is_grad_enabled() && g != Py_None && is_common(op.gradient, false, &g, 1, wants)) {
        const py::object saved = checked(PyObject_GetAttr(ctx, words().saved));
        const py::object spec = checked(PyObject_GetAttr(ctx, words().spec));
        const Py_ssize_t kept = PyTuple_GET_SIZE(saved.ptr()), more = PyTuple_GET_SIZE(spec.ptr());
        PyObject* tensors[kMost] = {g};
        std::copy(items(saved), items(saved) + kept, tensors + 1);
        const auto is_known = [](PyObject* o) { return o == Py_None || is_tensor(o); };
        if (std::all_of(tensors + 1, tensors + 1 + kept, is_known)) {  // hooks may unpack anything
            PyObject* parameters[kMost + 1];
            PyObject** end = std::copy(items(spec), items(spec) + more, parameters);
            py::object needs;
            if (op.asks_needs) *end++ = (needs = checked(PyObject_GetAttr(ctx, words().needs))).ptr();
            try {
                py::object made = op.call(op.backward, tensors, 1 + kept, parameters, end - parameters);
                if (made.ptr() != Py_NotImplemented) return made;
            } catch (py::error_already_set& e) {
                refused = false;
                if (!e.matches(PyExc_RuntimeError)) throw;  // refused: torch's batch of gradients, for one
            }
        }
    }
    const py::object function = checked(PyObject_GetAttr(ctx, words().function));
    return checked(PyObject_CallMethodObjArgs(function.ptr(), words().backward, ctx, g, nullptr));
}

// call(*tensors, *parameters): the op, recorded when autograd wants it; NotImplemented when this is not the way.
py::object call(const Op& op, PyObject* const* arguments, Py_ssize_t count) {
    const py::object other = py::reinterpret_borrow<py::object>(Py_NotImplemented);
    bool wants = false;
    if (!is_common(op.arguments, op.autocasts, arguments, op.tensors, wants)) return other;
    if (op.in_place && is_inference(arguments[0])) return other;
    try {
        if (!wants || !is_grad_enabled()) {
            py::object y = op.call(op.forward, arguments, op.tensors, arguments + op.tensors, count - op.tensors,
                                   op.out(arguments));
            if (op.in_place) increment_version(arguments[0]);  // so that autograd notices when something saved it
            return y;
        }
        if (op.apply.is_none() || (op.in_place && is_leaf(arguments[0]))) return other;
        const UnderWay parameters({arguments + op.tensors, count - op.tensors});
        Py_ssize_t given = op.tensors;  // autograd looks long at a None
        while (given > 1 && arguments[given - 1] == Py_None) --given;
        return checked(PyObject_Vectorcall(op.apply.ptr(), arguments, given, nullptr));
    } catch (py::error_already_set& e) {
        if (!std::exchange(refused, false)) throw;
        // the long way explains, or goes to torch
        for (PyObject* refusal :
             {PyExc_RuntimeError, PyExc_TypeError, PyExc_IndexError, PyExc_ValueError, PyExc_OverflowError})
            if (e.matches(refusal)) return other;
        throw;
    }
}

using Body = py::object (*)(const Op&, PyObject* const*, Py_ssize_t);

template <Body body>
PyObject* entry(PyObject* self, PyObject* const* arguments, Py_ssize_t count) noexcept {
    try {
        const auto* op = static_cast<const Op*>(PyCapsule_GetPointer(self, kName));
        if (op == nullptr) return nullptr;
        const bool fits = body == &call      ? op->fits(count)
                          : body == &forward ? count >= 2 && count <= 1 + op->tensors
                                             : count == 2;
        if (!fits) return PyErr_Format(PyExc_TypeError, "neurokern: %zd arguments do not fit this op", count);
        return body(*op, arguments, count).release().ptr();
    } catch (py::error_already_set& e) {
        e.restore();
    } catch (const std::exception& e) {
        PyErr_SetString(PyExc_RuntimeError, e.what());
    }
    return nullptr;
}

template <Body body>
py::object function(const char* name, const py::object& self) {
    static PyMethodDef method = {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&entry<body>)),
                                 METH_FASTCALL, nullptr};
    return checked(PyCFunction_New(&method, self.ptr()));
}

py::tuple direct(py::object forward_kernel, py::object recorded_kernel, py::object backward_kernel, Py_ssize_t tensors,
                 Py_ssize_t saves, bool takes_out, bool keeps_output, bool autocasts, bool asks_needs, bool in_place) {
    if (saves < 0 || saves > tensors) throw std::invalid_argument("neurokern.direct: more saved than there are");
    if (in_place && (tensors == 0 || !takes_out))
        throw std::invalid_argument("neurokern.direct: in place, but nothing says where");
    auto* op = new Op{Kernel(std::move(forward_kernel)),
                      Kernel(std::move(recorded_kernel)),
                      Kernel(std::move(backward_kernel)),
                      tensors,
                      saves,
                      takes_out,
                      keeps_output,
                      autocasts,
                      asks_needs,
                      in_place,
                      {},
                      {},
                      py::none()};
    const py::capsule self(op, kName, [](PyObject* o) { delete static_cast<Op*>(PyCapsule_GetPointer(o, kName)); });
    const auto set_apply = py::cpp_function([op, self](py::object apply) { op->apply = std::move(apply); });
    return py::make_tuple(function<&call>("call", self), function<&forward>("forward", self),
                          // as an attribute of a class, only an instancemethod passes the instance on
                          checked(PyInstanceMethod_New(function<&backward>("apply", self).ptr())), set_apply);
}

}  // namespace

void set_kernel_entry(py::handle function, KernelEntry entry) { entries.emplace_back(function.ptr(), entry); }

void register_op(py::module_& m) {
    using py::arg;
    m.def(
        "direct", &direct, arg("forward"), arg("recorded"), arg("backward"), arg("tensors"), arg("saves"),
        arg("takes_out"), arg("keeps_output"), arg("autocasts"), arg("asks_needs"), arg("in_place"),
        "(call, forward, apply, set_apply) of an op from its kernels: what the user calls, a torch.autograd.Function's "
        "forward, its context's apply, and what tells `call` the Function's apply.");
}

}  // namespace nk
