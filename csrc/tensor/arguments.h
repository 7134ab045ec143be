// How tensors and None arrive in functions bound by pybind11: as py::handle, read by the op that knows their names.
#pragma once

#include <pybind11/pybind11.h>

#include "tensor/allocate.h"
#include "tensor/host_memory.h"
#include "tensor/read.h"

namespace nk {

namespace py = pybind11;

struct Argument {
    TensorView view;
    HostMemory memory;
    Argument(py::handle object, const char* op, const char* name, Contents contents = Contents::given) {
        read_tensor(object.ptr(), op, name, view);
        memory = HostMemory(view, contents);
    }
    operator const TensorView&() const { return view; }
    const TensorView* operator->() const { return &view; }
};

inline py::object steal(void* object) { return py::reinterpret_steal<py::object>(static_cast<PyObject*>(object)); }

// An output: the tensor given, or, for None, a new one of `like`'s dtype and device.
struct OutputArgument {
    py::object object;
    TensorView view;
    HostMemory memory;
    OutputArgument(py::handle given, const char* op, const char* name, const TensorView& like, const int64_t* shape,
                   int ndim)
        : object(given.is_none() ? steal(new_tensor(like, shape, ndim)) : py::reinterpret_borrow<py::object>(given)) {
        read_tensor(object.ptr(), op, name, view);
        memory = HostMemory(view, Contents::unset);
    }
    // With the layout of the tensor `like`, whose view has been read.
    OutputArgument(py::handle given, const char* op, const char* name, py::handle like, const TensorView& read)
        : object(given.is_none() ? steal(new_like(like.ptr(), read)) : py::reinterpret_borrow<py::object>(given)) {
        read_tensor(object.ptr(), op, name, view);
        memory = HostMemory(view, Contents::unset);
    }
    operator const TensorView&() const { return view; }
    const TensorView* operator->() const { return &view; }
};

// An argument that may be None; `get()` is null then.
struct OptionalArgument {
    TensorView view;
    bool present;
    HostMemory memory;
    OptionalArgument(py::handle object, const char* op, const char* name, Contents contents = Contents::given)
        : present(!object.is_none()) {
        if (!present) return;
        read_tensor(object.ptr(), op, name, view);
        memory = HostMemory(view, contents);
    }
    const TensorView* get() const { return present ? &view : nullptr; }
};

}  // namespace nk
