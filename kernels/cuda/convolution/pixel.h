// The results of one pixel, for kernels that make channels of one at a time (product/epilogue.h).
#pragma once

#include "../product/epilogue.h"
#include "place.h"

namespace nk::cuda {

template <DType T>
struct PlainResults {
    const ImagesRef &out_, &preact_, &residual_;
    Pixel pixel;
    int64_t out_step, preact_step, residual_step;

    __device__ __forceinline__ memory_t<T>* out(int64_t, int64_t n) const {
        return element<T>(out_.data, offset_of(out_, pixel) + n * out_.channel);
    }
    __device__ __forceinline__ memory_t<T>* preact(int64_t, int64_t n) const {
        return element<T>(preact_.data, offset_of(preact_, pixel) + n * preact_.channel);
    }
    __device__ __forceinline__ const memory_t<T>* residual(int64_t, int64_t n) const {
        return element<T>(static_cast<const void*>(residual_.data),
                          offset_of(residual_, pixel) + n * residual_.channel);
    }
};

}  // namespace nk::cuda
