// Runs of elements on their way from one place to another.
#pragma once

#include "register.h"

namespace nk::NK_ISA {

template <class V>
NK_HD void move_ends(char* to, const char* from, int64_t bytes) {
    V first, last;
    __builtin_memcpy(&first, from, sizeof(V));
    __builtin_memcpy(&last, from + bytes - sizeof(V), sizeof(V));
    __builtin_memcpy(to, &first, sizeof(V));
    __builtin_memcpy(to + bytes - sizeof(V), &last, sizeof(V));
}

// Short runs as whole vectors that may overlap at the end: a call of memcpy costs more than they do. The longest are
// left to it.
NK_HD void move(void* to_, const void* from_, int64_t bytes) {
    char* to = static_cast<char*>(to_);
    const char* from = static_cast<const char*>(from_);
#if defined(NK_ISA_avx512)
    constexpr int64_t step = 64;
#else
    constexpr int64_t step = 32;
#endif
    typedef char V __attribute__((vector_size(step)));
    if (bytes >= step) {
        if (bytes > 2048) {
            __builtin_memcpy(to, from, static_cast<size_t>(bytes));
            return;
        }
        V last, v;
        __builtin_memcpy(&last, from + bytes - step, step);
        for (int64_t i = 0; i < bytes - step; i += step) {
            __builtin_memcpy(&v, from + i, step);
            __builtin_memcpy(to + i, &v, step);
        }
        __builtin_memcpy(to + bytes - step, &last, step);
    } else if (bytes >= 32) {
        typedef char H __attribute__((vector_size(32)));
        move_ends<H>(to, from, bytes);
    } else if (bytes >= 16) {
        typedef char Q __attribute__((vector_size(16)));
        move_ends<Q>(to, from, bytes);
    } else if (bytes >= 8) {
        move_ends<uint64_t>(to, from, bytes);
    } else if (bytes >= 4) {
        move_ends<uint32_t>(to, from, bytes);
    } else if (bytes >= 2) {
        move_ends<uint16_t>(to, from, bytes);
    }
}

template <class T>
NK_HD void move_elements(T* to, const T* from, int64_t n) {
    move(to, from, n * static_cast<int64_t>(sizeof(T)));
}

template <class T>
NK_HD void fill(T* to, T value, int64_t n) {
    for (int64_t i = 0; i < n; ++i) to[i] = value;
}

}  // namespace nk::NK_ISA
