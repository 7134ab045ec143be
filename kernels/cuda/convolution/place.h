// Places of a padded image and pixels of the image, for kernels that take one at a time.
#pragma once

#include "params.h"

namespace nk::cuda {

// The pixel that is read at a place of one dim, negative where there is none.
__device__ __forceinline__ int64_t pixel_at(int64_t place, int64_t size, int mode) {
    if (place >= 0 && place < size) return place;
    if (mode == kZeros) return -1;
    if (mode == kReplicate) return place < 0 ? 0 : size - 1;
    if (mode == kCircular) return place < 0 ? place + size : place - size;
    return place < 0 ? -place : 2 * (size - 1) - place;
}

// The places where a pixel of one dim is read: place(0), place(1), ... of `count`, those from -before up to
// `padded - before` among them. The pixel itself comes first, then what lies before the image, then behind.
struct Places {
    int64_t pixel, size, begin, end;  // places are begin .. end - 1
    int mode;
    int64_t before = 0, behind = 0;

    __device__ __forceinline__ Places(int64_t pixel, int64_t size, int64_t pad, int64_t padded, int mode)
        : pixel(pixel), size(size), begin(-pad), end(padded - pad), mode(mode) {
        if (mode == kReplicate) {
            before = pixel == 0 ? pad : 0;
            behind = pixel == size - 1 && end > size ? end - size : 0;
        } else if (mode != kZeros) {
            const int64_t first = mode == kCircular ? pixel - size : -pixel;
            const int64_t last = mode == kCircular ? pixel + size : 2 * (size - 1) - pixel;
            before = first < 0 && first >= begin;
            behind = last >= size && last < end;
        }
    }
    __device__ __forceinline__ int64_t count() const { return 1 + before + behind; }
    __device__ __forceinline__ int64_t place(int64_t i) const {
        if (i == 0) return pixel;
        const bool is_before = i <= before;
        if (mode == kReplicate) return is_before ? -i : size - 1 + i - before;
        if (mode == kCircular) return is_before ? pixel - size : pixel + size;
        return is_before ? -pixel : 2 * (size - 1) - pixel;
    }
};

struct Pixel {
    int64_t image, at[kSpatial];
};
__device__ __forceinline__ Pixel pixel_of(int64_t index, const int64_t (&size)[kSpatial]) {
    Pixel x;
#pragma unroll
    for (int d = kSpatial - 1; d >= 0; --d) {
        x.at[d] = index % size[d];
        index /= size[d];
    }
    x.image = index;
    return x;
}
__device__ __forceinline__ int64_t offset_of(const ImagesRef& t, const Pixel& x) {
    return x.image * t.image + x.at[0] * t.pixel[0] + x.at[1] * t.pixel[1] + x.at[2] * t.pixel[2];
}

}  // namespace nk::cuda
