// Kernels bound to Python that direct.cpp calls as the C++ functions they are, without pybind11's dispatcher between.
#pragma once

#include <pybind11/pybind11.h>

#include <type_traits>
#include <utility>

namespace nk {

using Native = pybind11::object (*)(PyObject* const* arguments, Py_ssize_t count);

// csrc/direct.cpp: `native` does what the bound function does.
void set_native(pybind11::handle function, Native native);

template <class T>
T from_python(PyObject* o) {
    if constexpr (std::is_same_v<T, pybind11::handle>) {
        return o == nullptr ? Py_None : o;
    } else {
        if (o == nullptr) return T(0);
        T value;
        if constexpr (std::is_same_v<T, double>)
            value = PyFloat_AsDouble(o);
        else if constexpr (std::is_same_v<T, bool>)
            value = PyObject_IsTrue(o) != 0;
        else
            value = _PyLong_AsInt(o);
        if (value == T(-1) && PyErr_Occurred()) throw pybind11::error_already_set();
        return value;
    }
}

template <auto function>
struct NativeOf;
template <class... A, pybind11::object (*function)(A...)>
struct NativeOf<function> {
    template <size_t... i>
    static pybind11::object spread(PyObject* const* arguments, Py_ssize_t count, std::index_sequence<i...>) {
        return function(from_python<A>(static_cast<Py_ssize_t>(i) < count ? arguments[i] : nullptr)...);
    }
    static pybind11::object call(PyObject* const* arguments, Py_ssize_t count) {
        return spread(arguments, count, std::index_sequence_for<A...>{});
    }
};

// Left out at the end of a call: None, 0, false.
template <auto function>
void set_native(pybind11::module_& m, const char* name) {
    set_native(m.attr(name), &NativeOf<function>::call);
}

}  // namespace nk
