// Questions to torch, asked through its C functions where it has them: a call through Python costs several times as
// much.
#include <pybind11/pybind11.h>

#include "call/torch_state.h"

#include <utility>

#include "call/bind.h"

namespace nk {

namespace py = pybind11;

namespace {

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
};

// A property of a class, which its C getter answers, if it has one.
struct Property {
    PyObject* name = nullptr;
    getter get = nullptr;
    void* closure = nullptr;

    Property() = default;
    Property(const py::object& type, const char* n) : name(PyUnicode_InternFromString(n)) {
        const py::object found = type.attr(n);
        if (!Py_IS_TYPE(found.ptr(), &PyGetSetDescr_Type)) return;
        const PyGetSetDef* own = reinterpret_cast<PyGetSetDescrObject*>(found.ptr())->d_getset;
        get = own->get, closure = own->closure;
    }
    bool yes(PyObject* of) const { return is_true(get != nullptr ? get(of, closure) : PyObject_GetAttr(of, name)); }
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

// What is asked of torch; kept for good.
struct TorchState {
    Question is_grad_enabled, is_autocasting, is_neg;
    Question is_transforming, is_tracing;  // functorch, torch.jit.trace
    Variable dual_level, has_modes;        // forward-mode derivatives, dispatch modes
    Variable has_profiler;
    Question is_inference, is_zero, is_view;
    Property requires_grad, is_leaf;
    PyObject* increment_version = nullptr;
    PyObject* record_function = nullptr;  // the class
    PyTypeObject* tensor = nullptr;
    PyTypeObject* parameter = nullptr;
} torch_state;

}  // namespace

bool is_true(PyObject* answer) {
    if (answer == nullptr) throw py::error_already_set();
    Py_DECREF(answer);
    return answer == Py_True;
}

py::object checked(PyObject* fresh) {
    if (fresh == nullptr) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(fresh);
}

bool is_grad_enabled() { return torch_state.is_grad_enabled.yes(); }

bool is_autocasting() { return torch_state.is_autocasting.yes(); }

bool is_in_mode() { return torch_state.dual_level.changed() || torch_state.has_modes.changed(); }

bool is_watched() { return is_in_mode() || torch_state.is_transforming.yes() || torch_state.is_tracing.yes(); }

bool is_profiled() { return torch_state.has_profiler.changed(); }

Profiled::Profiled(PyObject* name, PyObject* const* arguments, Py_ssize_t count) {
    const py::object given = checked(PyTuple_New(count));
    for (Py_ssize_t i = 0; i < count; ++i) {
        // the values of a list are recorded, those of a tuple are not
        const bool tuple = PyTuple_CheckExact(arguments[i]);
        PyTuple_SET_ITEM(given.ptr(), i,
                         tuple ? checked(PySequence_List(arguments[i])).release().ptr() : Py_NewRef(arguments[i]));
    }
    PyObject* const of[] = {name, given.ptr()};
    record_ = checked(PyObject_Vectorcall(torch_state.record_function, of, 2, nullptr));
    record_.attr("__enter__")();
}

Profiled::~Profiled() {
    PyObject *type = nullptr, *value = nullptr, *traceback = nullptr;
    PyErr_Fetch(&type, &value, &traceback);  // the kernel's, which is on its way
    PyObject* left = PyObject_CallMethod(record_.ptr(), "__exit__", "OOO", Py_None, Py_None, Py_None);
    if (left == nullptr) PyErr_WriteUnraisable(record_.ptr());
    Py_XDECREF(left);
    PyErr_Restore(type, value, traceback);
}

bool is_tensor(PyObject* o) { return Py_TYPE(o) == torch_state.tensor || Py_TYPE(o) == torch_state.parameter; }

bool is_plain(PyObject* o) { return is_tensor(o) && !torch_state.is_neg.yes(o) && !torch_state.is_zero.yes(o); }

bool requires_grad(PyObject* tensor) { return torch_state.requires_grad.yes(tensor); }

bool is_leaf(PyObject* tensor) { return torch_state.is_leaf.yes(tensor); }

bool is_inference(PyObject* tensor) { return torch_state.is_inference.yes(tensor); }

bool is_view(PyObject* tensor) { return torch_state.is_view.yes(tensor); }

void increment_version(PyObject* tensor) {
    const py::object tensors = checked(PyTuple_Pack(1, tensor));
    checked(PyObject_CallOneArg(torch_state.increment_version, tensors.ptr()));
}

namespace {

void set_torch_state(py::object is_grad_enabled, py::object is_transforming, py::object is_autocasting,
                     py::object is_tracing, const py::module_& forward_ad, const py::module_& dispatch_modes,
                     const py::module_& profiler, py::object tensor, py::object parameter, py::object increment_version,
                     py::object record_function) {
    torch_state = {Question(std::move(is_grad_enabled)),
                   Question(std::move(is_autocasting)),
                   Question(tensor.attr("is_neg")),
                   Question(std::move(is_transforming)),
                   Question(std::move(is_tracing)),
                   Variable(forward_ad, "_current_level", PyLong_FromLong(-1)),
                   Variable(dispatch_modes, "_is_in_torch_dispatch_mode", Py_False),
                   Variable(profiler, "_is_profiler_enabled", Py_False),
                   Question(tensor.attr("is_inference")),
                   Question(tensor.attr("_is_zerotensor")),
                   Question(tensor.attr("_is_view")),
                   Property(tensor, "requires_grad"),
                   Property(tensor, "is_leaf"),
                   increment_version.release().ptr(),
                   record_function.release().ptr(),
                   reinterpret_cast<PyTypeObject*>(tensor.release().ptr()),
                   reinterpret_cast<PyTypeObject*>(parameter.release().ptr())};
}

}  // namespace

void register_torch_state(py::handle module) {
    auto m = py::reinterpret_borrow<py::module_>(module);
    using py::arg;
    m.def("set_torch_state", &set_torch_state, arg("is_grad_enabled"), arg("is_transforming"), arg("is_autocasting"),
          arg("is_tracing"), arg("forward_ad"), arg("dispatch_modes"), arg("profiler"), arg("tensor"), arg("parameter"),
          arg("increment_version"), arg("record_function"),
          "torch's functions, modules and types that direct ops ask.");
}

}  // namespace nk
