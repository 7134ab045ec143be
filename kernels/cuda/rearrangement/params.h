// What the host tells the kernels of this family: plain structs, passed by value. Strides count elements; indices are
// of 64 bits, split by divisions of 32 where the count allows it.
#pragma once

#include <stdint.h>

namespace nk::cuda {

inline constexpr int kRearrangementThreads = 256;
inline constexpr int kPadDims = 64;  // as many as torch allows
inline constexpr int kPaddedDims = 3;

// out = in padded; dims from the innermost of the output on.
struct PadParams {
    void* out = nullptr;
    const void* in = nullptr;
    int64_t count = 0;
    int32_t ndim = 0, mode = 0, wide = 0;
    double value = 0;
    int64_t size[kPadDims] = {}, n[kPadDims] = {}, lo[kPadDims] = {};  // of the result, of the input
    int64_t to[kPadDims] = {}, from[kPadDims] = {};
};

// gx = sums of g; dims from the innermost of gx on. `from` is 0 in padded dims, which stand once more at the end.
struct PadSumsParams {
    void* out = nullptr;
    const void* g = nullptr;
    int64_t count = 0;
    int32_t ndim = 0, mode = 0, wide = 0;
    int64_t n[kPadDims] = {}, to[kPadDims] = {}, from[kPadDims] = {};
    int64_t before[kPaddedDims] = {1, 1, 1};  // elements of the dims inside
    int64_t padded_n[kPaddedDims] = {1, 1, 1}, padded_size[kPaddedDims] = {1, 1, 1};
    int64_t padded_lo[kPaddedDims] = {}, padded_from[kPaddedDims] = {};
};

// Columns [N, C, kernel, places] from images [N, C, H, W], or back; what is written is contiguous.
struct WindowParams {
    void* out = nullptr;
    const void* in = nullptr;
    int64_t count = 0;
    int32_t wide = 0;
    int64_t channels = 0;
    int64_t kernel[2] = {}, dilation[2] = {}, padding[2] = {}, stride[2] = {}, image[2] = {}, places[2] = {};
    int64_t from[4] = {};  // of an image: N, C, H, W; of columns: N, rows, places
};

}  // namespace nk::cuda
