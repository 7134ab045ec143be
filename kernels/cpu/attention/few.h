// Attention of few queries with many keys, as in generation: keys and values are read once, as they lie, for all heads
// that share them.
//
//   for blocks of 256 keys
//     s[rows, 256] = q k'       four keys with four rows at a time, sums across vectors
//     p = exp(s - maximum)
//     o[rows, columns] += p v   the microkernel, of values as they lie
//
// A thread has a share of the keys; `finish` puts the shares together.
#pragma once

#include "exponentials.h"
#include "rules.h"

namespace nk::NK_ISA {

template <class L, class S>
struct Few {
    using Acc = typename L::Acc;
    using V = vec<Acc>;
    static constexpr int W = L::W, kKeys = 4, kRowsAtOnce = L::kMaxRows > 8 ? 4 : 2,
                         kProductRows = L::kMaxRows < 8 ? L::kMaxRows : 8;
    static constexpr int kWide = AttentionShape<L, S>::kWide;

    static cpu::AttentionFew layout(const cpu::AttentionHead& h, int64_t heads) {
        return {AttentionShape<L, S>::tile(), heads, h.queries, h.size, h.value_size};
    }

    static void run(const cpu::AttentionHead* heads, int64_t count, char* partial, char* scratch, int64_t begin,
                    int64_t end) {
        const cpu::AttentionHead& h = heads[0];
        const cpu::AttentionFew at = layout(h, count);
        Acc* const maximum = reinterpret_cast<Acc*>(partial);
        Acc* const sum = reinterpret_cast<Acc*>(partial + at.sums);
        Acc* const output = reinterpret_cast<Acc*>(partial + at.output);
        Acc* const q = reinterpret_cast<Acc*>(scratch);
        Acc* const scores = reinterpret_cast<Acc*>(scratch + at.scores);
        Acc* const product = reinterpret_cast<Acc*>(scratch + at.product);
        for (int64_t r = 0; r < at.rows; ++r) {
            const cpu::AttentionHead& own = heads[r / h.queries];
            pack_rows<L>(q + r * at.size_ld, at.size_ld,
                         static_cast<const S*>(own.query.data) + r % h.queries * own.query.row, 0, own.query.column, 1,
                         h.size);
            maximum[r] = minus_infinity<Acc>(), sum[r] = 0;
        }
        for (int64_t j = 0; j < at.rows * at.value_ld; ++j) output[j] = 0;
        for (int64_t k = begin; k < end; k += cpu::kAttentionKeys) {
            const KeyRange r{k, end - k < cpu::kAttentionKeys ? end : k + cpu::kAttentionKeys};
            products_of_rows(h, q, at, r, scores);
            probabilities(heads, at, r, scores, maximum, sum, output);
            add_values(h, at, r, scores, product, reinterpret_cast<Acc*>(scratch + at.values), output);
        }
    }

    // scores[rows, 256] = q k'
    static NK_INLINE void products_of_rows(const cpu::AttentionHead& h, const Acc* q, const cpu::AttentionFew& at,
                                           KeyRange r, Acc* scores) {
        const S* const keys = static_cast<const S*>(h.key.data);
        for (int64_t k = r.begin; k < r.end; k += kKeys) {
            const S* key[kKeys];
            for (int i = 0; i < kKeys; ++i) key[i] = keys + (k + i < r.end ? k + i : r.end - 1) * h.key.row;
            Acc* const to = scores + (k - r.begin);
            int64_t row = 0;
            for (; row + kRowsAtOnce <= at.rows; row += kRowsAtOnce)
                dots<kRowsAtOnce>(key, q + row * at.size_ld, at.size_ld, h.size, to + row * cpu::kAttentionKeys);
            for (; row < at.rows; ++row)
                dots<1>(key, q + row * at.size_ld, at.size_ld, h.size, to + row * cpu::kAttentionKeys);
        }
    }
    template <int R>
    static NK_INLINE void dots(const S* const (&key)[kKeys], const Acc* q, int64_t ld, int64_t size, Acc* to) {
        V sum[R][kKeys];
        unroll<R>([&](auto r) { unroll<kKeys>([&](auto i) { sum[r][i] = V(Acc(0)); }); });
        const auto step = [&](int64_t c, auto get) NK_LAMBDA_INLINE {
            V k[kKeys];
            unroll<kKeys>([&](auto i) { k[i] = get(key[i] + c); });
            unroll<R>([&](auto r) {
                const V x = L::load(q + r * ld + c);
                unroll<kKeys>([&](auto i) { sum[r][i] = mad(x, k[i], sum[r][i]); });
            });
        };
        int64_t c = 0;
        for (; c + W <= size; c += W) step(c, [](const S* p) NK_LAMBDA_INLINE { return L::load(p); });
        if (c < size) {
            const auto m = L::mask(size - c);
            step(c, [m](const S* p) NK_LAMBDA_INLINE { return L::load(p, m); });
        }
        unroll<R>([&](auto r) { sum4(sum[r], to + r * cpu::kAttentionKeys); });
    }

    static NK_INLINE void probabilities(const cpu::AttentionHead* heads, const cpu::AttentionFew& at, KeyRange r,
                                        Acc* scores, Acc* maximum, Acc* sum, Acc* output) {
        const int64_t ld = cpu::attention_round_up(r.end - r.begin, W), queries = heads[0].queries;
        for (int64_t row = 0; row < at.rows; ++row) {
            const Rules<S> rules(heads[row / queries]);
            Acc* const s = scores + row * cpu::kAttentionKeys;
            const KeyRange seen = rules.apply(row % queries, r, s, ld);
            const Acc top = rules.unit * highest<Acc>(s, seen), before = maximum[row];
            const Acc after = top > before ? top : before;
            const Acc less = after == minus_infinity<Acc>() ? Acc(0) : after;
            const Acc here = exponentials<L>(s, seen, ld, rules.unit, less);
            maximum[row] = after;
            if (after != before) {
                const V factor = power(V(before - less));
                for (int64_t c = 0; c < at.value_ld; c += W)
                    L::store(output + row * at.value_ld + c, L::load(output + row * at.value_ld + c) * factor);
                alignas(64) Acc one[W];
                L::store(one, factor);
                sum[row] *= one[0];
            }
            sum[row] += here;
            if (rules.drops()) rules.drop(row % queries, r.begin, s, r.end - r.begin);
        }
    }

    static NK_INLINE void add_values(const cpu::AttentionHead& h, const cpu::AttentionFew& at, KeyRange r,
                                     const Acc* scores, Acc* product, Acc* values, Acc* output) {
        multiply<S>(at, r, scores, static_cast<const S*>(h.value.data) + r.begin * h.value.row, h.value.row,
                    h.value_size, product);
        // a probability of 0 may have met what is infinite or NaN
        if (any_unusual<Acc>({product, at.value_ld, 1}, 0, at.rows, h.value_size)) {
            const int64_t n = r.end - r.begin;
            pack_rows<L>(values, at.value_ld, static_cast<const S*>(h.value.data) + r.begin * h.value.row, h.value.row,
                         1, n, h.value_size);
            clean<L, S>(values, n * at.value_ld);
            multiply<Acc>(at, r, scores, values, at.value_ld, h.value_size, product);
            for (int64_t k = r.begin; k < r.end; ++k)
                for (int64_t row = 0; row < at.rows; ++row)
                    add_unusual<S, Acc>(h.value, k, h.value_size, scores[row * cpu::kAttentionKeys + k - r.begin],
                                        product + row * at.value_ld);
        }
        for (int64_t row = 0; row < at.rows; ++row)
            for (int64_t c = row * at.value_ld; c < row * at.value_ld + h.value_size; c += W)
                L::store(output + c, L::load(output + c) + L::load(product + c));
    }
    // product[rows, columns] = scores values
    template <class B>
    static NK_INLINE void multiply(const cpu::AttentionFew& at, KeyRange r, const Acc* scores, const B* values,
                                   int64_t value_row, int64_t columns, Acc* product) {
        MicroArgs<Acc> g{};
        g.a_row = cpu::kAttentionKeys * int64_t(sizeof(Acc)), g.a_step = sizeof(Acc);
        g.k = r.end - r.begin;
        g.b_step = value_row * int64_t(sizeof(B));
        g.c_ld = g.init_ld = at.value_ld, g.target_row = at.value_ld * int64_t(sizeof(Acc));
        for (int64_t row = 0; row < at.rows; row += kProductRows) {
            const int n = static_cast<int>(at.rows - row < kProductRows ? at.rows - row : kProductRows);
            g.a = reinterpret_cast<const char*>(scores + row * cpu::kAttentionKeys);
            for (int64_t c = 0; c < columns; c += kWide) {
                const int64_t left = columns - c < kWide ? columns - c : kWide;
                g.b = reinterpret_cast<const char*>(values + c);
                g.c = product + row * at.value_ld + c, g.target = g.c;
                g.n = static_cast<int>(left);
                pick_micro<L, B, Acc, kProductRows>(n, static_cast<int>((left + W - 1) / W))(g);
            }
        }
    }

    static void finish(const cpu::AttentionHead* heads, int64_t count, const char* partial, int64_t apart, int parts) {
        const cpu::AttentionHead& h = heads[0];
        const cpu::AttentionFew at = layout(h, count);
        for (int64_t row = 0; row < at.rows; ++row) {
            const cpu::AttentionHead& own = heads[row / h.queries];
            const int64_t query = row % h.queries;
            const auto number = [&](int part, int64_t offset) {
                return reinterpret_cast<const Acc*>(partial + part * apart + offset)[row];
            };
            Acc maximum =
                own.sink != nullptr ? static_cast<Acc>(*own.sink * double(kUnit<Acc>)) : minus_infinity<Acc>();
            for (int i = 0; i < parts; ++i)
                if (number(i, 0) > maximum) maximum = number(i, 0);
            const Acc less = maximum == minus_infinity<Acc>() ? Acc(0) : maximum;
            const auto factor_of = [&](Acc of) {
                alignas(64) Acc one[W];
                L::store(one, power(V(of - less)));
                return one[0];
            };
            Acc sum = own.sink != nullptr ? factor_of(static_cast<Acc>(*own.sink * double(kUnit<Acc>))) : Acc(0);
            for (int i = 0; i < parts; ++i) sum += number(i, at.sums) * factor_of(number(i, 0));
            const V divisor(sum == 0 ? Acc(1) : sum);
            for (int64_t c = 0; c < h.value_size; c += W) {
                V total(Acc(0));
                for (int i = 0; i < parts; ++i) {
                    const Acc* from = reinterpret_cast<const Acc*>(partial + i * apart + at.output) + row * at.value_ld;
                    total = mad(L::load(from + c), V(factor_of(number(i, 0))), total);
                }
                total = total / divisor;
                S* const to = static_cast<S*>(own.output.data) + query * own.output.row;
                if (own.output.column == 1) {
                    L::store(to + c, total, L::mask(h.value_size - c));
                } else {
                    alignas(64) Acc of[W];
                    L::store(of, total);
                    for (int64_t j = 0; j < W && c + j < h.value_size; ++j)
                        put_number(to[(c + j) * own.output.column], of[j]);
                }
            }
            if (own.lse.data == nullptr) continue;
            alignas(64) Acc log[W];
            L::store(log, mad(V(less), V(kNatural<Acc>), math::log(V(sum))));
            static_cast<Acc*>(own.lse.data)[query * own.lse.row] = sum == 0 ? minus_infinity<Acc>() : log[0];
        }
    }
};

}  // namespace nk::NK_ISA
