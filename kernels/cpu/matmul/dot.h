// Few rows: out[m <= 32, n] where every column of b is contiguous along k (linear with few tokens: b = weight.t()).
//
// Both operands are read in vectors along k and multiplied lane by lane; the lanes are added up at the end. b, the
// large one, is read straight from memory, once, in order; nothing of it is packed.
// Registers, AVX-512: 6 rows x 4 columns = 24 sums, 4 vectors of b, 1 of a. AVX2: 3 x 4 sums, 4 of b, a from memory.
#pragma once

#include "../product/pack.h"
#include "entries.h"
#include "epilogue.h"

namespace nk::NK_ISA {

template <class L, class S>
struct Dot {
    using Unit = typename L::Unit;
    using Acc = typename L::Acc;
    static constexpr int W = L::W, kCols = 4;

    // What the rows of a hold once they are ready: pairs are the caller's own bf16, halves are converted to f32.
    template <class Other, int Group>
    struct RowType {
        using type = Unit;
    };
    template <class Other>
    struct RowType<Other, 2> {
        using type = Other;
    };
    using Row = typename RowType<S, L::group>::type;

    template <class T>
    static NK_INLINE typename L::Reg full(const T* p, int64_t unit) {
        if constexpr (L::group == 2)
            return L::load(reinterpret_cast<const Unit*>(p) + unit);
        else
            return L::load(p + unit);
    }

    template <int MR>
    static void tile(const Row* a, int64_t a_row, const S* const (&b)[kCols], int64_t k, int64_t ahead, Acc* out,
                     int64_t ld) {
        typename L::AccReg acc[MR][kCols];
        unroll<MR>([&](auto i) { unroll<kCols>([&](auto j) { acc[i][j] = L::zero(); }); });
        const Row* row[MR];
        unroll<MR>([&](auto i) { row[i] = a + i * a_row; });
        const int64_t whole = k / (W * L::group) * W;
        for (int64_t u = 0; u < whole; u += W) {
            typename L::Reg vb[kCols];
            unroll<kCols>([&](auto j) {
                vb[j] = full(b[j], u);
                __builtin_prefetch(reinterpret_cast<const char*>(b[j] + u * L::group) + ahead, 0, 2);
            });
            unroll<MR>([&](auto i) {
                const typename L::Reg va = full(row[i], u);
                unroll<kCols>([&](auto j) { acc[i][j] = L::fma(va, vb[j], acc[i][j]); });
            });
        }
        if (whole * L::group < k) {
            typename L::Reg vb[kCols];
            unroll<kCols>([&](auto j) { vb[j] = read_along<L>(b[j], whole, k); });
            unroll<MR>([&](auto i) {
                const typename L::Reg va = read_along<L>(row[i], whole, k);
                unroll<kCols>([&](auto j) { acc[i][j] = L::fma(va, vb[j], acc[i][j]); });
            });
        }
        unroll<MR>([&](auto i) { sum4(acc[i], out + i * ld); });
    }

    // A single output: four sums along k instead of four columns, so that they wait for memory and not for one another.
    static Acc single(const Row* a, const S* b, int64_t k) {
        typename L::AccReg acc[kCols];
        unroll<kCols>([&](auto j) { acc[j] = L::zero(); });
        const int64_t whole = k / (W * L::group) * W;
        int64_t u = 0;
        for (; u + kCols * W <= whole; u += kCols * W)
            unroll<kCols>([&](auto j) { acc[j] = L::fma(full(a, u + j * W), full(b, u + j * W), acc[j]); });
        for (; u < whole; u += W) acc[0] = L::fma(full(a, u), full(b, u), acc[0]);
        if (whole * L::group < k) acc[1] = L::fma(read_along<L>(a, whole, k), read_along<L>(b, whole, k), acc[1]);
        Acc sums[kCols];
        sum4(acc, sums);
        return (sums[0] + sums[1]) + (sums[2] + sums[3]);
    }

    template <int MR = L::kDotRows>
    static NK_INLINE void tile_of(int rows, const Row* a, int64_t a_row, const S* const (&b)[kCols], int64_t k,
                                  int64_t ahead, Acc* out, int64_t ld) {
        if (rows == MR) return tile<MR>(a, a_row, b, k, ahead, out, ld);
        if constexpr (MR > 1) tile_of<MR - 1>(rows, a, a_row, b, k, ahead, out, ld);
    }

    static void run(const cpu::MatmulTask& t) {
        const Row* a = static_cast<const Row*>(t.a.data);
        int64_t a_row = t.a.row;
        if (t.pack_a) {
            const int64_t ld = cpu::packed_row((t.k + L::group - 1) / L::group, sizeof(Unit));
            pack_rows<L>(reinterpret_cast<Unit*>(t.work), ld, at<S>(t.a, 0, 0), t.a.row, t.a.col, t.m, t.k);
            a = reinterpret_cast<const Row*>(t.work);
            a_row = ld * L::group;
        }
        // The next columns, as far as they are near enough to stay in the second cache until their turn.
        const int64_t next = kCols * t.b.col * int64_t(sizeof(S));
        const int64_t ahead = next >= -131072 && next <= 131072 ? next : 4096;
        const int64_t groups = (t.m + L::kDotRows - 1) / L::kDotRows;
        constexpr int64_t ld = cpu::kMatmulDotCols;
        alignas(64) Acc sums[cpu::kMatmulDotRows * ld];
        for (int64_t j0 = 0; j0 < t.n; j0 += ld) {
            const int64_t n = t.n - j0 < ld ? t.n - j0 : ld;
            if (t.m == 1 && t.n == 1) sums[0] = single(a, at<S>(t.b, 0, 0), t.k);
            for (int64_t j = 0; j < n && t.m * t.n > 1; j += kCols) {
                const S* b[kCols];
                for (int64_t c = 0; c < kCols; ++c)  // past the end: the last column again, its sums unused
                    b[c] = at<S>(t.b, 0, j0 + (j + c < n ? j + c : n - 1));
                for (int64_t g = 0; g < groups; ++g) {
                    const int64_t i = t.m * g / groups;
                    tile_of(int(t.m * (g + 1) / groups - i), a + i * a_row, a_row, b, t.k, ahead, sums + i * ld + j,
                            ld);
                }
            }
            if (t.sums_only) {
                Acc* out = static_cast<Acc*>(const_cast<void*>(t.out.data));
                for (int64_t i = 0; i < t.m; ++i)
                    for (int64_t j = 0; j < n; ++j) out[i * t.out.row + (j0 + j) * t.out.col] = sums[i * ld + j];
            } else {
                epilogue<L, S>(t, sums, ld, 0, j0, t.m, n);
            }
        }
    }
};

// Adds up the parts of a product that was split along k, always in the same order, then runs the epilogue.
template <class L, class S>
void finish(const cpu::MatmulTask& t, const void* partial, int64_t stride, int parts) {
    using Acc = typename L::Acc;
    constexpr int64_t ld = cpu::kMatmulDotCols;
    alignas(64) Acc sums[ld];
    for (int64_t i = 0; i < t.m; ++i)
        for (int64_t j0 = 0; j0 < t.n; j0 += ld) {
            const int64_t n = t.n - j0 < ld ? t.n - j0 : ld;
            for (int64_t j = 0; j < n; j += L::W) {
                const typename L::Mask m = L::mask(n - j);
                typename L::AccReg v = L::zero();
                for (int s = 0; s < parts; ++s)
                    v = L::add(v, L::load(static_cast<const Acc*>(partial) + s * stride + i * t.n + j0 + j, m));
                L::store(sums + j, v);
            }
            epilogue<L, S>(t, sums, ld, i, j0, 1, n);
        }
}

}  // namespace nk::NK_ISA
