// The loops around the microkernel, for one thread's rectangle.
//
//   for jc: columns nc wide                       sums of this strip stay in out or in `work`
//     for pc: k in blocks of kc                   b[kc, nc] packed once: second cache
//       for ir: rows of a, mr at a time           a[mr, kc] packed: first cache
//         for jr: panels of b, nv vectors wide    sums in registers
#pragma once

#include "entries.h"
#include "epilogue.h"
#include "micro.h"
#include "pack.h"

namespace nk::NK_ISA {

template <class L, class S>
struct Block {
    using Unit = typename L::Unit;
    using Acc = typename L::Acc;
    static constexpr int W = L::W;
    static constexpr int kTile = L::kMaxRows * L::kVectors > L::kWideRows * L::kWideVectors
                                     ? L::kMaxRows * L::kVectors
                                     : L::kWideRows * L::kWideVectors;
    // b unpacked: as it is, or halves converted by the load.
    static constexpr bool kDirect = L::group == 1;
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
        const int64_t ld = cpu::matmul_row_units(units(t.kc), sizeof(Unit));
        pack_rows<L>(d, ld, s, t.a.row, t.a.col, rows, k);
        return {reinterpret_cast<const char*>(d), ld * int64_t(sizeof(Unit)), int64_t(sizeof(Unit))};
    }

    static void run(const cpu::MatmulTask& t) {
        const bool plain = t.sums_only || is_plain(t.epilogue);
        // Sums can go straight to an output that is of their type and contiguous along n.
        const bool in_out = (t.sums_only || sizeof(S) == sizeof(Acc)) && (t.out.col == 1 || t.n == 1);
        const int64_t nr = int64_t(t.nv) * W;
        for (int64_t jc = 0; jc < t.n; jc += t.nc) {
            const int64_t nc = t.n - jc < t.nc ? t.n - jc : t.nc;
            Acc* sums = in_out ? static_cast<Acc*>(const_cast<void*>(t.out.data)) + jc
                               : reinterpret_cast<Acc*>(t.work + t.work_acc);
            const int64_t sums_ld = in_out ? t.out.row : (nc + W - 1) / W * W;
            for (int64_t pc = 0; pc < t.k || pc == 0; pc += t.kc) {
                const int64_t kc = t.k - pc < t.kc ? t.k - pc : t.kc;
                const bool first = pc == 0, last = pc + kc >= t.k;
                if (t.pack_b) pack_b(t, pc, jc, kc, nc, nr);
                rows(t, pc, jc, kc, nc, nr, first, last, plain && in_out, sums, sums_ld);
            }
        }
    }

    static NK_INLINE void pack_b(const cpu::MatmulTask& t, int64_t pc, int64_t jc, int64_t kc, int64_t nc, int64_t nr) {
        Unit* d = reinterpret_cast<Unit*>(t.work);
        for (int64_t j = 0; j < nc; j += nr) {
            const int64_t width = nc - j < nr ? nc - j : nr;
            pack_panel<L>(d + j * units(kc), (width + W - 1) / W * W, at<S>(t.b, pc, jc + j), t.b.col, t.b.row, width,
                          kc);
        }
    }

    static NK_INLINE void rows(const cpu::MatmulTask& t, int64_t pc, int64_t jc, int64_t kc, int64_t nc, int64_t nr,
                               bool first, bool last, bool straight, Acc* sums, int64_t sums_ld) {
        alignas(64) Acc tile[kTile * W];
        const int64_t panels = (t.m + t.mr - 1) / t.mr;  // of nearly equal height
        for (int64_t ip = 0; ip < panels; ++ip) {
            const int64_t i = t.m * ip / panels;
            const int mr = int(t.m * (ip + 1) / panels - i);
            const Panel a = panel_of_a(t, i, pc, mr, kc);
            for (int64_t j = 0; j < nc; j += nr) {
                const int width = int(nc - j < nr ? nc - j : nr);
                const int vectors = (width + W - 1) / W;
                MicroArgs<Acc> g{a.a, nullptr, a.row, a.step, 0, units(kc), nullptr, sums_ld, nullptr, sums_ld, width};
                Acc* c = sums + i * sums_ld + j;
                g.init = first ? nullptr : c;
                g.c = c;
                if (last && !straight) {
                    g.c = tile;
                    g.c_ld = vectors * W;
                }
                if (t.pack_b) {
                    g.b = t.work + j * units(kc) * int64_t(sizeof(Unit));
                    g.b_step = int64_t(vectors) * W * int64_t(sizeof(Unit));
                    pick_micro<L, Unit, L::kMaxRows>(mr, vectors)(g);
                } else if constexpr (kDirect) {
                    g.b = reinterpret_cast<const char*>(at<S>(t.b, pc, jc + j));
                    g.b_step = t.b.row * int64_t(sizeof(S));
                    pick_micro<L, S, kDirectRows>(mr, vectors)(g);
                }
                if (last && !straight) epilogue<L, S>(t, tile, vectors * W, i, jc + j, mr, width);
            }
        }
    }
};

}  // namespace nk::NK_ISA
