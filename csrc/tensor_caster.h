// How tensors and None arrive in functions bound by pybind11: as py::handle, read by the op that knows their names.
#pragma once

#include <pybind11/pybind11.h>

#include "driver/host_memory.h"
#include "tensor.h"

namespace nk {

namespace py = pybind11;

struct Argument {
    TensorView view;
    driver::HostMemory memory;
    Argument(py::handle object, const char* op, const char* name) {
        read_tensor(object.ptr(), op, name, view);
        memory = driver::HostMemory(view);
    }
    operator const TensorView&() const { return view; }
    const TensorView* operator->() const { return &view; }
};

// An output: the tensor given, or, for None, a new one of `like`'s dtype and device, `shape` [..., N] with N =
// `columns`.
struct OutputArgument {
    py::object object;
    TensorView view;
    driver::HostMemory memory;
    OutputArgument(py::handle given, const char* op, const char* name, const TensorView& like, int64_t columns)
        : object(py::reinterpret_borrow<py::object>(given)) {
        if (given.is_none()) {
            int64_t shape[kMaxDims];
            for (int i = 0; i < like.ndim; ++i) shape[i] = i == like.ndim - 1 ? columns : like.shape[i];
            object = py::reinterpret_steal<py::object>(static_cast<PyObject*>(new_tensor(like, shape, like.ndim)));
        }
        read_tensor(object.ptr(), op, name, view);
        memory = driver::HostMemory(view);
    }
    operator const TensorView&() const { return view; }
    const TensorView* operator->() const { return &view; }
};

// An argument that may be None; `get()` is null then.
struct OptionalArgument {
    TensorView view;
    bool present;
    driver::HostMemory memory;
    OptionalArgument(py::handle object, const char* op, const char* name) : present(!object.is_none()) {
        if (!present) return;
        read_tensor(object.ptr(), op, name, view);
        memory = driver::HostMemory(view);
    }
    const TensorView* get() const { return present ? &view : nullptr; }
};

}  // namespace nk
