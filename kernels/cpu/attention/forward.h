// Attention by tiles: a tile of queries passes over the keys block by block, and keeps what it has summed.
//
//   pack                          keys transposed, values as they lie or in units: once a head, the second cache
//   for blocks of 256 keys
//     for tiles of 14 queries
//       s[14, 256] = q k'         the microkernel, into the first cache
//       p = exp(s - maximum)     row by row: rules, maximum, exponentials, sums
//       o[14, columns] += p v     the microkernel; what was there is scaled first if a maximum grew
//
#pragma once

#include "exponentials.h"
#include "rules.h"

namespace nk::NK_ISA {

template <class L, class S>
struct Forward {
    using Unit = typename L::Unit;
    using Acc = typename L::Acc;
    using V = vec<Acc>;
    using Shape = AttentionShape<L, S>;
    static constexpr int W = L::W, kRows = L::kMaxRows, kWide = Shape::kWide, kGroup = L::group;

    struct State {  // of the queries at hand, kept while they pass over the keys
        Acc *maximum, *sum, *output;
    };

    const cpu::AttentionHead& h;
    const cpu::AttentionPacked packed;
    const cpu::AttentionScratch layout;
    const char* keys;
    char* work;
    Acc* scores;
    State state;
    Operand<L, S> query, value;
    int64_t first;  // query of the item
    Rules<S> rules;

    Forward(const cpu::AttentionHead& head, const char* packed_keys, char* scratch)
        : h(head),
          packed(Shape::tile(), head.keys, head.size, head.value_size),
          layout(Shape::tile(), head.size, head.value_size),
          keys(packed_keys),
          work(scratch),
          rules(head) {
        scores = reinterpret_cast<Acc*>(work + layout.scores);
        state.output = reinterpret_cast<Acc*>(work + layout.output);
        state.maximum = reinterpret_cast<Acc*>(work + layout.numbers);
        state.sum = state.maximum + cpu::kAttentionTiles * kRows + 16;
    }

    // Queries first .. last - 1, at most kAttentionTiles * kRows of them.
    static void run(const cpu::AttentionHead& head, const char* packed_keys, char* scratch, int64_t first,
                    int64_t last) {
        Forward f(head, packed_keys, scratch);
        f.all(first, last);
    }

    NK_INLINE void all(int64_t begin, int64_t end) {
        first = begin;
        const int64_t rows = end - begin, tiles = (rows + kRows - 1) / kRows;
        query.take(h.query, begin, rows, h.size, reinterpret_cast<Unit*>(work), layout.query_ld);
        value.as_packed(h.value, reinterpret_cast<const Unit*>(keys + packed.values));
        const Acc none = h.sink != nullptr ? static_cast<Acc>(*h.sink * double(kUnit<Acc>)) : minus_infinity<Acc>();
        for (int64_t i = 0; i < rows; ++i) state.maximum[i] = none, state.sum[i] = h.sink != nullptr ? Acc(1) : Acc(0);
        bool started[cpu::kAttentionTiles] = {};
        const int64_t block = h.keys <= cpu::kAttentionLastKeys ? cpu::kAttentionLastKeys : cpu::kAttentionKeys;
        const KeyRange seen = keys_of_rows(h, begin, end);
        for (int64_t k = seen.begin / block * block; k < seen.end; k += block)
            for (int64_t t = 0; t < tiles; ++t) {
                const int64_t i = rows * t / tiles, n = rows * (t + 1) / tiles - i;
                KeyRange r = keys_of_rows(h, first + i, first + i + n);
                if (r.begin < k) r.begin = k;
                if (r.end > k + block) r.end = k + block;
                if (r.begin >= r.end) continue;
                r.begin = r.begin / kWide * kWide;
                tile(i, static_cast<int>(n), r, started[t]);
                started[t] = true;
            }
        for (int64_t t = 0; t < tiles; ++t) {
            const int64_t i = rows * t / tiles, n = rows * (t + 1) / tiles - i;
            if (!started[t])
                for (int64_t j = i * layout.output_ld; j < (i + n) * layout.output_ld; ++j) state.output[j] = 0;
        }
        finish(rows);
    }

    // Queries i .. i + n - 1 of the item, keys r; those before r.begin were a whole number of panels.
    NK_INLINE void tile(int64_t i, int n, KeyRange r, bool started) {
        const int64_t count = r.end - r.begin, ld = cpu::attention_round_up(count, W);
        products<L, S>(query, i, n, reinterpret_cast<const Unit*>(keys), h.keys, packed.key_units, r, scores, ld);

        Acc *const maximum = state.maximum + i, *const sum = state.sum + i,
                   *const output = state.output + i * layout.output_ld;
        alignas(64) Acc top[kTop], factor[kTop];
        for (int j = 0; j < kTop; ++j) top[j] = minus_infinity<Acc>();
        KeyRange seen[kRows];
        for (int j = 0; j < n; ++j) {
            seen[j] = rules.apply(first + i + j, r, scores + j * ld, ld);
            top[j] = highest<Acc>(scores + j * ld, seen[j]);
        }
        bool grew = false;
        for (int j = 0; j < kTop; j += W) {
            const V before = L::load(maximum + j), after = max(before, V(rules.unit) * L::load(top + j));
            L::store(maximum + j, after);
            L::store(factor + j, power(before - finite_maximum(after)));
            grew = grew || pack(before < after) != 0;
        }
        const bool rescale = grew && started;
        for (int j = 0; j < n; ++j) {
            const Acc m = maximum[j] == minus_infinity<Acc>() ? Acc(0) : maximum[j];
            const Acc s = exponentials<L>(scores + j * ld, seen[j], ld, rules.unit, m);
            sum[j] = sum[j] * factor[j] + s;
            if (rules.drops()) rules.drop(first + i + j, r.begin, reinterpret_cast<Unit*>(scores + j * ld), count);
            if (rescale && factor[j] != Acc(1))
                for (int64_t c = 0; c < layout.output_ld; c += W)
                    L::store(output + j * layout.output_ld + c,
                             L::load(output + j * layout.output_ld + c) * V(factor[j]));
        }
        MicroArgs<Acc> g{};
        g.a = reinterpret_cast<const char*>(scores), g.a_row = ld * int64_t(sizeof(Acc)), g.a_step = sizeof(Unit);
        g.k = (count + kGroup - 1) / kGroup;
        g.c_ld = g.init_ld = layout.output_ld, g.target_row = layout.output_ld * int64_t(sizeof(Acc));
        const bool cleaned = unusual(r);
        const int64_t units = cleaned ? cpu::attention_round_up(count, kWide) / kGroup : packed.value_units;
        const int64_t from = cleaned ? 0 : r.begin / kGroup;
        Unit* const own = reinterpret_cast<Unit*>(work + layout.values);
        if (cleaned) {
            const cpu::HeadMatrix rows{static_cast<S*>(h.value.data) + r.begin * h.value.row, h.value.row,
                                       h.value.column};
            pack_straight<L, S>(rows, h.value_size, units, 0, count, own);
            clean<L, S>(own, units * layout.output_ld);
        }
        for (int64_t c = 0; c < h.value_size; c += kWide) {
            const int64_t width = cpu::attention_round_up(h.value_size - c < kWide ? h.value_size - c : kWide, W);
            g.c = output + c, g.init = started ? output + c : nullptr;
            g.target = g.c;
            g.n = static_cast<int>(h.value_size - c < kWide ? h.value_size - c : kWide);
            if (value.as_is && !cleaned) {
                g.b = reinterpret_cast<const char*>(value.data + r.begin * value.row + c);
                g.b_step = value.row * int64_t(sizeof(Unit));
            } else {
                g.b = reinterpret_cast<const char*>((cleaned ? own : value.data) + c * units + from * width);
                g.b_step = width * int64_t(sizeof(Unit));
            }
            pick_micro<L, Unit, Acc, kRows>(n, static_cast<int>(width / W))(g);
        }
        if (cleaned) add_what_was_cleaned(n, r, ld, output);
    }
    static constexpr int kTop = (kRows + W - 1) / W * W;

    NK_INLINE bool unusual(KeyRange r) const {
        const char* flag = keys + packed.unusual;
        for (int64_t j = r.begin / kWide; j <= (r.end - 1) / kWide; ++j)
            if (flag[j]) return true;
        return false;
    }
    void add_what_was_cleaned(int n, KeyRange r, int64_t ld, Acc* output) const {
        for (int64_t k = r.begin; k < r.end; ++k) {
            if (!any_unusual<S>(h.value, k, k + 1, h.value_size)) continue;
            for (int j = 0; j < n; ++j) {
                const auto* p = reinterpret_cast<const typename Shape::Probability*>(scores + j * ld);
                add_unusual<S, Acc>(h.value, k, h.value_size, to_number(p[k - r.begin]), output + j * layout.output_ld);
            }
        }
    }

    NK_INLINE void finish(int64_t rows) const {
        for (int64_t i = 0; i < rows; ++i) {
            Acc* const from = state.output + i * layout.output_ld;
            const Acc sum = state.sum[i];
            S* const to = static_cast<S*>(h.output.data) + (first + i) * h.output.row;
            const V divisor(sum == 0 ? Acc(1) : sum);
            if (h.output.column == 1)
                for (int64_t c = 0; c < h.value_size; c += W)
                    L::store(to + c, L::load(from + c) / divisor, L::mask(h.value_size - c));
            else
                for (int64_t c = 0; c < h.value_size; ++c)
                    put_number(to[c * h.output.column], from[c] / (sum == 0 ? Acc(1) : sum));
        }
        if (h.lse.data == nullptr) return;
        for (int64_t i = 0; i < rows; i += W) {
            alignas(64) Acc result[W];
            const V sum = L::load(state.sum + i);
            const V lse = mad(L::load(state.maximum + i), V(kNatural<Acc>), math::log(sum));
            L::store(result, select(sum == V(Acc(0)), V(minus_infinity<Acc>()), lse));
            for (int64_t j = i; j < rows && j < i + W; ++j)
                static_cast<Acc*>(h.lse.data)[(first + j) * h.lse.row] = result[j - i];
        }
    }
};

}  // namespace nk::NK_ISA
