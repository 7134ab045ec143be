// What a launcher knows of the call that it serves: names for messages, its arguments, and whether autograd records it.
//
// A launcher is a function of a Call and of its arguments, read from Python by the types that it declares:
//
//     py::object softmax(const Call& call, Input& x, int dim, SoftmaxKind kind)
//
// `def_entry` (kernel_entry.h) binds it and gives the arguments their names, the only place where they stand in C++.
#pragma once

#include <pybind11/cast.h>

#include <cstdint>
#include <optional>
#include <string>
#include <type_traits>

#include "tensor/allocate.h"
#include "tensor/check.h"
#include "tensor/host_memory.h"
#include "tensor/read.h"

namespace nk {

namespace py = pybind11;

// How messages call an op and its arguments.
struct Names {
    const char* op = "";
    const char* const* arguments = nullptr;
};

class Call {
  public:
    const char* const op;
    const bool recorded;  // autograd records it: what the gradient needs is wanted besides the result

    Call(const Names& names, const char* entry, PyObject* const* arguments, Py_ssize_t count, bool records)
        : op(names.op), recorded(records), names_(names), entry_(entry), arguments_(arguments), count_(count) {}

    const char* name(int i) const { return names_.arguments[i]; }
    PyObject* argument(int i) const { return i < count_ ? arguments_[i] : Py_None; }
    bool given(int i) const { return i < count_; }
    Py_ssize_t count() const { return count_; }
    PyObject* const* arguments() const { return arguments_; }
    const char* entry() const { return entry_; }

    template <class... Parts>
    [[noreturn]] void fail(const Parts&... parts) const {
        fail_runtime(op, parts...);
    }

  private:
    Names names_;
    const char* entry_;
    PyObject* const* arguments_;
    Py_ssize_t count_;
};

// ---- arguments ----

// A tensor, or None where the launcher takes an `OptionalInput`.
struct Input {
    PyObject* object;
    const char *op, *name;
    TensorView view;
    HostMemory memory;

    Input(const Call& call, int i) : Input(call.argument(i), call.op, call.name(i)) {}
    Input(PyObject* o, const char* op_, const char* name_, Contents contents = Contents::given)
        : object(o), op(op_), name(name_) {
        read_tensor(o, op, name, view);
        memory = HostMemory(view, contents);
    }
    operator const TensorView&() const { return view; }
    const TensorView* operator->() const { return &view; }
};

struct OptionalInput {
    PyObject* object;
    const char *op, *name;
    TensorView view;
    bool present;
    HostMemory memory;

    OptionalInput(const Call& call, int i)
        : object(call.argument(i)), op(call.op), name(call.name(i)), present(object != Py_None) {
        if (!present) return;
        read_tensor(object, op, name, view);
        memory = HostMemory(view);
    }
    const TensorView* get() const { return present ? &view : nullptr; }
};

// A new tensor, of the dtype and device of `like` unless it is told another dtype.
struct Output {
    py::object object;
    const char *op, *name;
    TensorView view;
    HostMemory memory;

    // contiguous
    Output(const Call& call, const char* name_, const TensorView& like, const int64_t* shape, int ndim)
        : Output(call, name_, new_tensor(like, shape, ndim)) {}
    Output(const Call& call, const char* name_, const TensorView& like, DType dtype, const int64_t* shape, int ndim)
        : Output(call, name_, new_tensor(like, dtype, shape, ndim)) {}
    // laid out as empty_like(like)
    Output(const Call& call, const char* name_, const Input& like)
        : Output(call, name_, new_like(like.object, like.view)) {}
    // `made`: a new reference
    Output(const Call& call, const char* name_, void* made)
        : object(py::reinterpret_steal<py::object>(static_cast<PyObject*>(made))), op(call.op), name(name_) {
        read_tensor(object.ptr(), op, name, view);
        memory = HostMemory(view, Contents::unset);
    }
    operator const TensorView&() const { return view; }
    const TensorView* operator->() const { return &view; }
};

// A list of integers: normalized_shape, kernel sizes.
struct Ints {
    int count = 0;
    int64_t values[kMaxDims];

    Ints(const Call& call, int i);
    const int64_t* begin() const { return values; }
    const int64_t* end() const { return values + count; }
};

// Which of the arguments of an autograd Function want a gradient: its context's needs_input_grad. None of those that
// it was not given.
class Wants {
  public:
    Wants(const Call& call, int i);
    bool operator[](Py_ssize_t i) const {
        if (list_) return i < PyList_GET_SIZE(sequence_) && PyList_GET_ITEM(sequence_, i) == Py_True;
        return i < PyTuple_GET_SIZE(sequence_) && PyTuple_GET_ITEM(sequence_, i) == Py_True;
    }

  private:
    PyObject* sequence_;
    bool list_;
};

// Whatever the launcher returned besides its outputs when it was recorded.
struct Kept {
    PyObject* object;
    Kept(const Call& call, int i) : object(call.argument(i)) {}
};

double read_double(const Call& call, int i);
int64_t read_int(const Call& call, int i);
bool read_bool(const Call& call, int i);
// Which of the names the argument is; throws ValueError where it is none.
int read_name(const Call& call, int i, PyObject* const* interned, int count);

// What Python calls the type of an argument, for the stub; families specialize both for their enumerations.
template <class T>
inline constexpr const char* kPythonType = "str";

template <class T>
T read_argument(const Call& call, int i) {
    if constexpr (std::is_same_v<T, double>) {
        return read_double(call, i);
    } else if constexpr (std::is_same_v<T, bool>) {
        return read_bool(call, i);
    } else if constexpr (std::is_same_v<T, int64_t>) {
        return read_int(call, i);
    } else if constexpr (std::is_same_v<T, int>) {
        const int64_t value = read_int(call, i);
        if (value != static_cast<int>(value))
            fail_value(call.op, "argument ", call.name(i), " is ", value, ", out of range");
        return static_cast<int>(value);
    } else if constexpr (std::is_same_v<T, std::optional<double>>) {
        return call.argument(i) == Py_None ? T() : read_double(call, i);
    } else if constexpr (std::is_same_v<T, std::optional<int64_t>>) {
        return call.argument(i) == Py_None ? T() : read_int(call, i);
    } else {
        return T(call, i);
    }
}

template <>
inline constexpr const char* kPythonType<Input> = "Tensor";
template <>
inline constexpr const char* kPythonType<OptionalInput> = "Tensor | None";
template <>
inline constexpr const char* kPythonType<Ints> = "Sequence[int]";
template <>
inline constexpr const char* kPythonType<Wants> = "Sequence[bool]";
template <>
inline constexpr const char* kPythonType<Kept> = "object";
template <>
inline constexpr const char* kPythonType<double> = "float";
template <>
inline constexpr const char* kPythonType<bool> = "bool";
template <>
inline constexpr const char* kPythonType<int> = "int";
template <>
inline constexpr const char* kPythonType<int64_t> = "int";
template <>
inline constexpr const char* kPythonType<std::optional<double>> = "float | None";
template <>
inline constexpr const char* kPythonType<std::optional<int64_t>> = "int | None";

// A parameter that names one of a few things, whose numbers are those of their names.
template <class Enum, int n, const char* const (&names)[n]>
struct NameOf {
    Enum value;
    NameOf(const Call& call, int i) {
        static PyObject* const* const interned = [] {
            static PyObject* made[n];
            for (int k = 0; k < n; ++k) made[k] = PyUnicode_InternFromString(names[k]);
            return made;
        }();
        value = static_cast<Enum>(read_name(call, i, interned, n));
    }
    operator Enum() const { return value; }
};

// ---- checks in the words of the call ----

inline void check_floating(const Input& t) { check_floating(t.op, t.name, t.view); }

// dtype and device
template <class A, class B>
void check_kind(const A& t, const B& other) {
    check_same_dtype(t.op, t.name, t.view, other.name, other.view);
    check_same_device(t.op, t.name, t.view, other.name, other.view);
}
// dtype, device and shape
template <class A, class B>
void check_like(const A& t, const B& other) {
    check_kind(t, other);
    check_same_shape(t.op, t.name, t.view, other.name, other.view);
}

// A dim from -ndim to ndim - 1 (of a scalar: -1 or 0) as one from 0; IndexError where it is out of range.
int checked_dim(const Call& call, int64_t dim, const TensorView& t);

}  // namespace nk
