// Rows into one another and apart again: transposes with a side too short for blocks (elementwise/transpose.cpp).
#include "move.h"

namespace nk::NK_ISA {

namespace {

#if !defined(NK_ISA_scalar)

template <int... I>
struct indices {};
template <int N, int... I>
struct first_indices : first_indices<N - 1, N - 1, I...> {};
template <int... I>
struct first_indices<0, I...> {
    using type = indices<I...>;
};

// The lower or upper halves of a and b in turns, and the even or odd elements of both.
template <bool Upper, class V, int... I>
NK_HD V zip(V a, V b, indices<I...>) {
    constexpr int n = sizeof...(I);
    return __builtin_shufflevector(a, b, ((Upper ? n / 2 : 0) + I / 2 + I % 2 * n)...);
}
template <bool Odd, class V, int... I>
NK_HD V unzip(V a, V b, indices<I...>) {
    return __builtin_shufflevector(a, b, (2 * I + Odd)...);
}

// R vectors of L elements into one another: each round zips vector i with vector i + R / 2.
template <int L, int R, class T>
NK_HD void interleave_block(T* to, const T* from, const int64_t* offset) {
    typedef T V __attribute__((vector_size(L * sizeof(T))));
    using I = typename first_indices<L>::type;
    V a[R], b[R];
    for (int j = 0; j < R; ++j) __builtin_memcpy(&a[j], from + offset[j], sizeof(V));
#pragma GCC unroll 4
    for (int round = 1; round < R; round *= 2) {
#pragma GCC unroll 8
        for (int i = 0; i < R / 2; ++i) {
            b[2 * i] = zip<false>(a[i], a[i + R / 2], I{});
            b[2 * i + 1] = zip<true>(a[i], a[i + R / 2], I{});
        }
#pragma GCC unroll 16
        for (int i = 0; i < R; ++i) a[i] = b[i];
    }
    for (int i = 0; i < R; ++i) __builtin_memcpy(to + i * L, &a[i], sizeof(V));
}

template <int L, int R, class T>
NK_HD void deinterleave_block(T* to, const T* from, const int64_t* offset) {
    typedef T V __attribute__((vector_size(L * sizeof(T))));
    using I = typename first_indices<L>::type;
    V a[R], b[R];
    for (int i = 0; i < R; ++i) __builtin_memcpy(&a[i], from + i * L, sizeof(V));
#pragma GCC unroll 4
    for (int round = 1; round < R; round *= 2) {
#pragma GCC unroll 8
        for (int i = 0; i < R / 2; ++i) {
            b[i] = unzip<false>(a[2 * i], a[2 * i + 1], I{});
            b[i + R / 2] = unzip<true>(a[2 * i], a[2 * i + 1], I{});
        }
#pragma GCC unroll 16
        for (int i = 0; i < R; ++i) a[i] = b[i];
    }
    for (int j = 0; j < R; ++j) __builtin_memcpy(to + offset[j], &a[j], sizeof(V));
}

#endif

// One row of R short ones; the last blocks overlap those before.
template <bool Apart, int L, int R, class T>
NK_HD bool in_blocks(T* to, const T* from, const int64_t* offset, int64_t n) {
#if defined(NK_ISA_scalar)
    (void)to, (void)from, (void)offset, (void)n;
    return false;
#else
    if (n < L) return false;
    for (int64_t next = 0; next < n; next += L) {
        const int64_t i = min64(next, n - L);
        if constexpr (Apart)
            deinterleave_block<L, R>(to + i, from + i * R, offset);
        else
            interleave_block<L, R>(to + i * R, from + i, offset);
    }
    return true;
#endif
}

template <bool Apart, class T>
NK_HD void one_by_one(T* to, const T* from, const int64_t* offset, int64_t n, int small) {
    for (int64_t i = 0; i < n; ++i)
        for (int j = 0; j < small; ++j) {
            if constexpr (Apart)
                to[offset[j] + i] = from[i * small + j];
            else
                to[i * small + j] = from[offset[j] + i];
        }
}

template <bool Apart, int R, class T>
void rows_of(const cpu::Interleave& given) {
    const cpu::Interleave a = given;
#if defined(NK_ISA_avx512)
    constexpr int L = 64 / sizeof(T);
#else
    constexpr int L = 32 / sizeof(T);
#endif
    T* to = static_cast<T*>(a.to);
    const T* from = static_cast<const T*>(a.from);
    for (int64_t r = 0; r < a.rows; ++r, to += a.to_apart, from += a.from_apart)
        if (!in_blocks<Apart, L, R>(to, from, a.offset, a.n) && !in_blocks<Apart, L / 2, R>(to, from, a.offset, a.n) &&
            !in_blocks<Apart, L / 4 < 2 ? 2 : L / 4, R>(to, from, a.offset, a.n))
            one_by_one<Apart>(to, from, a.offset, a.n, R);
}

template <bool Apart, class T>
void interleave(const cpu::Interleave& a) {
    switch (a.small) {
        case 2:
            return rows_of<Apart, 2, T>(a);
        case 4:
            return rows_of<Apart, 4, T>(a);
        case 8:
            return rows_of<Apart, 8, T>(a);
        default:
            break;
    }
    T* to = static_cast<T*>(a.to);
    const T* from = static_cast<const T*>(a.from);
    for (int64_t r = 0; r < a.rows; ++r, to += a.to_apart, from += a.from_apart)
        one_by_one<Apart>(to, from, a.offset, a.n, a.small);
}

template <class T>
void copy_rows(const cpu::CopyRows& given) {
    const cpu::CopyRows a = given;
    T* to = static_cast<T*>(a.to);
    const T* from = static_cast<const T*>(a.from);
    for (int64_t r = 0; r < a.rows; ++r, to += a.to_apart, from += a.from_apart) move_elements(to, from, a.n);
}

template <int I, class T>
void fill_in(cpu::RearrangementEntries& e) {
    e.interleave[I] = interleave<false, T>;
    e.deinterleave[I] = interleave<true, T>;
    e.copy_rows[I] = copy_rows<T>;
}

}  // namespace

void register_interleave(cpu::RearrangementEntries& e) {
    fill_in<0, uint16_t>(e);
    fill_in<1, uint32_t>(e);
    fill_in<2, uint64_t>(e);
}

}  // namespace nk::NK_ISA
