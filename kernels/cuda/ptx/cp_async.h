// cp.async: copies from global to shared memory that do not pass through registers (sm_80 and later).
// `valid` bytes are read from `src`, the rest of the destination is filled with zeros; with valid = 0
// nothing is read, but `src` must still be an address that exists.
#pragma once
#include <stdint.h>

namespace nk::ptx {

// 16 bytes, past L1 (.cg): tiles are read once per block, so L1 would only be churned.
__device__ __forceinline__ void cp_async_16(uint32_t dst, const void* src, int valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(dst), "l"(src), "r"(valid) : "memory");
}

// 16 bytes, all of them valid.
__device__ __forceinline__ void cp_async_16(uint32_t dst, const void* src) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(dst), "l"(src) : "memory");
}

// 16 bytes, or zeros: then `src` is not looked at.
__device__ __forceinline__ void cp_async_16_if(uint32_t dst, const void* src, bool exists) {
    asm volatile(
        "{ .reg .pred ignored; setp.eq.u32 ignored, %2, 0; cp.async.cg.shared.global [%0], [%1], 16, ignored; }" ::"r"(
            dst),
        "l"(src), "r"(static_cast<uint32_t>(exists))
        : "memory");
}

// 4 or 8 bytes, through L1 (.ca): neighbours of the same sector come later from the same block.
template <int Bytes>
__device__ __forceinline__ void cp_async(uint32_t dst, const void* src, int valid) {
    static_assert(Bytes == 4 || Bytes == 8, "cp.async.ca copies 4 or 8 bytes here; 16 is cp_async_16");
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(dst), "l"(src), "n"(Bytes), "r"(valid)
                 : "memory");
}

__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most `Pending` of this thread's latest groups are still under way.
template <int Pending>
__device__ __forceinline__ void cp_async_wait() {
    static_assert(Pending >= 0, "a negative number of groups cannot be pending");
    asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}

}  // namespace nk::ptx
