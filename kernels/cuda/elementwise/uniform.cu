// Numbers of [0, 1) by counters: element i is word i % 4 of block i / 4; in f64 words 2i and 2i + 1 together.
#include "../../math/philox.h"
#include "../tile/element.h"
#include "../tile/kernel.h"
#include "params.h"

namespace nk::cuda {

// One block of words a thread.
template <DType T>
__device__ __forceinline__ void uniform(const UniformParams& p) {
    constexpr int bits = T == DType::f16 ? 11 : T == DType::bf16 ? 8 : 24, per_block = T == DType::f64 ? 2 : 4;
    const int64_t block = static_cast<int64_t>(blockIdx.x) * kElementwiseThreads + threadIdx.x;
    const math::PhiloxBlock made = math::philox(p.seed, p.block + static_cast<uint64_t>(block), p.stream);
#pragma unroll
    for (int i = 0; i < per_block; ++i) {
        const int64_t at = block * per_block + i;
        if (at >= p.n) return;
        if constexpr (T == DType::f64)
            store<T>(p.out, at, math::uniform(made.word[2 * i], made.word[2 * i + 1]));
        else
            store<T>(p.out, at, math::uniform<bits>(made.word[i]));
    }
}

}  // namespace nk::cuda

NK_KERNELS(elementwise_uniform, nk::cuda::kElementwiseThreads, 2, nk::cuda::UniformParams, nk::cuda::uniform<T>(p))
