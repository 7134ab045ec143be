#include <pybind11/pybind11.h>

#include "call/guards.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "call/bind.h"
#include "call/torch_state.h"

namespace nk {

namespace py = pybind11;

namespace {

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
} guards;  // kept for good

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
    if (!guards_[0].check || is_in_mode()) return false;
    const Given given(tensors, count);
    try {
        for (Guard& g : guards_) {
            if (!g.check || given.pattern != g.pattern || !is_true(guards.call(g.check.ptr(), given.tensors.ptr())))
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
    if (guards.make == nullptr || count > kMostGuarded) return;
    Guard& least = guards_[guards_[1].trust < guards_[0].trust];
    if (least.check) {
        for (Guard& g : guards_) --g.trust;
        if (least.trust > 0) return;
    }
    const Given given(tensors, count);
    PyObject* made = PyObject_CallObject(guards.make, given.tensors.ptr());
    if (made == nullptr) return PyErr_Clear();
    py::object check = py::reinterpret_steal<py::object>(made);
    if (Py_IS_TYPE(check.ptr(), guards.type)) least = {std::move(check), given.pattern, wants, kMostTrust};
}

void register_guards(py::handle module) {
    auto m = py::reinterpret_borrow<py::module_>(module);
    m.def(
        "set_guards", [](const py::object& guard, py::object maker) { guards = GuardCheck(std::move(maker), guard); },
        py::arg("guard"), py::arg("make_guard"),
        "What torch.compile guards its graphs by, a class and its maker, or None: one question for all that direct ops "
        "ask.");
}

}  // namespace nk
