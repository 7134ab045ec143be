#include "call/kernel_entry.h"

#include <deque>
#include <new>
#include <sstream>
#include <stdexcept>

#include "driver/launch.h"

namespace nk {

namespace {

std::deque<KernelEntry>& entries() {
    static auto* all = new std::deque<KernelEntry>;  // addresses stay, and outlive the interpreter
    return *all;
}

template <bool recorded>
PyObject* call_entry(PyObject* self, PyObject* const* arguments, Py_ssize_t count) noexcept {
    try {
        const auto* entry = static_cast<const KernelEntry*>(PyCapsule_GetPointer(self, nullptr));
        if (entry == nullptr) return nullptr;
        const auto most = static_cast<Py_ssize_t>(entry->arguments.size());
        if (count < entry->required || count > most)
            return PyErr_Format(PyExc_TypeError, "neurokern.%s: %zd arguments, expected %d to %zd: %s",
                                entry->name.c_str(), count, entry->required, most, entry->signature.c_str());
        return (*entry)(entry->names, arguments, count, recorded).release().ptr();
    } catch (...) {
        set_python_error();
        return nullptr;
    }
}

PyCFunction as_c_function(PyObject* (*f)(PyObject*, PyObject* const*, Py_ssize_t) noexcept) {
    return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(f));
}

}  // namespace

void set_python_error() {
    try {
        throw;
    } catch (py::error_already_set& e) {
        e.restore();
    } catch (const TypeError& e) {
        PyErr_SetString(PyExc_TypeError, e.what());
    } catch (const std::out_of_range& e) {
        PyErr_SetString(PyExc_IndexError, e.what());
    } catch (const std::invalid_argument& e) {
        PyErr_SetString(PyExc_ValueError, e.what());
    } catch (const std::overflow_error& e) {
        PyErr_SetString(PyExc_OverflowError, e.what());
    } catch (const std::bad_alloc& e) {
        PyErr_SetString(PyExc_MemoryError, e.what());
    } catch (const std::exception& e) {
        PyErr_SetString(PyExc_RuntimeError, e.what());
    }
}

KernelEntry& kernel_entry(const std::string& name) {
    for (KernelEntry& e : entries())
        if (e.name == name) return e;
    throw std::invalid_argument("neurokern: there is no kernel entry '" + name + "'");
}

KernelEntry describe_entry(const char* name, const char* arguments, int defaults, const std::vector<const char*>& types,
                           const char* returns, const char* doc) {
    KernelEntry e;
    e.name = name;
    std::istringstream words(arguments);
    for (std::string word; words >> word;) e.arguments.push_back(word);
    if (e.arguments.size() != types.size())
        throw std::logic_error("neurokern." + e.name + ": " + arguments + " does not name its " +
                               std::to_string(types.size()) + " arguments");
    e.required = static_cast<int>(types.size()) - defaults;
    e.signature = e.name + "(";
    for (size_t i = 0; i < types.size(); ++i)
        e.signature +=
            (i ? ", " : "") + e.arguments[i] + ": " + types[i] + (static_cast<int>(i) < e.required ? "" : " = ...");
    e.signature += std::string(") -> ") + returns;
    e.doc = e.signature + "\n\n" + doc;
    return e;
}

void add_entry(py::handle m, KernelEntry entry) {
    KernelEntry& e = entries().emplace_back(std::move(entry));
    for (const std::string& a : e.arguments) e.argument_names.push_back(a.c_str());
    e.names = {e.name.c_str(), e.argument_names.data()};
    e.method = {e.name.c_str(), as_c_function(&call_entry<false>), METH_FASTCALL, e.doc.c_str()};
    e.recording = {e.name.c_str(), as_c_function(&call_entry<true>), METH_FASTCALL, e.doc.c_str()};
    const py::capsule self(&e, static_cast<const char*>(nullptr));
    const auto bind = [&](PyMethodDef& method) {
        PyObject* made = PyCFunction_NewEx(&method, self.ptr(), m.attr("__name__").ptr());
        if (made == nullptr) throw py::error_already_set();
        return py::reinterpret_steal<py::object>(made);
    };
    m.attr(e.name.c_str()) = bind(e.method);
    if (!py::hasattr(m, "recorded")) m.attr("recorded") = py::dict();
    m.attr("recorded")[e.name.c_str()] = bind(e.recording);
}

// ---- reading arguments ----

Ints::Ints(const Call& call, int i) {
    PyObject* o = call.argument(i);
    PyObject* sequence = PySequence_Check(o) ? PySequence_Fast(o, "a sequence") : nullptr;
    if (sequence == nullptr) {
        PyErr_Clear();
        fail_type(call.op, "argument ", call.name(i), " is a ", Py_TYPE(o)->tp_name, ", expected a sequence of ints");
    }
    const py::object kept = py::reinterpret_steal<py::object>(sequence);
    const Py_ssize_t n = PySequence_Fast_GET_SIZE(sequence);
    if (n > kMaxDims) fail_value(call.op, "argument ", call.name(i), " has ", n, " elements, expected at most 64");
    count = static_cast<int>(n);
    for (int k = 0; k < count; ++k) {
        const py::object index =
            py::reinterpret_steal<py::object>(PyNumber_Index(PySequence_Fast_GET_ITEM(sequence, k)));
        values[k] = index ? PyLong_AsLongLong(index.ptr()) : -1;
        if (PyErr_Occurred()) {
            PyErr_Clear();
            fail_type(call.op, "argument ", call.name(i), " has at ", k, " a ",
                      Py_TYPE(PySequence_Fast_GET_ITEM(sequence, k))->tp_name, ", expected an int");
        }
    }
}

Wants::Wants(const Call& call, int i) : sequence_(call.argument(i)), list_(PyList_Check(sequence_)) {
    if (!list_ && !PyTuple_Check(sequence_))
        fail_type(call.op, "argument ", call.name(i), " is a ", Py_TYPE(sequence_)->tp_name, ", expected a tuple");
}

double read_double(const Call& call, int i) {
    if (!call.given(i)) return 0;
    PyObject* o = call.argument(i);
    if (PyFloat_CheckExact(o)) return PyFloat_AS_DOUBLE(o);
    // what else calls itself a number (a tensor that requires grad, an array) is for the longer way to judge
    if (!PyFloat_Check(o) && !PyLong_Check(o))
        fail_type(call.op, "argument ", call.name(i), " is a ", Py_TYPE(o)->tp_name, ", expected a number");
    const double value = PyLong_CheckExact(o) ? PyLong_AsDouble(o) : PyFloat_AsDouble(o);
    if (value == -1.0 && PyErr_Occurred()) {
        PyErr_Clear();
        throw std::overflow_error(
            concat("neurokern.", call.op, ": argument ", call.name(i), " is an integer too large for a float"));
    }
    return value;
}

int64_t read_int(const Call& call, int i) {
    if (!call.given(i)) return 0;
    PyObject* o = call.argument(i);
    if (!PyLong_CheckExact(o))
        fail_type(call.op, "argument ", call.name(i), " is a ", Py_TYPE(o)->tp_name, ", expected an int");
    int overflow = 0;
    const long long value = PyLong_AsLongLongAndOverflow(o, &overflow);
    if (overflow != 0) fail_value(call.op, "argument ", call.name(i), " does not fit 64 bits");
    return value;
}

bool read_bool(const Call& call, int i) {
    if (!call.given(i)) return false;
    const int value = PyObject_IsTrue(call.argument(i));
    if (value < 0) throw py::error_already_set();
    return value != 0;
}

int read_name(const Call& call, int i, PyObject* const* interned, int count) {
    PyObject* o = call.argument(i);
    for (int k = 0; k < count; ++k)
        if (interned[k] == o) return k;  // names in source code are interned
    if (!PyUnicode_Check(o))
        fail_type(call.op, "argument ", call.name(i), " is a ", Py_TYPE(o)->tp_name, ", expected a str");
    std::string expected;
    for (int k = 0; k < count; ++k) {
        const int differs = PyUnicode_Compare(o, interned[k]);
        if (differs == 0) return k;
        expected += (k ? ", " : "") + std::string(PyUnicode_AsUTF8(interned[k]));
    }
    fail_value(call.op, "argument ", call.name(i), " is '", PyUnicode_AsUTF8(o), "', expected one of ", expected);
}

int checked_dim(const Call& call, int64_t dim, const TensorView& t) {
    const int bound = t.ndim > 0 ? t.ndim : 1;
    if (dim < -bound || dim >= bound)
        fail_index(call.op, "argument dim is ", dim, ", expected between ", -bound, " and ", bound - 1, " for shape ",
                   shape_string(t));
    return static_cast<int>(dim < 0 ? dim + bound : dim);
}

}  // namespace nk
