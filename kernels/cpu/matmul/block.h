// The loops around the microkernel, for one thread's rectangle.
//
//   for jc: columns nc wide                       b[k, nc] packed once; block by block if mc = m
//     for ic: rows of a, mc at a time             sums[mc, nc] stay in the second cache (in out or in `work`)
//       for pc: k in blocks of kc                 b[kc, nc]: second cache
//         for ir: rows of a, mr at a time         a[mr, kc] packed: first cache
//           for jr: panels of b, nv vectors wide  sums in registers
#pragma once

#include "../product/micro.h"
#include "../product/pack.h"
#include "entries.h"
#include "epilogue.h"

namespace nk::NK_ISA {

template <class L, class S>
struct Block {
    using Unit = typename L::Unit;
    using Acc = typename L::Acc;
    static constexpr int W = L::W;
    static constexpr int kTile = L::kMaxRows * L::kVectors > L::kWideRows* L::kWideVectors
                                     ? L::kMaxRows* L::kVectors
                                     : L::kWideRows* L::kWideVectors;
    // b unpacked: as it is, or halves converted by the load.
    static constexpr bool kDirect = L::group == 1;
    // What microkernels write: f16 leaves its rounding to the epilogue, and so shares f32's kernels for packed panels.
    static constexpr bool kFinishes = !__is_same(S, f16);
    using Out = Select<kFinishes, S, Acc>;
    static constexpr int kDirectRows = sizeof(S) == sizeof(Unit) ? L::kMaxRows : L::kMaxRows < 8 ? L::kMaxRows : 8;

    static NK_INLINE int64_t units(int64_t k) { return (k + L::group - 1) / L::group; }

    struct Panel {
        const char* a;
        int64_t row, step;  // bytes
    };

    // a[i .. i + rows, p .. p + k] as the microkernel can read it.
    static NK_INLINE Panel panel_of_a(const cpu::MatmulTask& t, int64_t i, int64_t p, int64_t rows, int64_t k) {
        const S* s = at<S>(t.a, i, p);
        if (!t.pack_a) {  // a unit is then one element, or two adjacent ones
            return {reinterpret_cast<const char*>(s), t.a.row * int64_t(sizeof(S)),
                    t.a.col * int64_t(sizeof(S)) * L::group};
        }
        Unit* d = reinterpret_cast<Unit*>(t.work + t.work_a);
        if (t.a.row == 1 && t.a.col != 1) {
            const int64_t ld = (rows + W - 1) / W * W;
            pack_panel<L>(d, ld, s, 1, t.a.col, rows, k);
            return {reinterpret_cast<const char*>(d), int64_t(sizeof(Unit)), ld * int64_t(sizeof(Unit))};
        }
        const int64_t ld = cpu::packed_row(units(t.kc), sizeof(Unit));
        pack_rows<L>(d, ld, s, t.a.row, t.a.col, rows, k);
        return {reinterpret_cast<const char*>(d), ld * int64_t(sizeof(Unit)), int64_t(sizeof(Unit))};
    }

    static void run(const cpu::MatmulTask& t) {
        // Sums can go straight to an output that is of their type and contiguous along n.
        const bool in_out = (t.sums_only || sizeof(S) == sizeof(Acc)) && (t.out.col == 1 || t.n == 1);
        for (int64_t jc = 0; jc < t.n; jc += t.nc) {
            const Strip strip{jc, t.n - jc < t.nc ? t.n - jc : t.nc, int64_t(t.nv) * W};
            if (t.pack_b && !by_blocks(t)) pack_b(t, strip, 0, t.k);
            for (int64_t ic = 0; ic < t.m; ic += t.mc) {
                const int64_t mc = t.m - ic < t.mc ? t.m - ic : t.mc;
                Sums sums{reinterpret_cast<Acc*>(t.work + t.work_acc), round_up(strip.n)};
                if (in_out) {
                    sums.data = static_cast<Acc*>(const_cast<void*>(t.out.data)) + ic * t.out.row + jc;
                    sums.ld = t.out.row;
                }
                for (int64_t pc = 0; pc < t.k || pc == 0; pc += t.kc) {
                    const int64_t kc = t.k - pc < t.kc ? t.k - pc : t.kc;
                    if (t.pack_b && by_blocks(t)) pack_b(t, strip, pc, kc);
                    rows(t, strip, ic, mc, pc, kc, sums);
                }
            }
        }
    }

    static NK_INLINE int64_t round_up(int64_t n) { return (n + W - 1) / W * W; }

    struct Strip {
        int64_t j, n, nr;  // first column, columns, columns of a panel
    };
    struct Sums {
        Acc* data;  // of the rows and columns at hand
        int64_t ld;
    };

    // Few enough rows for one pass over b: each block is packed right before its use.
    static NK_INLINE bool by_blocks(const cpu::MatmulTask& t) { return t.m <= t.mc; }

    static NK_INLINE Unit* packed_b(const cpu::MatmulTask& t, const Strip& strip, int64_t pc) {
        return reinterpret_cast<Unit*>(t.work) + (by_blocks(t) ? 0 : units(pc) * round_up(strip.n));
    }

    // k steps from p, in the order in which they lie: all columns of a few rows before the next rows where rows are
    // contiguous; else a panel for all of k before the next one, so that its columns are read as a few long streams.
    static constexpr int64_t kRowsAtOnce = 16;  // divides kc (csrc/matmul/plan_cpu.cpp)
    static NK_INLINE void pack_b(const cpu::MatmulTask& t, const Strip& strip, int64_t p, int64_t k) {
        const bool across = t.b.col == 1 && strip.n > strip.nr;
        const int64_t most = across ? kRowsAtOnce : t.kc;
        auto block = [&](int64_t j, int64_t from, int64_t to) NK_LAMBDA_INLINE {
            const int64_t width = strip.n - j < strip.nr ? strip.n - j : strip.nr;
            for (int64_t q = from; q < to; q += most) {
                const int64_t pc = q / t.kc * t.kc, kc = t.k - pc < t.kc ? t.k - pc : t.kc;
                Unit* d = packed_b(t, strip, pc) + j * units(kc) + units(q - pc) * round_up(width);
                pack_panel<L>(d, round_up(width), at<S>(t.b, q, strip.j + j), t.b.col, t.b.row, width,
                              to - q < most ? to - q : most);
            }
        };
        if (!across) {
            for (int64_t j = 0; j < strip.n; j += strip.nr) block(j, p, p + k);
            return;
        }
        for (int64_t q = p; q < p + k; q += most) {
            const int64_t end = p + k - q < most ? p + k : q + most;
            for (int64_t r = end; r < end + most && r < p + k; ++r)
                for (int64_t j = 0; j < strip.n; j += 64 / int64_t(sizeof(S)))
                    __builtin_prefetch(at<S>(t.b, r, strip.j + j), 0, 2);
            for (int64_t j = 0; j < strip.n; j += strip.nr) block(j, q, end);
        }
    }

    // The next panel of a, a share of it at each panel of b: its rows (or steps) lie too far apart for the
    // hardware to see.
    static NK_INLINE void prefetch_a(const cpu::MatmulTask& t, int64_t i, int64_t end, int64_t p, int64_t kc,
                                     int64_t share, int64_t shares) {
        if (t.a.col == 1)
            for (int64_t r = i + share; r < end; r += shares)
                for (int64_t k = 0; k < kc; k += 64 / int64_t(sizeof(S)))
                    __builtin_prefetch(at<S>(t.a, r, p + k), 0, 2);
        else if (t.a.row == 1)  // the line that the panel before ended in is there already
            for (int64_t k = share; k < kc; k += shares)
                for (int64_t r = end - 1; r >= i; r -= 64 / int64_t(sizeof(S)))
                    __builtin_prefetch(at<S>(t.a, r, p + k), 0, 2);
    }

    // The b of the batch's next matrix, a share of it at each panel of a.
    static NK_INLINE void prefetch_next(const cpu::MatmulTask& t, int64_t share, int64_t shares) {
        const bool along_k = t.b.row == 1;
        if (!along_k && t.b.col != 1) return;
        const int64_t lines = along_k ? t.n : t.k, length = along_k ? t.k : t.n, apart = along_k ? t.b.col : t.b.row;
        for (int64_t l = lines * share / shares; l < lines * (share + 1) / shares; ++l)
            for (int64_t i = 0; i < length; i += 64 / int64_t(sizeof(S)))
                __builtin_prefetch(static_cast<const S*>(t.next_b) + l * apart + i, 0, 2);
    }

    // The next panels of b where it is read as it lies: its rows are pages apart, so nothing but this sees them coming.
    static constexpr int kPanelsAhead = 4;
    static NK_INLINE void prefetch_b(const cpu::MatmulTask& t, const Strip& strip, int64_t p, int64_t kc, int64_t j) {
        const int64_t columns = kPanelsAhead * strip.nr, n = strip.n - j < columns ? strip.n - j : columns;
        for (int64_t k = 0; n > 0 && k < kc; ++k) {
            const S* row = at<S>(t.b, p + k, strip.j + j);
            for (int64_t c = 0; c < n; c += 64 / int64_t(sizeof(S))) __builtin_prefetch(row + c, 0, 2);
        }
    }

    // What the epilogue writes or reads besides the output: it arrives while the microkernel makes the sums.
    static NK_INLINE void prefetch_beside(const cpu::MatmulTask& t, int64_t i, int64_t j, int rows, int width) {
        const cpu::MatmulEpilogue& e = t.epilogue;
        for (int r = 0; e.preact.data && e.preact.col == 1 && r < rows; ++r)
            for (int c = 0; c < width; c += 64 / int(sizeof(S)))
                __builtin_prefetch(at<S>(e.preact, i + r, j + c), 1, 3);
        for (int r = 0; e.residual.data && e.residual.col == 1 && r < rows; ++r)
            for (int c = 0; c < width; c += 64 / int(sizeof(S)))
                __builtin_prefetch(at<S>(e.residual, i + r, j + c), 0, 3);
    }

    // The microkernel itself can do what follows the sums: bias and rounding, all rows contiguous.
    static NK_INLINE bool is_simple(const cpu::MatmulTask& t) {
        const cpu::MatmulEpilogue& e = t.epilogue;
        const bool bias = !e.bias.data || (e.bias.row == 0 && (e.bias.col == 1 || t.n == 1));
        return bias && e.alpha == 1 && !e.residual.data && !e.preact.data && !e.activate &&
               (t.out.col == 1 || t.n == 1);
    }
    static NK_INLINE void to_output(const cpu::MatmulTask& t, int64_t i, int64_t j, MicroArgs<Acc>& g) {
        const cpu::MatmulEpilogue& e = t.epilogue;
        g.out = at<S>(t.out, i, j), g.out_ld = t.out.row;
        if (e.bias.data) g.column_bias = at<S>(e.bias, 0, j);
    }

    static NK_INLINE void rows(const cpu::MatmulTask& t, const Strip& strip, int64_t ic, int64_t mc, int64_t pc,
                               int64_t kc, const Sums& sums) {
        alignas(64) Acc tile[kTile * W];
        const bool first = pc == 0, finish = pc + kc >= t.k && !t.sums_only;
        const bool in_registers = kFinishes && finish && is_simple(t);
        const int64_t panels = (mc + t.mr - 1) / t.mr;  // of nearly equal height
        const int64_t shares = (strip.n + strip.nr - 1) / strip.nr, group = kPanelsAhead * strip.nr;
        const bool far = !t.pack_b && t.kc > cpu::kMatmulStreams && t.b.row * int64_t(sizeof(S)) >= 4096 &&
                         t.k * strip.n * sizeof(S) > 1 << 20;
        for (int64_t ip = 0; ip < panels; ++ip) {
            const int64_t i = mc * ip / panels;
            const int mr = int(mc * (ip + 1) / panels - i);
            const Panel a = panel_of_a(t, ic + i, pc, mr, kc);
            const int64_t next = mc * (ip + 2) / panels;  // where the panel after this one ends
            const bool prefetch = ip + 1 < panels;
            MicroArgs<Acc> g{};
            g.a = a.a, g.a_row = a.row, g.a_step = a.step, g.k = units(kc);
            g.init_ld = g.c_ld = sums.ld;
            if (finish && t.next_b && mc == t.m && strip.j + strip.n == t.n) prefetch_next(t, ip, panels);
            for (int64_t j = 0; j < strip.n; j += strip.nr) {
                const int width = int(strip.n - j < strip.nr ? strip.n - j : strip.nr);
                const int vectors = (width + W - 1) / W;
                Acc* c = sums.data + i * sums.ld + j;
                g.c = c, g.n = width;
                if (!first) g.init = c;
                g.target = c, g.target_row = sums.ld * int64_t(sizeof(Acc));
                if (far && ip == 0 && j % group == 0) prefetch_b(t, strip, pc, kc, j == 0 ? 0 : j + group);
                if (far && ip == 0 && j == 0) prefetch_b(t, strip, pc, kc, group);
                if (prefetch) prefetch_a(t, ic + i + mr, ic + next, pc, kc, j / strip.nr, shares);
                if (finish) {
                    g.target = at<S>(t.out, ic + i, strip.j + j), g.target_row = t.out.row * int64_t(sizeof(S));
                    if (in_registers)
                        to_output(t, ic + i, strip.j + j, g);
                    else
                        g.c = tile, g.c_ld = vectors * W, prefetch_beside(t, ic + i, strip.j + j, mr, width);
                }
                if (t.pack_b) {
                    g.b = reinterpret_cast<const char*>(packed_b(t, strip, pc) + j * units(kc));
                    g.b_step = int64_t(vectors) * W * int64_t(sizeof(Unit));
                    pick_micro<L, Unit, Out, L::kMaxRows>(mr, vectors)(g);
                } else if constexpr (kDirect) {
                    g.b = reinterpret_cast<const char*>(at<S>(t.b, pc, strip.j + j));
                    g.b_step = t.b.row * int64_t(sizeof(S));
                    pick_micro<L, S, Out, kDirectRows>(mr, vectors)(g);
                }
                if (finish && !in_registers) epilogue<L, S>(t, tile, vectors * W, ic + i, strip.j + j, mr, width);
            }
        }
    }
};

}  // namespace nk::NK_ISA
