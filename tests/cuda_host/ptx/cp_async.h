#pragma once
#include "runtime.h"
namespace nk::ptx {
inline void cp_async_16(uint32_t dst, const void* src, int valid) { host::async_copy(dst, src, 16, valid); }
inline void cp_async_16(uint32_t dst, const void* src) { host::async_copy(dst, src, 16, 16); }
template <int Bytes>
void cp_async(uint32_t dst, const void* src, int valid) {
    host::async_copy(dst, src, Bytes, valid);
}
inline void cp_async_commit() { host::async_commit(); }
template <int Pending>
void cp_async_wait() {
    host::async_wait(Pending);
}
}  // namespace nk::ptx
