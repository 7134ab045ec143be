// New tensors, made by torch.
#pragma once

#include "tensor/view.h"

namespace nk {

// A new contiguous tensor of torch's own, of `like`'s dtype and device, unset: a new reference to a PyObject.
void* new_tensor(const TensorView& like, const int64_t* shape, int ndim);
void* new_tensor(const TensorView& like, DType dtype, const int64_t* shape, int ndim);  // of another dtype
// The same with these strides, of a dense layout.
void* new_strided(const TensorView& like, DType dtype, const int64_t* shape, const int64_t* stride, int ndim);

// A new tensor as torch's empty_like(object) makes it: any dense layout is kept. `like` is object's view.
void* new_like(void* object, const TensorView& like);

// torch's functions that new tensors come from: empty_strided(shape, stride, dtype) on the CPU (may be null),
// empty_like, and its dtypes in DType's order. All are kept for good.
void set_allocator(void* empty_strided, void* empty_like, void* const* dtypes);

// When set, new tensors on the CPU start as NaN, so that an element which a kernel forgets shows.
extern bool poison_new_tensors;

}  // namespace nk
