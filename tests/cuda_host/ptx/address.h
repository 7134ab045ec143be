#pragma once
#include "runtime.h"
namespace nk::cuda {
extern char shared[];
}
namespace nk::ptx {
inline uint32_t shared_address(const void* p) {
    return static_cast<uint32_t>(static_cast<const char*>(p) - nk::cuda::shared);
}
}  // namespace nk::ptx
