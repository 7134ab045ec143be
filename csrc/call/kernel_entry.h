// Launchers bound to Python, and called by ops (op.cpp) as the C++ functions that they are: pybind11's dispatcher costs
// as much as a small product.
#pragma once

#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "call/call.h"

namespace nk {

struct KernelEntry {
    std::string name;
    std::vector<std::string> arguments;
    py::object (*call)(const Call&) = nullptr;
    int required = 0;  // arguments; those behind have None, 0 or false for default
    int label = -1;    // the argument that messages have for the op's name, if any
    std::string signature, doc;
    std::vector<const char*> argument_names;  // as C strings, for messages
    Names names;
    PyMethodDef method{}, recording{};

    py::object operator()(const Names& as, PyObject* const* given, Py_ssize_t count, bool recorded) const {
        if (label < 0 || label >= count || !PyUnicode_CheckExact(given[label]))
            return call(Call(as, name.c_str(), given, count, recorded));
        return call(Call({PyUnicode_AsUTF8(given[label]), as.arguments}, name.c_str(), given, count, recorded));
    }
};

// The entry of that name; throws ValueError where there is none. Kept for good.
KernelEntry& kernel_entry(const std::string& name);

// Makes the entry known and binds it twice: `m.<name>`, and `m.recorded["<name>"]`, which returns what a gradient
// needs besides.
void add_entry(py::handle m, KernelEntry entry);

// The exceptions that pybind11 translates where a function is called through it; leaves Python's error set.
void set_python_error();

template <auto launcher>
struct EntryOf;
template <class... A, py::object (*launcher)(const Call&, A...)>
struct EntryOf<launcher> {
    struct Invoke {
        py::object result;
        template <class... Read>
        explicit Invoke(const Call& call, Read&&... read) : result(launcher(call, read...)) {}
    };
    template <size_t... i>
    static py::object spread(const Call& call, std::index_sequence<i...>) {
        // braces: arguments are read, and refused, in their order
        return Invoke{call, read_argument<std::remove_cvref_t<A>>(call, static_cast<int>(i))...}.result;
    }
    static py::object call(const Call& call) { return spread(call, std::index_sequence_for<A...>{}); }
    static std::vector<const char*> types() { return {kPythonType<std::remove_cvref_t<A>>...}; }
};

// Splits "x dim kind" and writes the signature that the stub shows.
KernelEntry describe_entry(const char* name, const char* arguments, int defaults, const std::vector<const char*>& types,
                           const char* returns, const char* doc);

// Binds `launcher` as `name`; `arguments`: their names, "x dim kind", after `defaults` of which nothing need be given;
// `returns`: its type in Python.
template <auto launcher, int defaults = 0>
void def_entry(py::handle m, const char* name, const char* arguments, const char* doc, const char* returns = "Tensor") {
    KernelEntry entry = describe_entry(name, arguments, defaults, EntryOf<launcher>::types(), returns, doc);
    entry.call = &EntryOf<launcher>::call;
    add_entry(m, std::move(entry));
}

}  // namespace nk
