// Functions of the module that direct ops call as they are: pybind11's dispatcher costs as much as a small product.
#pragma once

#include <pybind11/pybind11.h>

#include <type_traits>
#include <utility>

namespace nk {

using Native = pybind11::object (*)(PyObject* const* arguments);

// Direct ops made from `function` call `native`, which takes the same `arguments` arguments.
void set_native(const pybind11::object& function, Native native, Py_ssize_t arguments);

template <class T>
T from_python(PyObject* o) {
    if constexpr (std::is_same_v<T, pybind11::handle>) {
        return o;
    } else if constexpr (std::is_same_v<T, bool>) {
        return o == Py_True;
    } else {
        T value;
        if constexpr (std::is_integral_v<T>)
            value = static_cast<T>(PyLong_AsLong(o));
        else
            value = PyFloat_AsDouble(o);
        if (value == T(-1) && PyErr_Occurred()) throw pybind11::error_already_set();
        return value;
    }
}

template <auto function, class... Args>
void set_native(const pybind11::object& bound, pybind11::object (*)(Args...)) {
    const Native native = [](PyObject* const* arguments) {
        return [&]<size_t... i>(std::index_sequence<i...>) {
            return function(from_python<Args>(arguments[i])...);
        }(std::index_sequence_for<Args...>{});
    };
    set_native(bound, native, sizeof...(Args));
}

// Binds `function`, for direct ops to call as it is too.
template <auto function, class... Extra>
void def_native(pybind11::module_& m, const char* name, const Extra&... extra) {
    m.def(name, function, extra...);
    set_native<function>(m.attr(name), function);
}

}  // namespace nk
