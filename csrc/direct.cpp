// The common way through an op, from the user's call to the kernel and back through autograd, as C functions: each
// frame of Python that it saves costs as much as a kernel does on thousands of elements.
#include <pybind11/pybind11.h>

#include <algorithm>
#include <new>
#include <stdexcept>
#include <utility>
#include <vector>

#include "check.h"
#include "native.h"
#include "register.h"

namespace nk {

namespace py = pybind11;

namespace {

constexpr const char* kName = "neurokern.direct";
constexpr Py_ssize_t kMost = 16;  // arguments of a kernel

// A function without arguments, or an unbound method of self alone; called as the C function that it is, if it is one.
struct Question {
    PyObject* object = nullptr;
    PyCFunction c = nullptr;
    PyObject* self = nullptr;  // of a function

    Question() = default;
    explicit Question(py::object o) : object(o.release().ptr()) {
        if (PyCFunction_CheckExact(object) && PyCFunction_GET_FLAGS(object) == METH_NOARGS) {
            c = PyCFunction_GET_FUNCTION(object);
            self = PyCFunction_GET_SELF(object);
        } else if (Py_IS_TYPE(object, &PyMethodDescr_Type)) {
            const PyMethodDef* method = reinterpret_cast<PyMethodDescrObject*>(object)->d_method;
            if (method->ml_flags == METH_NOARGS) c = method->ml_meth;
        }
    }
    bool yes() const { return is_true(c != nullptr ? c(self, nullptr) : PyObject_CallNoArgs(object)); }
    bool yes(PyObject* of) const { return is_true(c != nullptr ? c(of, nullptr) : PyObject_CallOneArg(object, of)); }

    static bool is_true(PyObject* answer) {
        if (answer == nullptr) throw py::error_already_set();
        Py_DECREF(answer);
        return answer == Py_True;
    }
};

// What a module says of itself by a variable that has one value, small int or bool, as a rule.
struct Variable {
    PyObject* globals = nullptr;
    PyObject* name = nullptr;
    PyObject* usual = nullptr;

    Variable() = default;
    Variable(const py::module_& m, const char* n, PyObject* value)
        : globals(py::object(m.attr("__dict__")).release().ptr()), name(PyUnicode_InternFromString(n)) {
        usual = PyDict_GetItemWithError(globals, name) == nullptr ? nullptr : value;  // a torch that has no such thing
    }
    bool changed() const { return PyDict_GetItemWithError(globals, name) != usual; }
};

// What is asked of the framework; kept for good.
struct Framework {
    Question is_grad_enabled, is_autocasting, is_neg;
    Question is_transforming, is_tracing;  // functorch, torch.jit.trace
    Variable dual_level, has_modes;        // forward-mode derivatives, dispatch modes
    PyTypeObject* tensor = nullptr;
    PyTypeObject* parameter = nullptr;
} framework;

struct Words {
    PyObject* const requires_grad = PyUnicode_InternFromString("requires_grad");
    PyObject* const to_save = PyUnicode_InternFromString("to_save");  // what save_for_backward sets
    PyObject* const saved = PyUnicode_InternFromString("saved_tensors");
    PyObject* const spec = PyUnicode_InternFromString("spec");
    PyObject* const function = PyUnicode_InternFromString("_forward_cls");
    PyObject* const backward = PyUnicode_InternFromString("backward");
    PyObject* const needs = PyUnicode_InternFromString("needs_input_grad");
};

const Words& words() {
    static const Words w;
    return w;
}

py::object checked(PyObject* fresh) {
    if (fresh == nullptr) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(fresh);
}

// Whether somebody follows each op that torch runs, and would not see ours.
bool is_watched() {
    return framework.dual_level.changed() || framework.has_modes.changed() || framework.is_transforming.yes() ||
           framework.is_tracing.yes();
}

bool is_tensor(PyObject* o) { return Py_TYPE(o) == framework.tensor || Py_TYPE(o) == framework.parameter; }

// Kernels read memory as it lies: a lazily negated view is not for them.
bool is_plain(PyObject* o) { return is_tensor(o) && !framework.is_neg.yes(o); }

std::vector<std::pair<PyObject*, Native>> natives;  // bound functions, which the module keeps, and what they bind

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

struct Kernel {
    py::object object;
    Native native;

    explicit Kernel(py::object o) : object(std::move(o)) {
        for (const auto& [function, known] : natives)
            if (function == object.ptr()) native = known;
    }
    py::object call(PyObject* const* arguments, Py_ssize_t count) const {
        if (native.call == nullptr || count < native.least || count > native.most)
            return checked(PyObject_Vectorcall(object.ptr(), arguments, count, nullptr));
        try {
            return native.call(arguments, count);
        } catch (...) {
            translate();
        }
    }
};

// An op of a few tensors in and one out, and how its kernels are called: ([None,] *tensors, *parameters).
struct Op {
    // recorded: forward where autograd records it, and may return (output, what to hand to backward besides);
    // backward: ([None,] g, *saved, *parameters[, besides][, needs_input_grad]), one tensor or one for each input, or
    // NotImplemented: the Function's own
    Kernel forward, recorded, backward;
    Py_ssize_t tensors, saves;  // the first of the tensors are kept for backward
    bool takes_out, keeps_output, autocasts, asks_needs;
    py::object apply;  // of its autograd Function; none: no gradient by this way

    py::object call(const Kernel& kernel, PyObject* const* a, Py_ssize_t na, PyObject* const* b, Py_ssize_t nb) const {
        PyObject* arguments[kMost];
        PyObject** end = arguments;
        if (takes_out) *end++ = Py_None;
        end = std::copy(a, a + na, end);
        end = std::copy(b, b + nb, end);
        return kernel.call(arguments, end - arguments);
    }
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

// forward(ctx, *tensors)
py::object forward(const Op& op, PyObject* const* arguments, Py_ssize_t) {
    PyObject *const ctx = arguments[0], *const *tensors = arguments + 1;
    const Parameters more = std::exchange(under_way, {});
    py::object y = op.call(op.recorded, tensors, op.tensors, more.begin, more.count);
    PyObject* spec[kMost + 1];
    PyObject** end = std::copy(more.begin, more.begin + more.count, spec);
    py::object besides;
    if (PyTuple_CheckExact(y.ptr())) {
        *end++ = (besides = py::reinterpret_borrow<py::object>(items(y)[1])).ptr();
        y = py::reinterpret_borrow<py::object>(items(y)[0]);
    }
    PyObject* const output[] = {y.ptr()};
    const py::object save = op.keeps_output ? tuple_of(output, 1) : tuple_of(tensors, op.saves);
    if (PyObject_SetAttr(ctx, words().to_save, save.ptr()) < 0 ||
        PyObject_SetAttr(ctx, words().spec, tuple_of(spec, end - spec).ptr()) < 0)
        throw py::error_already_set();
    return y;
}

// apply(ctx, g): the Function's own backward where the gradient is to have a graph, somebody watches, or something is
// no plain tensor.
py::object backward(const Op& op, PyObject* const* arguments, Py_ssize_t) {
    PyObject *const ctx = arguments[0], *const g = arguments[1];
    if (is_plain(g) && !framework.is_grad_enabled.yes() && !is_watched()) {
        const py::object saved = checked(PyObject_GetAttr(ctx, words().saved));
        const py::object spec = checked(PyObject_GetAttr(ctx, words().spec));
        const Py_ssize_t kept = PyTuple_GET_SIZE(saved.ptr()), more = PyTuple_GET_SIZE(spec.ptr());
        PyObject* tensors[kMost] = {g};
        std::copy(items(saved), items(saved) + kept, tensors + 1);
        if (std::all_of(tensors + 1, tensors + 1 + kept, is_tensor)) {  // hooks may unpack anything
            PyObject* parameters[kMost + 1];
            PyObject** end = std::copy(items(spec), items(spec) + more, parameters);
            py::object needs;
            if (op.asks_needs) *end++ = (needs = checked(PyObject_GetAttr(ctx, words().needs))).ptr();
            try {
                py::object made = op.call(op.backward, tensors, 1 + kept, parameters, end - parameters);
                if (made.ptr() != Py_NotImplemented) return made;
            } catch (py::error_already_set& e) {
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
    for (Py_ssize_t i = 0; i < op.tensors; ++i) {
        if (arguments[i] == Py_None) continue;
        if (!is_plain(arguments[i])) return other;
        wants = wants || checked(PyObject_GetAttr(arguments[i], words().requires_grad)).ptr() == Py_True;
    }
    if (is_watched() || (op.autocasts && framework.is_autocasting.yes())) return other;
    try {
        if (!wants || !framework.is_grad_enabled.yes())
            return op.call(op.forward, arguments, op.tensors, arguments + op.tensors, count - op.tensors);
        if (op.apply.is_none()) return other;
        const UnderWay parameters({arguments + op.tensors, count - op.tensors});
        return checked(PyObject_Vectorcall(op.apply.ptr(), arguments, op.tensors, nullptr));
    } catch (py::error_already_set& e) {
        // a kernel refused: the long way explains, or goes to torch
        for (PyObject* refusal :
             {PyExc_RuntimeError, PyExc_TypeError, PyExc_IndexError, PyExc_ValueError, PyExc_OverflowError})
            if (e.matches(refusal)) return other;
        throw;
    }
}

using Body = py::object (*)(const Op&, PyObject* const*, Py_ssize_t);

template <Body body, int extra>
PyObject* entry(PyObject* self, PyObject* const* arguments, Py_ssize_t count) noexcept {
    try {
        const auto* op = static_cast<const Op*>(PyCapsule_GetPointer(self, kName));
        if (op == nullptr) return nullptr;
        if (body == &backward ? count != 2 : !op->fits(count - extra))
            return PyErr_Format(PyExc_TypeError, "neurokern: %zd arguments do not fit this op", count);
        return body(*op, arguments, count).release().ptr();
    } catch (py::error_already_set& e) {
        e.restore();
    } catch (const std::exception& e) {
        PyErr_SetString(PyExc_RuntimeError, e.what());
    }
    return nullptr;
}

template <Body body, int extra = 0>
py::object function(const char* name, const py::object& self) {
    static PyMethodDef method = {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&entry<body, extra>)),
                                 METH_FASTCALL, nullptr};
    return checked(PyCFunction_New(&method, self.ptr()));
}

py::tuple direct(py::object forward_kernel, py::object recorded_kernel, py::object backward_kernel, Py_ssize_t tensors,
                 Py_ssize_t saves, bool takes_out, bool keeps_output, bool autocasts, bool asks_needs) {
    if (saves < 0 || saves > tensors) throw std::invalid_argument("neurokern.direct: more saved than there are");
    auto* op = new Op{Kernel(std::move(forward_kernel)),
                      Kernel(std::move(recorded_kernel)),
                      Kernel(std::move(backward_kernel)),
                      tensors,
                      saves,
                      takes_out,
                      keeps_output,
                      autocasts,
                      asks_needs,
                      py::none()};
    const py::capsule self(op, kName, [](PyObject* o) { delete static_cast<Op*>(PyCapsule_GetPointer(o, kName)); });
    const auto set_apply = py::cpp_function([op, self](py::object apply) { op->apply = std::move(apply); });
    return py::make_tuple(function<&call>("call", self), function<&forward, 1>("forward", self),
                          // as an attribute of a class, only an instancemethod passes the instance on
                          checked(PyInstanceMethod_New(function<&backward>("apply", self).ptr())), set_apply);
}

void set_framework(py::object is_grad_enabled, py::object is_transforming, py::object is_autocasting,
                   py::object is_tracing, const py::module_& forward_ad, const py::module_& dispatch_modes,
                   py::object tensor, py::object parameter) {
    framework = {Question(std::move(is_grad_enabled)),
                 Question(std::move(is_autocasting)),
                 Question(tensor.attr("is_neg")),
                 Question(std::move(is_transforming)),
                 Question(std::move(is_tracing)),
                 Variable(forward_ad, "_current_level", PyLong_FromLong(-1)),
                 Variable(dispatch_modes, "_is_in_torch_dispatch_mode", Py_False),
                 reinterpret_cast<PyTypeObject*>(tensor.release().ptr()),
                 reinterpret_cast<PyTypeObject*>(parameter.release().ptr())};
}

}  // namespace

void set_native(py::handle function, Native native) { natives.emplace_back(function.ptr(), native); }

void register_direct(py::module_& m) {
    using py::arg;
    m.def("set_framework", &set_framework, arg("is_grad_enabled"), arg("is_transforming"), arg("is_autocasting"),
          arg("is_tracing"), arg("forward_ad"), arg("dispatch_modes"), arg("tensor"), arg("parameter"),
          "torch's functions, modules and types that direct ops ask.");
    m.def(
        "direct", &direct, arg("forward"), arg("recorded"), arg("backward"), arg("tensors"), arg("saves"),
        arg("takes_out"), arg("keeps_output"), arg("autocasts"), arg("asks_needs"),
        "(call, forward, apply, set_apply) of an op from its kernels: what the user calls, a torch.autograd.Function's "
        "forward, its context's apply, and what tells `call` the Function's apply.");
}

}  // namespace nk
