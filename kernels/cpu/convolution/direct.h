// Few channels: windows are read where they lie, from rows of the image that are copied once, with their padding and
// with the channels innermost. A row of a window is one run of memory.
//
//   for rows of the result, `block` at a time   their rows of the image: first and second cache
//     for j: channels, panels of nr               weight[k, nr]
//       for i: positions of a row, mr at a time
//         microkernel                               the rows of the windows, one after the other
#pragma once

#include "product.h"

namespace nk::NK_ISA {

// What the rows of a window are: so many runs, of whole units and perhaps a half one, `next` bytes from the end of each
// to the next.
struct MicroRuns {
    int64_t count, units;
    bool half;
    const int64_t* next;
};

template <class L, class SB, class S, int MR, int NV>
void micro_of_runs(const MicroArgs<typename L::Acc>& g, const MicroRuns& r) {
    micro_along<L, SB, S, MR, NV>(g, [&](auto&& step, auto&& move) NK_LAMBDA_INLINE {
        for (int64_t i = 0; i < r.count; ++i) {
            for (int64_t k = r.units; k > 0; --k) step([](const char* p) NK_LAMBDA_INLINE { return L::broadcast(p); });
            if constexpr (L::group == 2)
                if (r.half) step([](const char* p) NK_LAMBDA_INLINE { return L::broadcast_half(p); });
            move(r.next[i]);
        }
    });
}

template <class L, class SB, class S>
struct MicroOfRuns {
    using Pointer = void (*)(const MicroArgs<typename L::Acc>&, const MicroRuns&);
    template <int MR, int NV>
    static constexpr Pointer get() {
        return &micro_of_runs<L, SB, S, MR, NV>;
    }
};

template <class L, class S>
struct ConvDirect {
    using P = ConvProduct<L, S>;
    using Unit = typename L::Unit;
    using Acc = typename L::Acc;
    static constexpr int W = L::W;

    static void run(const cpu::ConvTask& t) {
        const int64_t width = t.source.axis[2].positions, height = t.source.axis[1].positions;
        const int64_t depth = t.source.axis[0].positions;
        const int runs = runs_of_a_row(t);
        for (int64_t r = t.q0 / width; r < t.q1 / width;) {
            const int64_t h = r % height, end = height - h < t.q1 / width - r ? height - h : t.q1 / width - r;
            const int64_t n = end < t.block / width ? end : t.block / width;
            copy_rows(t, runs, r / height / depth, r / height % depth, h, n);
            multiply(t, r, n);
            r += n;
        }
    }

    // A row of the image, padded: [place][channel].
    static NK_INLINE int64_t row_elements(const cpu::ConvTask& t) { return t.place[2].count * t.source.channels; }
    static NK_INLINE int64_t rows_at_once(const cpu::ConvTask& t) {
        return (t.block / t.source.axis[2].positions - 1) * t.place[1].step +
               (t.source.axis[1].taps - 1) * t.place[1].dilation + 1;
    }

    // Places that read pixels side by side, or zeros: the same for each row.
    static NK_INLINE int runs_of_a_row(const cpu::ConvTask& t) {
        auto* to = reinterpret_cast<cpu::ConvSegment*>(t.work + t.work_segments);
        const cpu::ConvPlaces& w = t.place[2];
        int count = 0;
        for (int64_t u = 0; u < w.count;) {
            const int32_t pixel = w.pixel[u];
            int32_t n = 1;
            while (u + n < w.count && w.pixel[u + n] == (pixel < 0 ? -1 : pixel + n)) ++n;
            to[count++] = {int32_t(u), n, {0, 0, pixel}, 0};
            u += n;
        }
        return count;
    }

    static NK_INLINE void copy_rows(const cpu::ConvTask& t, int runs, int64_t image, int64_t d, int64_t h, int64_t n) {
        const auto* run = reinterpret_cast<const cpu::ConvSegment*>(t.work + t.work_segments);
        const int64_t c = t.source.channels, ld = row_elements(t), rows = rows_at_once(t);
        const int64_t used = rows - (t.block / t.source.axis[2].positions - n) * t.place[1].step;
        for (int64_t a = 0; a < t.source.axis[0].taps; ++a) {
            const int64_t plane = t.place[0].pixel[d * t.place[0].step + a * t.place[0].dilation];
            for (int64_t u = 0; u < used; ++u) {
                const int64_t row = t.place[1].pixel[h * t.place[1].step + u];
                S* const to = reinterpret_cast<S*>(t.work) + (a * rows + u) * ld;
                const S* const from = static_cast<const S*>(t.source.data) + image * t.source.image +
                                      plane * t.source.axis[0].stride + row * t.source.axis[1].stride;
                for (int i = 0; i < runs; ++i) {
                    const int64_t length = run[i].length, pixel = run[i].at[2];
                    S* const d = to + run[i].column * c;
                    if (plane < 0 || row < 0 || pixel < 0)
                        clear_run(d, length * c);
                    else if (t.source.channel == 1 && t.source.axis[2].stride == c)
                        copy_run(d, from + pixel * c, length * c);
                    else
                        interleave(t, d, from + pixel * t.source.axis[2].stride, length);
                }
            }
        }
    }
    static NK_INLINE void interleave(const cpu::ConvTask& t, S* d, const S* from, int64_t length) {
        const int64_t c = t.source.channels, step = t.source.axis[2].stride;
        if (c == 3 && step == 1) {
            const S *b = from + t.source.channel, *e = b + t.source.channel;
            for (int64_t i = 0; i < length; ++i, d += 3) d[0] = from[i], d[1] = b[i], d[2] = e[i];
            return;
        }
        for (int64_t k = 0; k < c; ++k, from += t.source.channel)
            for (int64_t i = 0; i < length; ++i) d[i * c + k] = from[i * step];
    }

    static NK_INLINE void multiply(const cpu::ConvTask& t, int64_t first_row, int64_t n) {
        const int64_t nr = int64_t(t.nv) * W, width = t.source.axis[2].positions, c = t.source.channels;
        const int64_t ld = row_elements(t), rows = rows_at_once(t), run = t.source.axis[2].taps * c;
        const int64_t count = t.source.axis[0].taps * t.source.axis[1].taps, channels = t.r1 - t.r0;
        const int64_t k = count * P::units(run);  // in units
        int64_t next[cpu::kDirectRuns];
        for (int64_t i = 0, at = 0; i < count; ++i) {
            const int64_t then = (i + 1) / t.source.axis[1].taps * rows * ld +
                                 (i + 1) % t.source.axis[1].taps * t.place[1].dilation * ld;
            next[i] = (then - at) * int64_t(sizeof(S)) - P::units(run) * int64_t(sizeof(Unit));
            at = then;
        }
        const MicroRuns runs{count, run / L::group, run % L::group != 0, next};
        const bool plain = !t.activate && !t.preact.data && !t.residual.data && t.out.channel == 1;
        Acc* const sums = reinterpret_cast<Acc*>(t.work + t.work_sums);
        const int64_t panels = (width + t.mr - 1) / t.mr;
        alignas(64) Acc biases[P::kVectorsMost * W] = {};
        MicroArgs<Acc> g{};
        g.a_row = t.place[2].step * c * int64_t(sizeof(S)), g.a_step = sizeof(Unit);
        for (int64_t j = 0; j < channels; j += nr) {
            const int64_t some = channels - j < nr ? channels - j : nr, vectors = (some + W - 1) / W, to = vectors * W;
            for (int64_t i = 0; t.bias && i < some; ++i) biases[i] = P::bias_of(t, t.r0 + j + i);
            g.b = reinterpret_cast<const char*>(P::weight(t) + (t.r0 + j) * k), g.b_step = to * int64_t(sizeof(Unit));
            g.init = t.bias ? biases : nullptr;
            g.n = int(some), g.c = sums, g.c_ld = to;
            Acc* const across = sums + t.mr * nr;  // [channel][kDirectAcross] where channels lie apart
            int64_t held = 0;
            for (int64_t row = 0; row < n; ++row)
                for (int64_t ip = 0; ip < panels; ++ip) {
                    const int64_t i = width * ip / panels, mr = width * (ip + 1) / panels - i;
                    const int64_t q = (first_row + row) * width + i, all = t.source.positions();
                    g.a = t.work + (row * t.place[1].step * ld + i * t.place[2].step * c) * int64_t(sizeof(S));
                    g.out = nullptr, g.target = g.c, g.target_row = to * int64_t(sizeof(Acc));
                    if (plain) {
                        g.out = P::at(t, t.out, q / all, q % all, t.r0 + j), g.out_ld = t.out.axis[2];
                        g.target = g.out, g.target_row = g.out_ld * int64_t(sizeof(S));
                    }
                    pick_by_size<MicroOfRuns<L, Unit, S>, L, L::kMaxRows>(int(mr), int(vectors))(g, runs);
                    if (plain) continue;
                    if (t.out.channel == 1) {
                        P::template finish<true>(t, sums, to, q, mr, t.r0 + j, some);
                    } else {
                        turn(sums, to, mr, some, across + held);
                        held += mr;
                        if (ip + 1 < panels && held + t.mr <= cpu::kDirectAcross - W) continue;
                        P::template finish<false>(t, across, cpu::kDirectAcross, q + mr - held, held, t.r0 + j, some);
                        held = 0;
                    }
                }
        }
    }

    // sums[position][ld] of `mr` positions -> across[channel][kDirectAcross]; W positions are written.
    static NK_INLINE void turn(const Acc* sums, int64_t ld, int64_t mr, int64_t channels, Acc* across) {
        using A = Lanes<Acc>;
        if constexpr (Transposes<A>) {
            for (int64_t c = 0; c < channels; c += W) {
                typename A::Raw r[W] = {};
                for (int64_t i = 0; i < mr; ++i) r[i] = A::raw(A::load(sums + i * ld + c));
                transpose_in_place<A>(r);
                for (int64_t i = 0; i < W && c + i < channels; ++i)
                    A::store(across + (c + i) * cpu::kDirectAcross, typename A::AccReg(r[i]));
            }
        } else {
            for (int64_t c = 0; c < channels; ++c)
                for (int64_t i = 0; i < mr; ++i) across[c * cpu::kDirectAcross + i] = sums[i * ld + c];
        }
    }
};

}  // namespace nk::NK_ISA
