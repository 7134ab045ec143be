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

// Whole vectors that may overlap at the end: a call of memcpy costs more than a short run does.
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
        V first, last, v;
        __builtin_memcpy(&first, from, step);
        __builtin_memcpy(&last, from + bytes - step, step);
        // from a line of the output on, where the run is long
        int64_t i = bytes > 4 * step ? step - static_cast<int64_t>(reinterpret_cast<uintptr_t>(to) % step) : step;
        __builtin_memcpy(to, &first, step);
        for (; i + 4 * step <= bytes; i += 4 * step) {
            V w[4];
            __builtin_memcpy(w, from + i, 4 * step);
            __builtin_memcpy(to + i, w, 4 * step);
        }
        for (; i < bytes - step; i += step) {
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

// n elements of one value, as stores that may overlap: padding is short.
template <class T>
NK_HD void fill(T* to, T value, int64_t n) {
    constexpr int64_t L = 16 / sizeof(T), H = L / 2;
    if (n >= L) {
        typedef T V __attribute__((vector_size(16)));
        const V v = V{} + value;
        for (int64_t i = 0; i < n - L; i += L) __builtin_memcpy(to + i, &v, 16);
        __builtin_memcpy(to + n - L, &v, 16);
    } else if (n >= H && H > 1) {
        typedef T V __attribute__((vector_size(8)));
        const V v = V{} + value;
        __builtin_memcpy(to, &v, 8);
        __builtin_memcpy(to + n - H, &v, 8);
    } else if (n > 0) {
        to[0] = to[n / 2] = to[n - 1] = value;  // three at most
    }
}

}  // namespace nk::NK_ISA
