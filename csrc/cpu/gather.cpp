#include "gather.h"

#include <emmintrin.h>

#include <algorithm>
#include <cstring>

namespace nk::cpu {

namespace {

struct Wide {
    __m128i low, high;
};

// A call of memcpy costs more than a short row: up to 64 bytes are two moves that may overlap.
template <class Part>
inline void ends(char* to, const char* from, int64_t bytes) {
    Part first, last;
    std::memcpy(&first, from, sizeof(Part));
    std::memcpy(&last, from + bytes - sizeof(Part), sizeof(Part));
    std::memcpy(to, &first, sizeof(Part));
    std::memcpy(to + bytes - sizeof(Part), &last, sizeof(Part));
}

inline void copy_bytes(char* to, const char* from, int64_t bytes) {
    if (bytes > 64)
        std::memcpy(to, from, static_cast<size_t>(bytes));
    else if (bytes >= 32)
        ends<Wide>(to, from, bytes);
    else if (bytes >= 16)
        ends<__m128i>(to, from, bytes);
    else if (bytes >= 8)
        ends<uint64_t>(to, from, bytes);
    else if (bytes >= 4)
        ends<uint32_t>(to, from, bytes);
    else if (bytes >= 2)
        ends<uint16_t>(to, from, bytes);
}

// Every other element. Returns how many were done: none beyond the last one is read.
template <class T>
int64_t every_other(T* to, const T* from, int64_t n) {
    int64_t i = 0;
    if constexpr (sizeof(T) == 4) {
        for (; i + 4 < n; i += 4) {
            const __m128 a = _mm_loadu_ps(reinterpret_cast<const float*>(from + 2 * i));
            const __m128 b = _mm_loadu_ps(reinterpret_cast<const float*>(from + 2 * i + 4));
            _mm_storeu_ps(reinterpret_cast<float*>(to + i), _mm_shuffle_ps(a, b, 0x88));
        }
    } else if constexpr (sizeof(T) == 8) {
        for (; i + 2 < n; i += 2) {
            const __m128d a = _mm_loadu_pd(reinterpret_cast<const double*>(from + 2 * i));
            const __m128d b = _mm_loadu_pd(reinterpret_cast<const double*>(from + 2 * i + 2));
            _mm_storeu_pd(reinterpret_cast<double*>(to + i), _mm_unpacklo_pd(a, b));
        }
    } else {
        for (; i + 8 < n; i += 8) {
            // the low halves, sign and all, so that packing with saturation leaves them as they are
            __m128i v[2];
            for (int k = 0; k < 2; ++k) {
                v[k] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + 2 * i + 8 * k));
                v[k] = _mm_srai_epi32(_mm_slli_epi32(v[k], 16), 16);
            }
            _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i), _mm_packs_epi32(v[0], v[1]));
        }
    }
    return i;
}

template <class T>
void copy_as(T* to, int64_t to_stride, const T* from, int64_t from_stride, int64_t n) {
    if (to_stride == 1 && from_stride == 1) {
        copy_bytes(reinterpret_cast<char*>(to), reinterpret_cast<const char*>(from), n * sizeof(T));
    } else if (to_stride == 1) {
        int64_t i = from_stride == 2 ? every_other(to, from, n) : 0;
        for (; i < n; ++i) to[i] = from[i * from_stride];
    } else {
        for (int64_t i = 0; i < n; ++i) to[i * to_stride] = from[i * from_stride];
    }
}

template <class F>
void by_size(int size, F f) {
    if (size == 4)
        f(uint32_t());
    else if (size == 2)
        f(uint16_t());
    else
        f(uint64_t());
}

}  // namespace

void gather(void* to, const Rows& from, int size) {
    by_size(size, [&]<class T>(T) {
        T* next = static_cast<T*>(to);
        const T* row = reinterpret_cast<const T*>(from.data);
        for (int64_t i = 0; i < from.count; ++i, next += from.length, row += from.apart)
            copy_as(next, 1, row, from.stride, from.length);
    });
}

void scatter(const Rows& to, const void* from, int size) {
    by_size(size, [&]<class T>(T) {
        const T* next = static_cast<const T*>(from);
        T* row = reinterpret_cast<T*>(to.data);
        for (int64_t i = 0; i < to.count; ++i, next += to.length, row += to.apart)
            copy_as(row, to.stride, next, 1, to.length);
    });
}

void copy_strided(void* to, int64_t to_stride, const void* from, int64_t from_stride, int64_t n, int size) {
    by_size(size,
            [&]<class T>(T) { copy_as(static_cast<T*>(to), to_stride, static_cast<const T*>(from), from_stride, n); });
}

void repeat(void* to, const void* value, int n, int size) {
    by_size(size, [&]<class T>(T) {
        T v;
        std::memcpy(&v, value, sizeof v);
        std::fill_n(static_cast<T*>(to), n, v);
    });
}

}  // namespace nk::cpu
