// The weight gradient, for one thread's rows of the weight (channel and tap): sums over all positions.
//
//   for q: positions, `block` at a time         g packed once: [block, o], second cache
//     for m: some rows of the source              gathered: first cache
//       for i: rows, mr at a time
//         for j: panels of nr columns of g          microkernel, onto sums[m, o]
#pragma once

#include "product.h"

namespace nk::NK_ISA {

template <class L, class S>
struct ConvWeight {
    using Unit = typename L::Unit;
    using Acc = typename L::Acc;
    static constexpr int W = L::W;
    static constexpr bool kIsUnit = L::group == 1 && sizeof(S) == sizeof(Unit);
    static constexpr int64_t kRows = cpu::kConvRows;

    static NK_INLINE int64_t units(int64_t k) { return (k + L::group - 1) / L::group; }
    static NK_INLINE int64_t round_up(int64_t n) { return (n + W - 1) / W * W; }

    static void run(const cpu::ConvWeightTask& t) {
        auto* segments = reinterpret_cast<cpu::ConvSegment*>(t.work + t.work_segments);
        const int64_t positions = t.images * t.source.positions(), ld = round_up(t.o);
        Acc* const sums = reinterpret_cast<Acc*>(t.work + t.work_sums);
        if (positions == 0)
            for (int64_t i = 0; i < (t.m1 - t.m0) * ld; i += W) L::store(sums + i, L::zero());
        for (int64_t q = 0; q < positions; q += t.block) {
            const int64_t n = positions - q < t.block ? positions - q : t.block;
            const int count = cut_into_rows(t.source, q, n, segments);
            pack_g(t, segments, count, n);
            for (int64_t m = t.m0; m < t.m1;) m = rows(t, segments, count, n, m, q == 0, sums, ld);
        }
        const int64_t taps = t.source.taps();
        for (int64_t m = t.m0; m < t.m1; ++m) {
            const int64_t c = t.channels_last ? m % t.source.channels : m / taps;
            const int64_t tap = t.channels_last ? m / t.source.channels : m % taps;
            S* to = static_cast<S*>(t.gw) + c * t.gw_channel + t.gw_tap[tap];
            const Acc* from = sums + (m - t.m0) * ld;
            for (int64_t o = 0; o < t.o; ++o) put_number(to[o * t.gw_row], from[o]);
        }
    }

    // Panels [units of positions][nr].
    static NK_INLINE void pack_g(const cpu::ConvWeightTask& t, const cpu::ConvSegment* segments, int count, int64_t n) {
        const int64_t nr = int64_t(t.nv) * W;
        S* scratch = reinterpret_cast<S*>(t.work + t.work_scratch);
        for (int64_t j = 0; j < t.o; j += nr) {
            const int64_t width = t.o - j < nr ? t.o - j : nr;
            Unit* to = reinterpret_cast<Unit*>(t.work) + units(t.block) * j;
            if (t.g.channel == 1) {
                gather_rows<S>(t.g, segments, count, j, j + width, scratch, nr, width);
                pack_panel<L>(to, round_up(width), scratch, 1, nr, width, n);
            } else {
                gather_columns<S>(t.g, segments, count, j, j + width, scratch, t.block);
                pack_panel<L>(to, round_up(width), scratch, t.block, 1, width, n);
            }
        }
    }

    // Some rows from m on; returns the next.
    static NK_INLINE int64_t rows(const cpu::ConvWeightTask& t, const cpu::ConvSegment* segments, int count, int64_t n,
                                  int64_t m, bool first, Acc* sums, int64_t ld) {
        const int64_t nr = int64_t(t.nv) * W, taps = t.source.taps();
        S* scratch = reinterpret_cast<S*>(t.work + t.work_scratch);
        Unit* packed = reinterpret_cast<Unit*>(t.work + t.work_packed);
        MicroArgs<Acc> g{};
        int64_t end, from;  // rows [from, end) are gathered
        if (t.channels_last) {
            const int64_t most = kRows / t.mr * t.mr, ld_s = kRows;
            from = m, end = m + most < t.m1 ? m + most : t.m1;
            if constexpr (kIsUnit) {
                gather_rows<S>(t.source, segments, count, from, end, reinterpret_cast<S*>(packed), ld_s, end - from);
                g.a_step = ld_s * int64_t(sizeof(Unit));
            } else {
                const int64_t ld_u = round_up(end - from);
                gather_rows<S>(t.source, segments, count, from, end, scratch, ld_s, end - from);
                pack_panel<L>(packed, ld_u, scratch, 1, ld_s, end - from, n);
                g.a_step = ld_u * int64_t(sizeof(Unit));
            }
            g.a_row = sizeof(Unit);
        } else {
            const int64_t most = kRows / taps > 1 ? kRows / taps : 1, c0 = m / taps;
            const int64_t c1 = c0 + most < (t.m1 + taps - 1) / taps ? c0 + most : (t.m1 + taps - 1) / taps;
            from = c0 * taps, end = c1 * taps < t.m1 ? c1 * taps : t.m1;
            const int64_t ld_u = cpu::packed_row(units(t.block), sizeof(Unit));
            if constexpr (kIsUnit || L::group == 2) {
                const int64_t ld_s = ld_u * int64_t(sizeof(Unit) / sizeof(S));
                gather_columns<S>(t.source, segments, count, c0, c1, reinterpret_cast<S*>(packed), ld_s);
                if (L::group == 2 && n % 2)
                    for (int64_t i = 0; i < (c1 - c0) * taps; ++i) reinterpret_cast<S*>(packed)[i * ld_s + n] = S{};
            } else {
                gather_columns<S>(t.source, segments, count, c0, c1, scratch, t.block);
                pack_rows<L>(packed, ld_u, scratch, t.block, 1, (c1 - c0) * taps, n);
            }
            g.a_row = ld_u * int64_t(sizeof(Unit)), g.a_step = sizeof(Unit);
        }
        const int64_t count_m = end - m, panels = (count_m + t.mr - 1) / t.mr;
        g.k = units(n), g.init_ld = g.c_ld = ld, g.target_row = ld * int64_t(sizeof(Acc));
        for (int64_t ip = 0; ip < panels; ++ip) {
            const int64_t i = m + count_m * ip / panels;
            const int mr = int(m + count_m * (ip + 1) / panels - i);
            g.a = reinterpret_cast<const char*>(packed) + (i - from) * g.a_row;
            for (int64_t j = 0; j < t.o; j += nr) {
                const int64_t width = t.o - j < nr ? t.o - j : nr, vectors = (width + W - 1) / W;
                g.b = reinterpret_cast<const char*>(reinterpret_cast<const Unit*>(t.work) + units(t.block) * j);
                g.b_step = vectors * W * int64_t(sizeof(Unit));
                g.c = sums + (i - t.m0) * ld + j, g.n = int(vectors * W);
                g.init = first ? nullptr : g.c, g.target = g.c;
                ConvProduct<L, S>::template pick<typename ConvProduct<L, S>::Out>(mr, int(vectors))(g);
            }
        }
        return end;
    }
};

// Sums of channels [c0, c1): rows add up by themselves first, then images, so that long sums round less.
template <class L, class S>
void channel_sums(const cpu::ConvSumTask& t) {
    using Acc = typename L::Acc;
    constexpr int W = L::W;
    const int64_t depth = t.pixels[0], height = t.pixels[1], width = t.pixels[2];
    const auto each_row = [&](auto&& f) NK_LAMBDA_INLINE {
        for (int64_t n = 0; n < t.images; ++n)
            for (int64_t d = 0; d < depth; ++d)
                for (int64_t h = 0; h < height; ++h)
                    f(static_cast<const S*>(t.g.data) + n * t.g.image + d * t.g.axis[0] + h * t.g.axis[1]);
    };
    if (t.g.channel == 1) {
        constexpr int kAtOnce = 8;  // vectors of channels: memory is read in runs
        for (int64_t c = t.c0; c < t.c1; c += kAtOnce * W) {
            typename L::AccReg sum[kAtOnce];
            typename L::Mask m[kAtOnce];
            for (int v = 0; v < kAtOnce; ++v) sum[v] = L::zero(), m[v] = L::mask(t.c1 - c - v * W);
            each_row([&](const S* row) NK_LAMBDA_INLINE {
                typename L::AccReg some[kAtOnce];
                unroll<kAtOnce>([&](auto v) { some[v] = L::zero(); });
                for (int64_t w = 0; w < width; ++w)
                    unroll<kAtOnce>([&](auto v) {
                        some[v] = L::add(some[v], NK_ISA::load(row + c + v * W + w * t.g.axis[2], m[v]));
                    });
                unroll<kAtOnce>([&](auto v) { sum[v] = L::add(sum[v], some[v]); });
            });
            for (int v = 0; v < kAtOnce; ++v) {
                Acc made[W];
                L::store(made, sum[v]);
                for (int64_t i = 0; i < W && c + v * W + i < t.c1; ++i)
                    put_number(static_cast<S*>(t.sums)[(c + v * W + i) * t.step], made[i]);
            }
        }
        return;
    }
    for (int64_t c = t.c0; c < t.c1; ++c) {
        Acc sum = 0;
        each_row([&](const S* row) NK_LAMBDA_INLINE {
            row += c * t.g.channel;
            typename L::AccReg some = L::zero();
            int64_t w = 0;
            if (t.g.axis[2] == 1) {
                for (; w + W <= width; w += W) some = L::add(some, NK_ISA::load(row + w));
                if (w < width) some = L::add(some, NK_ISA::load(row + w, typename L::Mask(width - w)));
                sum += reduce_add(some);
                return;
            }
            Acc rest = 0;
            for (; w < width; ++w) rest += to_number(row[w * t.g.axis[2]]);
            sum += rest;
        });
        put_number(static_cast<S*>(t.sums)[c * t.step], sum);
    }
}

// A padded image's gradient added up to that of the image, in an order that is always the same.
template <class L, class S>
void fold_padding(const cpu::ConvFoldTask& t) {
    using Acc = typename L::Acc;
    Acc* const sums = reinterpret_cast<Acc*>(t.work);
    const int64_t height = t.pixels[1], width = t.pixels[2], pixels = t.pixels[0] * height * width;
    for (int64_t c = t.c0; c < t.c1; ++c) {
        const Acc bias = t.bias ? Acc(to_number(static_cast<const S*>(t.bias)[c * t.bias_step])) : Acc(0);
        for (int64_t i = 0; i < pixels; ++i) sums[i] = bias;
        const S* from = static_cast<const S*>(t.padded) + c * t.places[0] * t.places[1] * t.places[2];
        for (int64_t d = 0; d < t.places[0]; ++d)
            for (int64_t h = 0; h < t.places[1]; ++h, from += t.places[2]) {
                Acc* row = sums + (t.pixel[0][d] * height + t.pixel[1][h]) * width;
                for (int64_t w = 0; w < t.places[2]; ++w) row[t.pixel[2][w]] += to_number(from[w]);
            }
        S* to = static_cast<S*>(t.out.data) + c * t.out.channel;
        for (int64_t i = 0; i < pixels; ++i)
            put_number(
                to[i / width / height * t.out.axis[0] + i / width % height * t.out.axis[1] + i % width * t.out.axis[2]],
                sums[i]);
    }
}

}  // namespace nk::NK_ISA
