// The description of a tensor by which Hopper's copies (cp.async.bulk.tensor) read and write boxes of it.
#pragma once

#include <cstdint>

#include "kernels/dtype.h"

namespace nk::driver {

// CUtensorMap: a kernel takes it as a parameter, __grid_constant__.
struct alignas(64) TensorMap {
    uint64_t words[16];
};

// How the 16-byte units of a box's rows are laid out in shared memory: by the bytes that the pattern spans, or in
// order.
enum class MapSwizzle : int { none = 0, of_32 = 1, of_64 = 2, of_128 = 3 };

// A tensor as the copies see it, outermost dimension first, as shapes are written.
struct MappedTensor {
    void* data;
    DType dtype;
    int dims;                // 2 to 5
    const int64_t* sizes;    // elements
    const int64_t* strides;  // elements; the last is 1
    const int64_t* box;      // what one copy moves, elements
    MapSwizzle swizzle = MapSwizzle::none;
    bool nan_outside = false;  // what is read beyond the edges: NaN, or zero
};

// Throws RuntimeError where the hardware can't do that, or the driver has no tensor maps. `argument`: how messages call
// the tensor.
TensorMap make_tensor_map(const char* op, const char* argument, const MappedTensor& tensor);

}  // namespace nk::driver
