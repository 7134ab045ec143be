#include "driver/tensor_map.h"

#include "driver/fail.h"
#include "tensor/check.h"

namespace nk::driver {

namespace {

constexpr int kLeast = 2, kMost = 5;
constexpr int64_t kUnit = 16;                      // bytes
constexpr int64_t kMostSize = int64_t{1} << 32;    // elements
constexpr int64_t kMostStride = int64_t{1} << 40;  // bytes
constexpr int64_t kMostBox = 256;                  // elements

// CUtensorMapDataType, by DType.
constexpr int kElements[kTypes] = {7, 8, 6, 9, 5, 3, 0, 0, 0};

}  // namespace

TensorMap make_tensor_map(const char* op, const char* argument, const MappedTensor& x) {
    const auto refuse = [&](const auto&... parts) {
        fail_runtime(op, "argument ", argument, " can't be copied by a tensor map: ", parts...);
    };
    if (x.dims < kLeast || x.dims > kMost) refuse("it has ", x.dims, " dimensions, expected 2 to 5");
    if (reinterpret_cast<uintptr_t>(x.data) % kUnit != 0) refuse("its address is no multiple of 16 bytes");
    const int64_t bytes = size_of(x.dtype);
    if (x.strides[x.dims - 1] != 1) refuse("its last stride is ", x.strides[x.dims - 1], ", expected 1");

    uint64_t sizes[kMost], strides[kMost];
    unsigned box[kMost], steps[kMost];
    for (int i = 0; i < x.dims; ++i) {
        const int from = x.dims - 1 - i;  // the driver counts from the innermost one
        if (x.sizes[from] < 1 || x.sizes[from] > kMostSize)
            refuse("its size in dimension ", from, " is ", x.sizes[from], ", expected 1 to 2^32");
        if (x.box[from] < 1 || x.box[from] > kMostBox)
            refuse("the box's size in dimension ", from, " is ", x.box[from], ", expected 1 to 256");
        sizes[i] = static_cast<uint64_t>(x.sizes[from]);
        box[i] = static_cast<unsigned>(x.box[from]);
        steps[i] = 1;
        if (i == 0) continue;
        const int64_t stride = x.strides[from] * bytes;
        if (stride < 0 || stride % kUnit != 0 || stride >= kMostStride)
            refuse("its stride in dimension ", from, " is ", stride, " bytes, expected a multiple of 16 below 2^40");
        strides[i - 1] = static_cast<uint64_t>(stride);
    }
    const int64_t row = x.box[x.dims - 1] * bytes;
    if (row % kUnit != 0) refuse("a row of the box has ", row, " bytes, expected a multiple of 16");
    const int64_t span = kUnit << static_cast<int>(x.swizzle);
    if (x.swizzle != MapSwizzle::none && row > span)
        refuse("a row of the box has ", row, " bytes, expected at most the ", span, " of the swizzle");
    if (x.nan_outside && !is_floating(x.dtype)) refuse("NaN beyond its edges needs a floating dtype");

    const DriverTable* t = table();
    if (t == nullptr) fail_runtime(op, why_not());
    if (t->cuTensorMapEncodeTiled == nullptr) refuse("the CUDA driver has no cuTensorMapEncodeTiled");
    constexpr int no_interleave = 0, promote_to_128_bytes = 2;
    TensorMap map;
    NK_DRIVER_CALL(*t, op, concat("tensor map of argument ", argument),
                   t->cuTensorMapEncodeTiled(&map, kElements[static_cast<int>(x.dtype)], static_cast<unsigned>(x.dims),
                                             x.data, sizes, strides, box, steps, no_interleave,
                                             static_cast<int>(x.swizzle), promote_to_128_bytes, x.nan_outside));
    return map;
}

}  // namespace nk::driver
