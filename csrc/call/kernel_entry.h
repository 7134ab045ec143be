// Kernels bound to Python that call/op.cpp calls as the C++ functions they are: pybind11's dispatcher costs as much as
// a small product.
#pragma once

#include <pybind11/pybind11.h>

#include <stdexcept>
#include <type_traits>
#include <utility>

#include "tensor/check.h"

namespace nk {

struct KernelEntry {
    pybind11::object (*call)(PyObject* const* arguments, Py_ssize_t count) = nullptr;
    Py_ssize_t least = 0, most = 0;  // arguments
};

// call/op.cpp: `entry` does what the bound function does.
void set_kernel_entry(pybind11::handle function, KernelEntry entry);

// Which of the arguments of an autograd Function want a gradient: its context's needs_input_grad. None of those that it
// was not given.
class Needs {
  public:
    Needs(const char* op, pybind11::handle tuple) : tuple_(tuple) {
        if (!PyTuple_Check(tuple.ptr())) fail_type(op, "argument needs is no tuple");
    }
    bool operator[](Py_ssize_t i) const {
        return i < PyTuple_GET_SIZE(tuple_.ptr()) && PyTuple_GET_ITEM(tuple_.ptr(), i) == Py_True;
    }

  private:
    pybind11::handle tuple_;
};

// nullptr: left out.
template <class T>
T from_python(PyObject* o) {
    if constexpr (std::is_same_v<T, pybind11::handle>) {
        return o == nullptr ? Py_None : o;
    } else if constexpr (std::is_same_v<T, bool>) {
        const int value = o == nullptr ? 0 : PyObject_IsTrue(o);
        if (value < 0) throw pybind11::error_already_set();
        return value != 0;
    } else if constexpr (std::is_same_v<T, double>) {
        // what else calls itself a number (a tensor that requires grad, an array) is for the longer way to judge
        if (o != nullptr && !PyFloat_Check(o) && !PyLong_Check(o)) throw TypeError("expected a number");
        if (o != nullptr && PyFloat_CheckExact(o)) return PyFloat_AS_DOUBLE(o);
        const double value = o == nullptr ? 0.0 : PyLong_CheckExact(o) ? PyLong_AsDouble(o) : PyFloat_AsDouble(o);
        if (value == -1.0 && PyErr_Occurred()) throw pybind11::error_already_set();
        return value;
    } else {
        static_assert(std::is_same_v<T, int>);
        if (o != nullptr && !PyLong_CheckExact(o)) throw TypeError("expected an int");
        const long value = o == nullptr ? 0 : PyLong_AsLong(o);
        if (value == -1 && PyErr_Occurred()) throw pybind11::error_already_set();
        if (value != static_cast<int>(value)) throw std::invalid_argument("an int argument is out of range");
        return static_cast<int>(value);
    }
}

template <auto function>
struct KernelEntryOf;
template <class... A, pybind11::object (*function)(A...)>
struct KernelEntryOf<function> {
    static constexpr Py_ssize_t most = sizeof...(A);

    template <size_t... i>
    static pybind11::object spread(PyObject* const* arguments, Py_ssize_t count, std::index_sequence<i...>) {
        return function(from_python<A>(static_cast<Py_ssize_t>(i) < count ? arguments[i] : nullptr)...);
    }
    static pybind11::object call(PyObject* const* arguments, Py_ssize_t count) {
        return spread(arguments, count, std::index_sequence_for<A...>{});
    }
};

// Binds `function`, for direct ops to call as it is, too; so many of its last arguments have None, 0 or false for
// default.
template <auto function, int defaults = 0, class... Extra>
void def_kernel(pybind11::module_& m, const char* name, const Extra&... extra) {
    using Of = KernelEntryOf<function>;
    m.def(name, function, extra...);
    set_kernel_entry(m.attr(name), {&Of::call, Of::most - defaults, Of::most});
}

}  // namespace nk
