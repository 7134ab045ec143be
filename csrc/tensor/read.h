// Tensors as they come from Python.
#pragma once

#include "tensor/view.h"

namespace nk {

// Reads torch's tensor (a PyObject*) through its DLPack C exchange API; throws TypeError when it is none,
// RuntimeError when it has no storage to read (fake or meta tensors) or a dtype or device we do not know.
void read_tensor(void* object, const char* op, const char* argument, TensorView& out);

// The stream that torch is launching on (a CUstream for CUDA devices). Throws RuntimeError where that can't be told: a
// launch on another one would not wait for what it reads.
void* current_stream(const char* op, Device device);

}  // namespace nk
