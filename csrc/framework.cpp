// Questions to torch, asked through its C functions where it has them: a call through Python costs several times as
// much.
#include "framework.h"

#include <algorithm>
#include <exception>

#include "register.h"

namespace nk {

namespace py = pybind11;

namespace {

bool is_true(PyObject* answer) {
    if (answer == nullptr) throw py::error_already_set();
    Py_DECREF(answer);
    return answer == Py_True;
}

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

// The method `check` of torch._C._dynamo.guards.TensorGuards.
struct GuardCheck {
    PyObject* make = nullptr;  // a guard from tensors; null: torch has none
    PyTypeObject* type = nullptr;
    PyCFunction c = nullptr;
    bool keywords = false;

    GuardCheck() = default;
    explicit GuardCheck(py::object maker, const py::object& guard) {
        if (maker.is_none() || !PyType_Check(guard.ptr())) return;
        const py::object check = guard.attr("check");
        if (!Py_IS_TYPE(check.ptr(), &PyMethodDescr_Type)) return;
        const PyMethodDef* method = reinterpret_cast<PyMethodDescrObject*>(check.ptr())->d_method;
        keywords = method->ml_flags == (METH_VARARGS | METH_KEYWORDS);
        if (!keywords && method->ml_flags != METH_VARARGS) return;
        c = method->ml_meth;
        type = reinterpret_cast<PyTypeObject*>(guard.ptr());
        make = maker.release().ptr();
    }
    PyObject* call(PyObject* guard, PyObject* arguments) const {
        if (!keywords) return c(guard, arguments);
        return reinterpret_cast<PyCFunctionWithKeywords>(reinterpret_cast<void (*)()>(c))(guard, arguments, nullptr);
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
    Question is_inference, is_zero, is_view;
    Property requires_grad, is_leaf;
    PyObject* increment_version = nullptr;
    GuardCheck guards;
    PyTypeObject* tensor = nullptr;
    PyTypeObject* parameter = nullptr;
} framework;

}  // namespace

py::object checked(PyObject* fresh) {
    if (fresh == nullptr) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(fresh);
}

bool is_grad_enabled() { return framework.is_grad_enabled.yes(); }

bool is_autocasting() { return framework.is_autocasting.yes(); }

bool is_watched() {
    return framework.dual_level.changed() || framework.has_modes.changed() || framework.is_transforming.yes() ||
           framework.is_tracing.yes();
}

bool is_tensor(PyObject* o) { return Py_TYPE(o) == framework.tensor || Py_TYPE(o) == framework.parameter; }

bool is_plain(PyObject* o) { return is_tensor(o) && !framework.is_neg.yes(o) && !framework.is_zero.yes(o); }

bool requires_grad(PyObject* tensor) { return framework.requires_grad.yes(tensor); }

bool is_leaf(PyObject* tensor) { return framework.is_leaf.yes(tensor); }

bool is_inference(PyObject* tensor) { return framework.is_inference.yes(tensor); }

bool is_view(PyObject* tensor) { return framework.is_view.yes(tensor); }

void increment_version(PyObject* tensor) {
    const py::object tensors = checked(PyTuple_Pack(1, tensor));
    checked(PyObject_CallOneArg(framework.increment_version, tensors.ptr()));
}

namespace {

constexpr int kMostTrust = 4;
constexpr Py_ssize_t kMostGuarded = 32;  // arguments

// What a guard is asked about: each tensor once, as it wants it, and how these came to it.
struct Given {
    py::object tensors;
    uint64_t pattern = 0;  // two bits an argument: None, a tensor, one of those before it

    Given(PyObject* const* arguments, Py_ssize_t count) {
        PyObject* once[kMostGuarded];
        Py_ssize_t n = 0;
        for (Py_ssize_t i = 0; i < count; ++i) {
            const bool none = arguments[i] == Py_None, again = std::find(once, once + n, arguments[i]) != once + n;
            pattern |= uint64_t{none ? 0U : again ? 2U : 1U} << 2 * i;
            if (!none && !again) once[n++] = arguments[i];
        }
        tensors = checked(PyTuple_New(n));
        for (Py_ssize_t i = 0; i < n; ++i) PyTuple_SET_ITEM(tensors.ptr(), i, Py_NewRef(once[i]));
    }
};

}  // namespace

bool Seen::again(PyObject* const* tensors, Py_ssize_t count, bool& wants) {
    if (!guards_[0].check || framework.dual_level.changed() || framework.has_modes.changed()) return false;
    const Given given(tensors, count);
    try {
        for (Guard& g : guards_) {
            if (!g.check || given.pattern != g.pattern ||
                !is_true(framework.guards.call(g.check.ptr(), given.tensors.ptr())))
                continue;
            wants = g.wants;
            g.trust = kMostTrust;
            return true;
        }
    } catch (const std::exception&) {  // as torch throws it: nested tensors have no strides to look at
    }
    return false;
}

// A guard that was right of late stays for some calls that it does not fit, being dearer to make than to ask.
void Seen::keep(PyObject* const* tensors, Py_ssize_t count, bool wants) {
    if (framework.guards.make == nullptr || count > kMostGuarded) return;
    Guard& least = guards_[guards_[1].trust < guards_[0].trust];
    if (least.check) {
        for (Guard& g : guards_) --g.trust;
        if (least.trust > 0) return;
    }
    const Given given(tensors, count);
    PyObject* made = PyObject_CallObject(framework.guards.make, given.tensors.ptr());
    if (made == nullptr) return PyErr_Clear();
    py::object check = py::reinterpret_steal<py::object>(made);
    if (Py_IS_TYPE(check.ptr(), framework.guards.type)) least = {std::move(check), given.pattern, wants, kMostTrust};
}

namespace {

void set_framework(py::object is_grad_enabled, py::object is_transforming, py::object is_autocasting,
                   py::object is_tracing, const py::module_& forward_ad, const py::module_& dispatch_modes,
                   py::object tensor, py::object parameter, py::object increment_version, const py::object& guard,
                   py::object make_guard) {
    framework = {Question(std::move(is_grad_enabled)),
                 Question(std::move(is_autocasting)),
                 Question(tensor.attr("is_neg")),
                 Question(std::move(is_transforming)),
                 Question(std::move(is_tracing)),
                 Variable(forward_ad, "_current_level", PyLong_FromLong(-1)),
                 Variable(dispatch_modes, "_is_in_torch_dispatch_mode", Py_False),
                 Question(tensor.attr("is_inference")),
                 Question(tensor.attr("_is_zerotensor")),
                 Question(tensor.attr("_is_view")),
                 Property(tensor, "requires_grad"),
                 Property(tensor, "is_leaf"),
                 increment_version.release().ptr(),
                 GuardCheck(std::move(make_guard), guard),
                 reinterpret_cast<PyTypeObject*>(tensor.release().ptr()),
                 reinterpret_cast<PyTypeObject*>(parameter.release().ptr())};
}

}  // namespace

void register_framework(py::module_& m) {
    using py::arg;
    m.def("set_framework", &set_framework, arg("is_grad_enabled"), arg("is_transforming"), arg("is_autocasting"),
          arg("is_tracing"), arg("forward_ad"), arg("dispatch_modes"), arg("tensor"), arg("parameter"),
          arg("increment_version"), arg("guard"), arg("make_guard"),
          "torch's functions, modules and types that direct ops ask; guard and its maker, or None.");
}

}  // namespace nk
