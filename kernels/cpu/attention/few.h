// Attention of few queries with many keys, as in generation: keys and values are read once, as they lie, for all heads
// that share them.
//
//   for blocks of 256 keys
//     where their rows begin    one behind the other, or by the table of pages
//     s[rows, 256] = q k'       four keys with four rows at a time, sums across vectors
//     p = exp(s - maximum)
//     o[rows, columns] += p v   each value is read whole, once for four rows, whose sums stay in registers
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
    static constexpr int W = L::W, kKeys = 4, kRowsAtOnce = L::kMaxRows > 8 ? 4 : 2;
    static constexpr int kSums = L::kMaxRows > 8 ? 16 : 8;  // vectors of sums that registers hold beside the operands

    static constexpr int64_t kAhead = 16;  // rows in pages that are asked for before they are needed

    // Where the rows of a block begin, in elements from where the head's do.
    struct Places {
        int64_t key[cpu::kAttentionKeys], value[cpu::kAttentionKeys];

        NK_INLINE void find(const cpu::AttentionHead& h, KeyRange r) {
            if (h.pages.table == nullptr) {
                for (int64_t j = 0; j < r.end - r.begin; ++j) {
                    key[j] = (r.begin + j) * h.key.row;
                    value[j] = (r.begin + j) * h.value.row;
                }
                return;
            }
            const int64_t rows = h.pages.rows;
            int64_t number = r.begin / rows, within = r.begin % rows;
            for (int64_t j = 0; j < r.end - r.begin; ++number, within = 0) {
                const int64_t page = h.pages[number];
                for (; within < rows && j < r.end - r.begin; ++within, ++j) {
                    key[j] = page * h.pages.key + within * h.key.row;
                    value[j] = page * h.pages.value + within * h.value.row;
                }
            }
        }
    };

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
        Places places;
        for (int64_t k = begin; k < end; k += cpu::kAttentionKeys) {
            const KeyRange r{k, end - k < cpu::kAttentionKeys ? end : k + cpu::kAttentionKeys};
            places.find(h, r);
            products_of_rows(h, q, at, r.end - r.begin, places, scores);
            probabilities(heads, at, r, scores, maximum, sum, output);
            add_values(h, at, r.end - r.begin, places.value, scores, product,
                       reinterpret_cast<Acc*>(scratch + at.values), output);
        }
    }

    // scores[rows, 256] = q k'
    static NK_INLINE void products_of_rows(const cpu::AttentionHead& h, const Acc* q, const cpu::AttentionFew& at,
                                           int64_t count, const Places& places, Acc* scores) {
        const S* const keys = static_cast<const S*>(h.key.data);
        for (int64_t k = 0; k < count; k += kKeys) {
            const S* key[kKeys];
            for (int i = 0; i < kKeys; ++i) key[i] = keys + places.key[k + i < count ? k + i : count - 1];
            if (h.pages.table != nullptr) ask_ahead(h, places, k + kAhead, count);
            Acc* const to = scores + k;
            int64_t row = 0;
            for (; row + kRowsAtOnce <= at.rows; row += kRowsAtOnce)
                dots<kRowsAtOnce>(key, q + row * at.size_ld, at.size_ld, h.size, to + row * cpu::kAttentionKeys);
            if (kRowsAtOnce > 2 && row + 2 <= at.rows) {
                dots<2>(key, q + row * at.size_ld, at.size_ld, h.size, to + row * cpu::kAttentionKeys);
                row += 2;
            }
            for (; row < at.rows; ++row)
                dots<1>(key, q + row * at.size_ld, at.size_ld, h.size, to + row * cpu::kAttentionKeys);
        }
    }
    // Where rows leap from page to page, the machine does not see which comes next: keys j .. j + 3, or behind the last
    // of them the first values.
    static NK_INLINE void ask_ahead(const cpu::AttentionHead& h, const Places& places, int64_t j, int64_t count) {
        for (int64_t end = j + kKeys; j < end; ++j) {
            if (j < count)
                ask(static_cast<const S*>(h.key.data) + places.key[j], h.size);
            else if (j - count < count)
                ask(static_cast<const S*>(h.value.data) + places.value[j - count], h.value_size);
        }
    }
    template <class B>
    static NK_INLINE void ask(const B* row, int64_t columns) {
        for (int64_t c = 0; c < columns; c += 64 / int64_t(sizeof(B))) __builtin_prefetch(row + c);
    }
    template <int R>
    static NK_INLINE void dots(const S* const (&key)[kKeys], const Acc* q, int64_t ld, int64_t size, Acc* to) {
        V sum[R][kKeys];
        unroll<R>([&](auto r) { unroll<kKeys>([&](auto i) { sum[r][i] = V(Acc(0)); }); });
        if constexpr (R == 1) {  // memory in its order: in turns, four keys take a tenth longer
            unroll<kKeys>([&](auto i) NK_LAMBDA_INLINE {
                int64_t c = 0;
                for (; c + W <= size; c += W) sum[0][i] = mad(L::load(q + c), L::load(key[i] + c), sum[0][i]);
                if (c < size) sum[0][i] = mad(L::load(q + c), L::load(key[i] + c, L::mask(size - c)), sum[0][i]);
            });
            return sum4(sum[0], to);
        }
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

    static NK_INLINE void add_values(const cpu::AttentionHead& h, const cpu::AttentionFew& at, int64_t count,
                                     const int64_t* places, const Acc* scores, Acc* product, Acc* values, Acc* output) {
        const S* const from = static_cast<const S*>(h.value.data);
        multiply(at, count, scores, from, places, h.value_size, h.pages.table != nullptr, product);
        // a probability of 0 may have met what is infinite or NaN
        if (any_unusual<Acc>({product, at.value_ld, 1}, 0, at.rows, h.value_size)) {
            int64_t own[cpu::kAttentionKeys];
            for (int64_t k = 0; k < count; ++k) {
                own[k] = k * at.value_ld;
                pack_rows<L>(values + own[k], at.value_ld, from + places[k], 0, 1, 1, h.value_size);
            }
            clean<L, S>(values, count * at.value_ld);
            multiply(at, count, scores, static_cast<const Acc*>(values), own, h.value_size, false, product);
            for (int64_t k = 0; k < count; ++k) {
                const cpu::HeadMatrix row{const_cast<S*>(from + places[k]), 0, 1};
                for (int64_t r = 0; r < at.rows; ++r)
                    add_unusual<S, Acc>(row, 0, h.value_size, scores[r * cpu::kAttentionKeys + k],
                                        product + r * at.value_ld);
            }
        }
        for (int64_t row = 0; row < at.rows; ++row)
            for (int64_t c = row * at.value_ld; c < row * at.value_ld + h.value_size; c += W)
                L::store(output + c, L::load(output + c) + L::load(product + c));
    }
    // product[rows, columns] = scores values
    template <class B>
    static NK_INLINE void multiply(const cpu::AttentionFew& at, int64_t count, const Acc* scores, const B* values,
                                   const int64_t* places, int64_t columns, bool asks, Acc* product) {
        int64_t row = 0;
        const auto rows = [&](auto n) {
            all_columns<n>(at, count, scores + row * cpu::kAttentionKeys, values, places, columns, asks,
                           product + row * at.value_ld);
            row += n;
        };
        while (row + 4 <= at.rows) rows(Index<4>{});
        if (row + 2 <= at.rows) rows(Index<2>{});
        if (row < at.rows) rows(Index<1>{});
    }
    template <int R, class B>
    static void all_columns(const cpu::AttentionFew& at, int64_t count, const Acc* scores, const B* values,
                            const int64_t* places, int64_t columns, bool asks, Acc* product) {
        constexpr int most = kSums / R < 8 ? kSums / R : 8;
        int64_t c = 0;
        const auto some = [&](auto vectors) NK_LAMBDA_INLINE {
            for (; c + vectors * W <= columns; c += vectors * W)
                weighted<R, vectors>(at, count, scores, values + c, places, asks, product + c,
                                     [](const B* p) NK_LAMBDA_INLINE { return L::load(p); });
        };
        some(Index<most>{});
        if constexpr (most > 4) some(Index<4>{});
        if constexpr (most > 2) some(Index<2>{});
        some(Index<1>{});
        if (c < columns) {
            const auto m = L::mask(columns - c);
            weighted<R, 1>(at, count, scores, values + c, places, asks, product + c,
                           [m](const B* p) NK_LAMBDA_INLINE { return L::load(p, m); });
        }
    }
    template <int R, int vectors, class B, class Get>
    static NK_INLINE void weighted(const cpu::AttentionFew& at, int64_t count, const Acc* scores, const B* values,
                                   const int64_t* places, bool asks, Acc* product, Get get) {
        V sum[R][vectors];
        unroll<R>([&](auto r) { unroll<vectors>([&](auto v) { sum[r][v] = V(Acc(0)); }); });
        for (int64_t k = 0; k < count; ++k) {
            const B* const from = values + places[k];
            if (asks && k + kAhead < count) ask(values + places[k + kAhead], vectors * W);
            V x[vectors];
            unroll<vectors>([&](auto v) NK_LAMBDA_INLINE { x[v] = get(from + v * W); });
            unroll<R>([&](auto r) NK_LAMBDA_INLINE {
                const V weight(scores[r * cpu::kAttentionKeys + k]);
                unroll<vectors>([&](auto v) NK_LAMBDA_INLINE { sum[r][v] = mad(weight, x[v], sum[r][v]); });
            });
        }
        unroll<R>(
            [&](auto r) { unroll<vectors>([&](auto v) { L::store(product + r * at.value_ld + v * W, sum[r][v]); }); });
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
