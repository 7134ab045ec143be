// cvta: the 32-bit address inside shared memory that cp.async and ldmatrix take.
#pragma once
#include <stdint.h>

namespace nk::ptx {

__device__ __forceinline__ uint32_t shared_address(const void* p) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

}  // namespace nk::ptx
