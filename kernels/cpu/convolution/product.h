// The implicit product, for one thread's channels and positions.
//
//   for q: positions, `block` at a time     source[k, block] gathered once: second cache
//     for j: columns, panels of nr            positions; channels last: channels
//       for pc: k in blocks of kc             columns[kc, nr]: first cache
//         for i: rows, mr at a time           channels; channels last: positions
//           microkernel
#pragma once

#include "../product/micro.h"
#include "../product/pack.h"
#include "../product/packed_row.h"
#include "../product/strided.h"
#include "gather.h"

namespace nk::NK_ISA {

template <class L, class S>
struct ConvProduct {
    using Unit = typename L::Unit;
    using Acc = typename L::Acc;
    static constexpr int W = L::W;
    static constexpr bool kIsUnit = sizeof(S) == sizeof(Unit);  // gathered elements are units already
    static constexpr bool kFinishes = !__is_same(S, f16);       // the microkernel can round

    static constexpr int kRowsMost = L::kMaxRows > L::kWideRows ? L::kMaxRows : L::kWideRows;
    static constexpr int kVectorsMost = L::kVectors > L::kWideVectors ? L::kVectors : L::kWideVectors;

    static int64_t units(int64_t k) { return (k + L::group - 1) / L::group; }
    static int64_t round_up(int64_t n) { return (n + W - 1) / W * W; }
    static const Unit* weight(const cpu::ConvTask& t) { return static_cast<const Unit*>(t.weight); }

    template <class T>
    static Micro<L> pick(int rows, int vectors) {
        return pick_micro<L, Unit, T, L::kMaxRows>(rows, vectors);
    }
    using Out = Select<kFinishes, S, Acc>;

    static void run(const cpu::ConvTask& t) {
        auto* segments = reinterpret_cast<cpu::ConvSegment*>(t.work + t.work_segments);
        for (int64_t q = t.q0; q < t.q1; q += t.block) {
            const int64_t n = t.q1 - q < t.block ? t.q1 - q : t.block;
            const int count = cut_into_rows(t.source, q, n, segments);
            if (t.channels_last) {
                if (t.source.k() > 0) pack_rows_of(t, segments, count);
                multiply<true>(t, q, n);
            } else {
                if (t.source.k() > 0) pack_columns(t, segments, count, n);
                multiply<false>(t, q, n);
            }
        }
    }

    // ---- where results go ----

    // Positions from q on that lie evenly in the targets.
    static NK_INLINE int64_t run_length(const cpu::ConvTask& t, int64_t q) {
        const int64_t all = t.source.positions(), width = t.source.axis[2].positions, p = q % all;
        return t.dense ? all - p : width - p % width;
    }
    // Calls f(first, length, image, position) for runs of [q, q + n) that lie evenly in the targets.
    template <class F>
    static NK_INLINE void each_run(const cpu::ConvTask& t, int64_t q, int64_t n, F&& f) {
        const int64_t all = t.source.positions();
        for (int64_t i = 0; i < n;) {
            const int64_t to_end = run_length(t, q + i), length = to_end < n - i ? to_end : n - i;
            f(i, length, (q + i) / all, (q + i) % all);
            i += length;
        }
    }
    static NK_INLINE int64_t offset(const cpu::ConvTask& t, const cpu::ConvTarget& x, int64_t image, int64_t p,
                                    int64_t r) {
        const int64_t width = t.source.axis[2].positions, height = t.source.axis[1].positions;
        const int64_t inside =
            t.dense ? p * x.axis[2]
                    : p / width / height * x.axis[0] + p / width % height * x.axis[1] + p % width * x.axis[2];
        return image * x.image + r * x.channel + inside;
    }
    static NK_INLINE S* at(const cpu::ConvTask& t, const cpu::ConvTarget& x, int64_t image, int64_t p, int64_t r) {
        return static_cast<S*>(x.data) + offset(t, x, image, p, r);
    }

    // sums[m][ld] -> preact, act, residual, out. Rows are channels from r on and columns positions from q on; turned,
    // the other way round.
    template <bool turned>
    static NK_INLINE void finish(const cpu::ConvTask& t, Acc* sums, int64_t ld, int64_t q, int64_t n, int64_t r,
                                 int64_t channels) {
        const int64_t rows = turned ? n : channels, columns = turned ? channels : n;
        const auto each_row =
            [&](auto&& f) NK_LAMBDA_INLINE {  // f(row of sums, columns, run's first, image, position, channel)
                each_run(t, q, n, [&](int64_t first, int64_t length, int64_t image, int64_t p) NK_LAMBDA_INLINE {
                    if constexpr (turned)
                        for (int64_t i = 0; i < length; ++i) f(sums + (first + i) * ld, columns, image, p + i, r);
                    else
                        for (int64_t i = 0; i < rows; ++i) f(sums + i * ld + first, length, image, p, r + i);
                });
            };
        const auto step = [&](const cpu::ConvTarget& x) { return turned ? x.channel : x.axis[2]; };
        if (t.preact.data)
            each_row([&](Acc* s, int64_t length, int64_t image, int64_t p, int64_t c) NK_LAMBDA_INLINE {
                for (int64_t j = 0; j < length; j += W)
                    scatter<L>(at(t, t.preact, image, p, c) + j * step(t.preact), step(t.preact), length - j,
                               load_some(s + j, length - j));
            });
        if (t.activate && ld == round_up(columns))
            t.activate(sums, rows * ld, t.activation, t.p);
        else if (t.activate)
            for (int64_t i = 0; i < rows; ++i) t.activate(sums + i * ld, round_up(columns), t.activation, t.p);
        each_row([&](Acc* s, int64_t length, int64_t image, int64_t p, int64_t c) NK_LAMBDA_INLINE {
            for (int64_t j = 0; j < length; j += W) {
                typename L::AccReg v = load_some(s + j, length - j);
                if (t.residual.data)
                    v = L::add(v, step(t.residual) == 0
                                      ? L::set(to_number(*at(t, t.residual, image, p, c)))
                                      : gather<L>(at(t, t.residual, image, p, c) + j * step(t.residual),
                                                  step(t.residual), length - j));
                scatter<L>(at(t, t.out, image, p, c) + j * step(t.out), step(t.out), length - j, v);
            }
        });
    }
    static NK_INLINE typename L::AccReg load_some(const Acc* s, int64_t n) {
        return n >= W ? typename L::AccReg(NK_ISA::load(s)) : typename L::AccReg(NK_ISA::load(s, typename L::Mask(n)));
    }

    static NK_INLINE Acc bias_of(const cpu::ConvTask& t, int64_t r) {
        return t.bias ? Acc(to_number(static_cast<const S*>(t.bias)[r * t.bias_step])) : Acc(0);
    }

    // ---- channels first ----

    // Panels [units of k][nr] of a block of positions.
    static NK_INLINE void pack_columns(const cpu::ConvTask& t, const cpu::ConvSegment* segments, int count, int64_t n) {
        const int64_t nr = int64_t(t.nv) * W, k = t.source.k(), taps = t.source.taps();
        Unit* panel = reinterpret_cast<Unit*>(t.work);
        int s = 0;
        for (int64_t j = 0; j < n; j += nr, panel += units(k) * nr) {
            const int64_t width = n - j < nr ? n - j : nr, ld = round_up(width);
            cpu::ConvSegment some[kVectorsMost * W + 1];
            int many = 0;
            for (; s < count && segments[s].column < j + width; ++s) {  // those of this panel, cut to it
                cpu::ConvSegment& x = some[many++] = segments[s];
                const int32_t skip = x.column < j ? int32_t(j - x.column) : 0;
                x.column += skip - int32_t(j), x.at[2] += skip, x.length -= skip;
                if (x.column + x.length > width) {
                    x.length = int32_t(width) - x.column;
                    break;  // it goes on in the next
                }
            }
            if constexpr (kIsUnit && L::group == 1) {
                S* to = reinterpret_cast<S*>(panel);
                if (ld > width)
                    for (int64_t i = 0; i < k; ++i) clear_run(to + i * ld + width, ld - width);
                gather_columns<S>(t.source, some, many, 0, t.source.channels, to, ld);
            } else {  // some channels at a time: they are in the first cache when they are made into units
                S* scratch = reinterpret_cast<S*>(t.work + t.work_scratch);
                const int64_t most = channels_at_once(taps);
                for (int64_t c = 0; c < t.source.channels; c += most) {
                    const int64_t end = t.source.channels - c < most ? t.source.channels : c + most;
                    gather_columns<S>(t.source, some, many, c, end, scratch, nr);
                    pack_panel<L>(panel + units(c * taps) * ld, ld, scratch, 1, nr, width, (end - c) * taps);
                }
            }
        }
    }
    static NK_INLINE int64_t channels_at_once(int64_t taps) {  // even, so that no unit spans two turns
        const int64_t most = 256 / taps / 2 * 2;
        return most < 2 ? 2 : most;
    }

    // ---- channels last ----

    static NK_INLINE int64_t row_units(const cpu::ConvTask& t) {
        return cpu::packed_row(units(t.source.k()), sizeof(Unit));
    }

    static NK_INLINE void pack_rows_of(const cpu::ConvTask& t, const cpu::ConvSegment* segments, int count) {
        const int64_t k = t.source.k(), ld = row_units(t);
        if constexpr (kIsUnit || L::group == 2) {
            constexpr int64_t each = int64_t(sizeof(Unit) / sizeof(S));
            gather_rows<S>(t.source, segments, count, 0, k, reinterpret_cast<S*>(t.work), ld * each, units(k) * each);
        } else {
            S* scratch = reinterpret_cast<S*>(t.work + t.work_scratch);
            for (int i = 0; i < count; ++i)
                for (int32_t p = 0; p < segments[i].length; ++p) {
                    cpu::ConvSegment one = segments[i];
                    one.column = 0, one.length = 1, one.at[2] += p;
                    gather_rows<S>(t.source, &one, 1, 0, k, scratch, 0, k);
                    pack_rows<L>(reinterpret_cast<Unit*>(t.work) + (segments[i].column + p) * ld, ld, scratch, 0, 1, 1,
                                 k);
                }
        }
    }

    // ---- the product ----

    // Panels of columns, nr wide, meet panels of rows, mr high. Columns are positions and rows channels; turned, the
    // other way round.
    template <bool turned>
    static NK_INLINE void multiply(const cpu::ConvTask& t, int64_t q, int64_t n) {
        const int64_t nr = int64_t(t.nv) * W, k = t.source.k(), channels = t.r1 - t.r0;
        const int64_t columns = turned ? channels : n, rows = turned ? n : channels;
        const Unit* const gathered = reinterpret_cast<const Unit*>(t.work);
        const Unit* const b = turned ? weight(t) + t.r0 * units(k) : gathered;
        const Unit* const a = turned ? gathered : weight(t) + t.r0 * t.weight_ld;
        const int64_t a_ld = turned ? row_units(t) : t.weight_ld;
        const int64_t out_ld = turned ? t.out.axis[2] : t.out.channel;
        // the microkernel can write results itself
        const bool plain = kFinishes && !t.activate && !t.preact.data && !t.residual.data &&
                           (turned ? t.out.channel : t.out.axis[2]) == 1;
        Acc* const sums = reinterpret_cast<Acc*>(t.work + t.work_sums);
        const int64_t panels = (rows + t.mr - 1) / t.mr;
        alignas(64) Acc biases[kRowsMost * kVectorsMost * W] = {};
        for (int64_t j = 0; j < columns; j += nr) {
            const int64_t width = columns - j < nr ? columns - j : nr, vectors = (width + W - 1) / W, ld = vectors * W;
            if (turned && t.bias)
                for (int64_t c = 0; c < width; ++c) biases[c] = bias_of(t, t.r0 + j + c);
            for (int64_t pc = 0; pc < k || pc == 0; pc += t.kc) {
                const int64_t kc = k - pc < t.kc ? k - pc : t.kc;
                const bool last = pc + kc >= k;
                MicroArgs<Acc> g{};
                g.a_row = a_ld * int64_t(sizeof(Unit)), g.a_step = sizeof(Unit);
                g.b = reinterpret_cast<const char*>(b + j * units(k) + units(pc) * ld);
                g.b_step = ld * int64_t(sizeof(Unit));
                g.k = units(kc), g.n = int(width), g.c_ld = ld;
                for (int64_t ip = 0; ip < panels; ++ip) {
                    const int64_t i = rows * ip / panels;
                    const int mr = int(rows * (ip + 1) / panels - i);
                    const int64_t from = q + (turned ? i : j), positions = turned ? mr : width;
                    const int64_t channel = t.r0 + (turned ? j : i);
                    g.a = reinterpret_cast<const char*>(a + i * a_ld + units(pc));
                    g.c = sums + i * ld, g.out = nullptr;
                    g.init = pc > 0 ? g.c : t.bias ? biases : nullptr;
                    g.init_ld = pc == 0 && turned ? 0 : ld;
                    if (!turned && t.bias && pc == 0)
                        for (int m = 0; m < mr; ++m)
                            for (int64_t v = 0; v < ld; v += W)
                                L::store(biases + m * ld + v, L::set(bias_of(t, channel + m)));
                    g.target = g.c, g.target_row = ld * int64_t(sizeof(Acc));
                    const bool direct = last && plain && run_length(t, from) >= positions;
                    if (direct) {
                        const int64_t all = t.source.positions();
                        g.out = at(t, t.out, from / all, from % all, channel), g.out_ld = out_ld;
                        g.target = g.out, g.target_row = out_ld * int64_t(sizeof(S));
                    }
                    pick<Out>(mr, int(vectors))(g);
                    if (last && !direct) finish<turned>(t, g.c, ld, from, positions, channel, turned ? width : mr);
                }
            }
        }
    }
};

// A weight's rows in the order of k, then in units.
template <class L, class S>
void pack_weight(const cpu::ConvPackTask& t) {
    using Unit = typename L::Unit;
    constexpr bool kIsUnit = L::group == 2 || sizeof(S) == sizeof(Unit);
    const int64_t k = t.channels * t.taps, units = (k + L::group - 1) / L::group;
    const S* const data = static_cast<const S*>(t.data);
    S* const rows = reinterpret_cast<S*>(t.work);
    if (k == 0) return;
    if (t.channels_last && t.row == 1 && t.channels % L::group == 0) {  // columns of a panel lie side by side
        for (int64_t r = t.r0; r < t.r1; r += t.panel) {
            const int64_t width = t.r1 - r < t.panel ? t.r1 - r : t.panel, ld = (width + L::W - 1) / L::W * L::W;
            Unit* to = static_cast<Unit*>(t.to) + r * units;
            for (int64_t i = 0; i < t.taps; ++i, to += t.channels / L::group * ld)
                pack_panel<L>(to, ld, data + r + t.tap[i], 1, t.channel, width, t.channels);
        }
        return;
    }
    if (t.channels_last) {
        for (int64_t r = t.r0; r < t.r1; r += t.panel) {
            const int64_t width = t.r1 - r < t.panel ? t.r1 - r : t.panel, ld = (width + L::W - 1) / L::W * L::W;
            for (int64_t i = 0; i < width; ++i)
                for (int64_t j = 0; j < t.taps; ++j)
                    copy_run(rows + i * k + j * t.channels, data + (r + i) * t.row + t.tap[j], t.channels, t.channel);
            const int64_t run = t.run * t.channels, run_units = (run + L::group - 1) / L::group;
            Unit* to = static_cast<Unit*>(t.to) + r * (k / run * run_units);
            for (int64_t done = 0; done < k; done += run, to += run_units * ld)
                pack_panel<L>(to, ld, rows + done, k, 1, width, run);
        }
        return;
    }
    // some rows side by side: their elements may lie together while those of a row are pages apart
    S* const to = kIsUnit ? reinterpret_cast<S*>(static_cast<Unit*>(t.to) + t.r0 * t.ld) : rows;
    const int64_t ld = kIsUnit ? t.ld * int64_t(sizeof(Unit) / sizeof(S)) : k;
    if constexpr (kIsUnit && L::group == 1 && Transposes<L>)
        if (t.taps == 1 && t.row == 1) {
            pack_panel<L>(static_cast<Unit*>(t.to) + t.r0 * t.ld, t.ld, data + t.r0 + t.tap[0], t.channel, 1, k,
                          t.r1 - t.r0);
            return;
        }
    const bool even = t.taps > 1 && t.tap[1] - t.tap[0] == 1 && t.tap[t.taps - 1] - t.tap[0] == t.taps - 1;
    for (int64_t c = 0; c < t.channels; ++c)
        for (int64_t r = t.r0; r < t.r1; ++r) {
            const S* from = data + r * t.row + c * t.channel;
            S* d = to + (r - t.r0) * ld + c * t.taps;
            if (even)
                copy_run(d, from + t.tap[0], t.taps);
            else
                for (int64_t i = 0; i < t.taps; ++i) d[i] = from[t.tap[i]];
        }
    for (int64_t r = t.r0; r < t.r1; ++r) {
        if (L::group == 2 && k % 2) to[(r - t.r0) * ld + k] = S{};
        if constexpr (!kIsUnit)
            pack_rows<L>(static_cast<Unit*>(t.to) + r * t.ld, t.ld, to + (r - t.r0) * ld, 0, 1, 1, k);
    }
}

}  // namespace nk::NK_ISA
