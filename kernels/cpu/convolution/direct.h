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
        const int64_t end = t.q1 / width, most = t.block / width;
        for (int64_t r = t.q0 / width; r < end;) {
            int64_t n = 0;  // rows of an image, or all those of several
            do {
                const int64_t at = r + n, h = at % height;
                int64_t some = height - h < end - at ? height - h : end - at;
                some = some < most - n ? some : most - n;
                copy_rows(t, runs, n / height, at / height / depth, at / height % depth, h, some);
                n += some;
            } while (n % height == 0 && n < most && r + n < end && r % height == 0);
            multiply(t, r, n);
            r += n;
        }
    }

    // A row of the image, padded: [place][channel].
    static NK_INLINE int64_t row_elements(const cpu::ConvTask& t) { return t.place[2].count * t.run.pixel; }
    static NK_INLINE int64_t rows_at_once(const cpu::ConvTask& t) {
        const int64_t rows = t.block / t.source.axis[2].positions, height = t.source.axis[1].positions;
        return ((rows < height ? rows : height) - 1) * t.place[1].step +
               (t.source.axis[1].taps - 1) * t.place[1].dilation + 1;
    }
    static NK_INLINE int64_t image_elements(const cpu::ConvTask& t) {
        return rows_at_once(t) * t.source.axis[0].taps * row_elements(t);
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

    static NK_INLINE void copy_rows(const cpu::ConvTask& t, int runs, int64_t slot, int64_t image, int64_t d, int64_t h,
                                    int64_t n) {
        const auto* run = reinterpret_cast<const cpu::ConvSegment*>(t.work + t.work_segments);
        const int64_t c = t.source.channels, each = t.run.pixel, ld = row_elements(t), rows = rows_at_once(t);
        const int64_t step = t.source.axis[2].stride;
        const int64_t used = (n - 1) * t.place[1].step + (t.source.axis[1].taps - 1) * t.place[1].dilation + 1;
        for (int64_t a = 0; a < t.source.axis[0].taps; ++a) {
            const int64_t plane = t.place[0].pixel[d * t.place[0].step + a * t.place[0].dilation];
            for (int64_t u = 0; u < used; ++u) {
                const int64_t row = t.place[1].pixel[h * t.place[1].step + u];
                S* const to = reinterpret_cast<S*>(t.work) + slot * image_elements(t) + (a * rows + u) * ld;
                const S* const from = static_cast<const S*>(t.source.data) + image * t.source.image +
                                      plane * t.source.axis[0].stride + row * t.source.axis[1].stride;
                for (int i = 0; i < runs; ++i) {
                    const int64_t length = run[i].length, pixel = run[i].at[2];
                    S* d = to + run[i].column * each;
                    const S* x = from + pixel * step;
                    if (plane < 0 || row < 0 || pixel < 0)
                        clear_run(d, length * each);
                    else if (t.source.channel != 1)
                        interleave(t, d, x, length);
                    else if (step == c && each == c)
                        copy_run(d, x, length * c);
                    else
                        for (int64_t j = 0; j < length; ++j, d += each, x += step) copy_run(d, x, c);
                }
            }
        }
    }
    static NK_INLINE void interleave(const cpu::ConvTask& t, S* d, const S* from, int64_t length) {
        const int64_t c = t.source.channels, each = t.run.pixel, step = t.source.axis[2].stride;
        if (c == 3 && each == 3 && step == 1) {
            const S *b = from + t.source.channel, *e = b + t.source.channel;
            for (int64_t i = 0; i < length; ++i, d += 3) d[0] = from[i], d[1] = b[i], d[2] = e[i];
            return;
        }
        for (int64_t k = 0; k < c; ++k, from += t.source.channel)
            for (int64_t i = 0; i < length; ++i) d[i * each + k] = from[i * step];
    }

    static NK_INLINE void multiply(const cpu::ConvTask& t, int64_t first_row, int64_t n) {
        const int64_t nr = int64_t(t.nv) * W, width = t.source.axis[2].positions, channels = t.r1 - t.r0;
        const int64_t height = t.source.axis[1].positions, image = image_elements(t);
        const int64_t ld = row_elements(t), count = t.run.count, units = P::units(t.run.elements);
        int64_t at[cpu::kDirectRuns + 1], next[cpu::kDirectRuns];  // bytes
        offsets(t, at);
        for (int64_t i = 0; i < count; ++i) next[i] = at[i + 1] - at[i] - units * int64_t(sizeof(Unit));
        const bool plain = !t.activate && !t.preact.data && !t.residual.data && t.out.channel == 1;
        const bool keeps = t.run.at_once < count;  // the sums of all positions, until their last runs
        Acc* const sums = reinterpret_cast<Acc*>(t.work + t.work_sums);
        const int64_t panels = (width + t.mr - 1) / t.mr;
        alignas(64) Acc biases[P::kVectorsMost * W] = {};
        MicroArgs<Acc> g{};
        g.a_row = t.place[2].step * t.run.pixel * int64_t(sizeof(S)), g.a_step = sizeof(Unit);
        for (int64_t j = 0; j < channels; j += nr) {
            const int64_t some = channels - j < nr ? channels - j : nr, vectors = (some + W - 1) / W, to = vectors * W;
            for (int64_t i = 0; t.bias && i < some; ++i) biases[i] = P::bias_of(t, t.r0 + j + i);
            const Unit* const b = P::weight(t) + (t.r0 + j) * count * units;
            g.b_step = to * int64_t(sizeof(Unit)), g.n = int(some), g.c_ld = to;
            Acc* const across = sums + (keeps ? t.block : t.mr) * nr;  // [channel][kDirectAcross], if they lie apart
            int64_t held = 0;
            for (int64_t p = 0; p < count; p += t.run.at_once) {
                const bool first = p == 0, last = p + t.run.at_once >= count;
                const MicroRuns runs{last ? count - p : t.run.at_once, t.run.elements / L::group,
                                     t.run.elements % L::group != 0, next + p};
                g.b = reinterpret_cast<const char*>(b + p * units * to);
                for (int64_t row = 0; row < n; ++row)
                    for (int64_t ip = 0; ip < panels; ++ip) {
                        const int64_t i = width * ip / panels, mr = width * (ip + 1) / panels - i;
                        const int64_t q = (first_row + row) * width + i, all = t.source.positions();
                        g.a = t.work + at[p] +
                              (row / height * image + row % height * t.place[1].step * ld +
                               i * t.place[2].step * t.run.pixel) *
                                  int64_t(sizeof(S));
                        g.c = keeps ? sums + (row * width + i) * to : sums;
                        g.init = !first ? g.c : t.bias ? biases : nullptr, g.init_ld = first ? 0 : to;
                        g.out = nullptr, g.target = g.c, g.target_row = to * int64_t(sizeof(Acc));
                        if (plain && last) {
                            g.out = P::at(t, t.out, q / all, q % all, t.r0 + j), g.out_ld = t.out.axis[2];
                            g.target = g.out, g.target_row = g.out_ld * int64_t(sizeof(S));
                        }
                        pick_by_size<MicroOfRuns<L, Unit, S>, L, L::kMaxRows>(int(mr), int(vectors))(g, runs);
                        if (plain || !last) continue;
                        if (t.out.channel == 1) {
                            P::template finish<true>(t, g.c, to, q, mr, t.r0 + j, some);
                            continue;
                        }
                        turn(g.c, to, mr, some, across + held);
                        held += mr;
                        if (ip + 1 < panels && held + t.mr <= cpu::kDirectAcross - W) continue;
                        P::template finish<false>(t, across, cpu::kDirectAcross, q + mr - held, held, t.r0 + j, some);
                        held = 0;
                    }
            }
        }
    }

    // Bytes from a window's first element to each of its runs, and to where one more would be.
    static NK_INLINE void offsets(const cpu::ConvTask& t, int64_t* at) {
        const int64_t ld = row_elements(t), rows = rows_at_once(t), w = t.source.axis[2].taps / t.run.taps;
        const int64_t h = t.source.axis[1].taps;
        for (int64_t i = 0; i <= t.run.count; ++i) {
            const int64_t tap = i / t.run.chunks, y = tap / w;
            at[i] =
                int64_t(sizeof(S)) * ((y / h * rows + y % h * t.place[1].dilation) * ld +
                                      tap % w * t.place[2].dilation * t.run.pixel + i % t.run.chunks * t.run.elements);
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
