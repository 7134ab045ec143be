// to[i][j] = from[j][i], in blocks that are turned in registers.
#include "register.h"
#include "storage.h"

namespace nk::NK_ISA {

namespace {

#if !defined(NK_ISA_scalar)
// Lanes of a block's vectors, which are as many: with 16 vectors of 64 bytes the registers of AVX-512 are full.
#if defined(NK_ISA_avx2)
template <class T>
inline constexpr int kSide = sizeof(T) == 8 ? 4 : 8;
#else
template <class T>
inline constexpr int kSide = sizeof(T) == 8 ? 8 : 16;
#endif

template <int... I>
struct indices {};
template <int N, int... I>
struct first_indices : first_indices<N - 1, N - 1, I...> {};
template <int... I>
struct first_indices<0, I...> {
    using type = indices<I...>;
};

// The lower or upper halves of a and b in turns.
template <bool Upper, class V, int... I>
NK_HD V turns(V a, V b, indices<I...>) {
    constexpr int n = sizeof...(I);
    return __builtin_shufflevector(a, b, ((Upper ? n / 2 : 0) + I / 2 + I % 2 * n)...);
}

// A block: each of the log2(side) rounds shuffles row i with row i + side / 2.
template <class T>
NK_HD void turn(T* to, int64_t to_apart, const T* from, int64_t from_apart) {
    constexpr int side = kSide<T>;
    typedef T V __attribute__((vector_size(side * sizeof(T))));
    using I = typename first_indices<side>::type;
    V a[side], b[side];
    for (int j = 0; j < side; ++j) memcpy(&a[j], from + j * from_apart, sizeof(V));
#pragma GCC unroll 4
    for (int round = 1; round < side; round *= 2) {
#pragma GCC unroll 16
        for (int i = 0; i < side / 2; ++i) {
            b[2 * i] = turns<false>(a[i], a[i + side / 2], I{});
            b[2 * i + 1] = turns<true>(a[i], a[i + side / 2], I{});
        }
#pragma GCC unroll 16
        for (int i = 0; i < side; ++i) a[i] = b[i];
    }
    for (int i = 0; i < side; ++i) memcpy(to + i * to_apart, &a[i], sizeof(V));
}
#endif

template <class T>
void transpose(const cpu::Transpose& t) {
    T* const to = static_cast<T*>(t.to);
    const T* const from = static_cast<const T*>(t.from);
#if !defined(NK_ISA_scalar)
    constexpr int side = kSide<T>;
    if (t.rows >= side && t.columns >= side) {
        // the last blocks overlap those before; along `from` first, for its lines and pages
        for (int64_t next = 0; next < t.columns; next += side) {
            const int64_t j = min64(next, t.columns - side);
            for (int64_t i0 = 0; i0 < t.rows; i0 += side) {
                const int64_t i = min64(i0, t.rows - side);
                turn(to + i * t.to_apart + j, t.to_apart, from + j * t.from_apart + i, t.from_apart);
            }
        }
        return;
    }
#endif
    for (int64_t j = 0; j < t.columns; ++j)
        for (int64_t i = 0; i < t.rows; ++i) to[i * t.to_apart + j] = from[j * t.from_apart + i];
}

}  // namespace

void register_transpose(cpu::ElementwiseEntries& e) {
    e.transpose[0] = transpose<uint16_t>;
    e.transpose[1] = transpose<uint32_t>;
    e.transpose[2] = transpose<uint64_t>;
}

}  // namespace nk::NK_ISA
