#include "cpu/strided_copy.h"

#include <algorithm>
#include <cstring>

#include "cpu/table.h"

namespace nk::cpu {

namespace {

constexpr int64_t kAcross = 16;  // rows from which copying across them pays

struct Sixteen {
    uint64_t part[2];
};
struct Thirtytwo {
    uint64_t part[4];
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
        ends<Thirtytwo>(to, from, bytes);
    else if (bytes >= 16)
        ends<Sixteen>(to, from, bytes);
    else if (bytes >= 8)
        ends<uint64_t>(to, from, bytes);
    else if (bytes >= 4)
        ends<uint32_t>(to, from, bytes);
    else if (bytes >= 2)
        ends<uint16_t>(to, from, bytes);
}

// Every other element, two vectors' worth at a time. Returns how many were done: none beyond the last one is read.
template <class T>
int64_t every_other(T* to, const T* from, int64_t n) {
    constexpr int lanes = 16 / sizeof(T);
    typedef T vector __attribute__((vector_size(16)));
    int64_t i = 0;
    for (; i + lanes < n; i += lanes) {
        vector a, b, even;
        std::memcpy(&a, from + 2 * i, 16);
        std::memcpy(&b, from + 2 * i + lanes, 16);
        if constexpr (lanes == 2)
            even = __builtin_shufflevector(a, b, 0, 2);
        else if constexpr (lanes == 4)
            even = __builtin_shufflevector(a, b, 0, 2, 4, 6);
        else
            even = __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14);
        std::memcpy(to + i, &even, 16);
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

void copy(const Grid& to, const Grid& from, int64_t rows, int64_t n, int size) {
    const bool across = rows >= kAcross && (to.apart == 1 || from.apart == 1);
    const auto transpose = table().elementwise.transpose[size / 4];
    if (across && to.step == 1 && from.apart == 1) return transpose({to.data, from.data, rows, n, to.apart, from.step});
    if (across && from.step == 1 && to.apart == 1) return transpose({to.data, from.data, n, rows, to.step, from.apart});
    const int64_t outer = across ? n : rows;
    for (int64_t i = 0; i < outer; ++i)
        copy_strided(to.data + i * (across ? to.step : to.apart) * size, across ? to.apart : to.step,
                     from.data + i * (across ? from.step : from.apart) * size, across ? from.apart : from.step,
                     across ? rows : n, size);
}

void repeat(void* to, const void* value, int n, int size) {
    by_size(size, [&]<class T>(T) {
        T v;
        std::memcpy(&v, value, sizeof v);
        std::fill_n(static_cast<T*>(to), n, v);
    });
}

}  // namespace nk::cpu
