// The backward of attention by tiles: each block of keys meets all queries that see it, once.
//
//   for blocks of 128 keys                      packed: transposed for s and dp, straight for dq
//     for blocks of 112 queries
//       for tiles of 14 queries
//         s = q k', dp = g v'                   into the first cache
//         p = exp(s - lse), ds = p (dp - delta)
//         dq += ds k
//       dv += p' g,  dk += ds' q
//
// p and ds of a block of queries lie [queries][keys], so that the microkernel reads them across as well; of bf16 by
// pairs of queries, and ds of the tile once more by pairs of keys.
#pragma once

#include "exponentials.h"
#include "rules.h"

namespace nk::NK_ISA {

template <class L, class S>
struct Backward {
    using Unit = typename L::Unit;
    using Acc = typename L::Acc;
    using V = vec<Acc>;
    using Shape = AttentionShape<L, S>;
    static constexpr int W = L::W, kRows = L::kMaxRows, kWide = Shape::kWide, kGroup = L::group;
    static_assert(kRows % kGroup == 0);

    // ---- queries ----

    static double pack_queries(const cpu::AttentionGradients& h, char* to, int64_t begin, int64_t end) {
        const cpu::AttentionQueries at(Shape::tile(), h.queries, h.size, h.value_size);
        const auto rows = [&](const cpu::HeadMatrix& m, int64_t columns, int64_t offset, int64_t ld) {
            Operand<L, S> x;
            x.take(m, begin, end - begin, columns, reinterpret_cast<Unit*>(to + offset) + begin * ld, ld);
        };
        rows(h.query, h.size, 0, at.query_ld);
        rows(h.g, h.value_size, at.g_rows, at.g_ld);
        const auto straight = [&](const cpu::HeadMatrix& m, int64_t columns, int64_t offset) {
            Unit* const units = reinterpret_cast<Unit*>(to + offset);
            if (h.cleaned || !reads_straight<L, S>(m)) pack_straight<L, S>(m, columns, at.units, begin, end, units);
            for (int64_t c = 0; h.cleaned && c < columns; c += kWide) {
                const int64_t ld = cpu::attention_round_up(columns - c < kWide ? columns - c : kWide, W);
                clean<L, S>(units + c * at.units + begin / kGroup * ld, (end - begin + kGroup - 1) / kGroup * ld);
            }
        };
        straight(h.query, h.size, at.query);
        straight(h.g, h.value_size, at.g);

        Acc* const lse = reinterpret_cast<Acc*>(to + at.numbers);
        Acc* const delta = lse + h.queries;
        double sink = 0;
        for (int64_t i = begin; i < end; ++i) {
            const Acc l = static_cast<const Acc*>(h.lse.data)[i * h.lse.row];
            lse[i] = l == minus_infinity<Acc>() ? Acc(0) : l * kUnit<Acc>;
            delta[i] = product_of_rows(h, i);
            if (h.g_lse.data != nullptr) delta[i] -= static_cast<const Acc*>(h.g_lse.data)[i * h.g_lse.row];
            if (h.sink != nullptr) {
                const Acc p = one_of(power(V(static_cast<Acc>(*h.sink * double(kUnit<Acc>)) - lse[i])));
                sink -= double(p) * double(delta[i]);
            }
        }
        return sink;
    }

    static NK_INLINE Acc product_of_rows(const cpu::AttentionGradients& h, int64_t i) {
        const S* a = static_cast<const S*>(h.g.data) + i * h.g.row;
        const S* b = static_cast<const S*>(h.output.data) + i * h.output.row;
        V sum(Acc(0));
        if (h.g.column == 1 && h.output.column == 1) {
            for (int64_t c = 0; c < h.value_size; c += W) {
                const auto m = first<Acc>(h.value_size - c);
                sum = mad(load(a + c, m), load(b + c, m), sum);
            }
            return reduce_add(sum);
        }
        Acc total = 0;
        for (int64_t c = 0; c < h.value_size; ++c)
            total += Acc(to_number(a[c * h.g.column])) * Acc(to_number(b[c * h.output.column]));
        return total;
    }

    // ---- a block of keys ----

    const cpu::AttentionBlock at;
    const cpu::AttentionQueries layout;
    char* work;
    const cpu::AttentionGradients& h;
    const KeyRange block;
    const int64_t width;  // of the block, in whole vectors
    const char* queries;
    Acc* dq;
    bool added;  // whether dk and dv have sums
    Rules<S> rules;
    Operand<L, S> query, g, query_straight, g_straight, key_straight;
    bool plain;

    template <class T>
    NK_INLINE T* part(int64_t offset) const {
        return reinterpret_cast<T*>(work + offset);
    }

    static void run(const cpu::AttentionGradients* heads, int64_t count, const char* queries, void* g_query,
                    char* scratch, int64_t begin, int64_t end) {
        const cpu::AttentionGradients& h = heads[0];
        const cpu::AttentionBlock at(Shape::tile(), h.size, h.value_size);
        const cpu::AttentionQueries layout(Shape::tile(), h.queries, h.size, h.value_size);
        const cpu::HeadMatrix key{const_cast<S*>(static_cast<const S*>(h.key.data)) + begin * h.key.row, h.key.row,
                                  h.key.column};
        const cpu::HeadMatrix value{const_cast<S*>(static_cast<const S*>(h.value.data)) + begin * h.value.row,
                                    h.value.row, h.value.column};
        pack_transposed<L, S>(key, h.size, 0, end - begin, reinterpret_cast<Unit*>(scratch));
        pack_transposed<L, S>(value, h.value_size, 0, end - begin, reinterpret_cast<Unit*>(scratch + at.values));
        Unit* const straight = reinterpret_cast<Unit*>(scratch + at.straight);
        if (h.cleaned || !reads_straight<L, S>(key))
            pack_straight<L, S>(key, h.size, at.straight_units, 0, end - begin, straight);
        if (h.cleaned) clean<L, S>(straight, at.straight_units * at.size_ld);
        bool added = false;
        for (int64_t i = 0; i < count; ++i) {
            Backward b(heads[i], at, layout, scratch, {begin, end}, queries + i * layout.bytes,
                       static_cast<Acc*>(g_query) + i * h.queries * at.size_ld, added);
            b.key_straight.as_packed(key, straight, h.cleaned);
            b.all();
            added = b.added;
        }
        put(h.g_key, begin, end, reinterpret_cast<const Acc*>(scratch + at.g_key), at.size_ld, h.size, added);
        put(h.g_value, begin, end, reinterpret_cast<const Acc*>(scratch + at.g_value), at.value_ld, h.value_size,
            added);
    }

    Backward(const cpu::AttentionGradients& head, const cpu::AttentionBlock& where, const cpu::AttentionQueries& packed,
             char* scratch, KeyRange keys, const char* of_queries, Acc* g_query, bool has)
        : at(where),
          layout(packed),
          work(scratch),
          h(head),
          block(keys),
          width(cpu::attention_round_up(keys.end - keys.begin, W)),
          queries(of_queries),
          dq(g_query),
          added(has),
          rules(head) {
        Unit* const rows = reinterpret_cast<Unit*>(const_cast<char*>(queries));
        query.take(h.query, 0, h.queries, h.size, rows, layout.query_ld, false);
        g.take(h.g, 0, h.queries, h.value_size, reinterpret_cast<Unit*>(const_cast<char*>(queries) + layout.g_rows),
               layout.g_ld, false);
        query_straight.as_packed(h.query, reinterpret_cast<const Unit*>(queries + layout.query), h.cleaned);
        g_straight.as_packed(h.g, reinterpret_cast<const Unit*>(queries + layout.g), h.cleaned);
        plain = h.rules.softcap == 0 && !rules.drops() && h.g_bias == nullptr;
    }

    NK_INLINE void all() {
        constexpr int64_t kBlock = cpu::kAttentionTiles * kRows;
        KeyRange seen = seeing_queries(h.rules, block.begin, h.queries, h.keys);
        for (int64_t k = block.begin; k < block.end; ++k) {
            const KeyRange one = seeing_queries(h.rules, k, h.queries, h.keys);
            if (one.begin >= one.end) continue;
            if (seen.begin >= seen.end) seen = one;
            if (one.begin < seen.begin) seen.begin = one.begin;
            if (one.end > seen.end) seen.end = one.end;
        }
        for (int64_t i = seen.begin / kRows * kRows; i < seen.end; i += kBlock) {
            const int64_t end = seen.end < i + kBlock ? seen.end : i + kBlock;
            for (int64_t t = i; t < end; t += kRows)
                tile(t, t - i, static_cast<int>(end - t < kRows ? end - t : kRows));
            gradients_of_keys(i, end - i);
            added = true;
        }
    }

    // Queries i .. i + n - 1, rows `row` on of p and ds.
    NK_INLINE void tile(int64_t i, int64_t row, int n) {
        Acc *const s = part<Acc>(at.scores), *const dp = part<Acc>(at.slopes);
        Unit *const p = part<Unit>(at.p) + row / kGroup * at.ld, *const ds = part<Unit>(at.ds) + row / kGroup * at.ld;
        KeyRange r = keys_of_rows(h, i, i + n);
        r.begin = r.begin < block.begin ? 0 : r.begin - block.begin;
        r.end = (r.end < block.end ? r.end : block.end) - block.begin;
        if (r.begin >= r.end) r.begin = r.end = 0;
        r.begin = r.begin / kWide * kWide;
        const int64_t keys = block.end - block.begin, stop = cpu::attention_round_up(r.end, W);
        products<L, S>(query, i, n, part<Unit>(0), keys, at.key_units, r, s, at.ld);
        products<L, S>(g, i, n, part<Unit>(at.values), keys, at.value_units, r, dp, at.ld);
        const int64_t count = stop - r.begin;
        for (int j = 0; j < n; j += kGroup) {
            Unit *const to_p = p + j / kGroup * at.ld, *const to_ds = ds + j / kGroup * at.ld;
            for (int64_t k = 0; k < r.begin; k += W) put_none(to_p + k), put_none(to_ds + k);
            for (int64_t k = stop; k < width; k += W) put_none(to_p + k), put_none(to_ds + k);
            if (plain)
                rows<true>(i + j, n - j, r, s + j * at.ld, dp + j * at.ld, to_p + r.begin, to_ds + r.begin, count,
                           rows_of(j));
            else
                rows<false>(i + j, n - j, r, s + j * at.ld, dp + j * at.ld, to_p + r.begin, to_ds + r.begin, count,
                            rows_of(j));
        }
        if (h.g_query.data == nullptr || r.begin >= r.end) return;
        MicroArgs<Acc> m{};
        m.a = kGroup == 2 ? reinterpret_cast<const char*>(rows_of(0)) : reinterpret_cast<const char*>(ds + r.begin);
        m.a_row = at.ld * int64_t(sizeof(Unit)), m.a_step = sizeof(Unit);
        if (kGroup == 2) m.a_row = at.ld * int64_t(sizeof(bf16));
        m.k = (r.end - r.begin + kGroup - 1) / kGroup;
        add_product(m, n, key_straight, r.begin, at.straight_units, h.size, dq + i * at.size_ld, at.size_ld, true);
        for (int64_t k = r.begin; h.cleaned && k < r.end; ++k)
            if (any_unusual<S>(h.key, block.begin + k, block.begin + k + 1, h.size))
                for (int j = 0; j < n; ++j)
                    add_unusual<S, Acc>(h.key, block.begin + k, h.size, weight(ds, j, k), dq + (i + j) * at.size_ld);
    }
    // Number [row, key] of p or ds.
    NK_INLINE Acc weight(const Unit* units, int64_t row, int64_t key) const {
        return to_number(reinterpret_cast<const typename Shape::Probability*>(
            units)[(row / kGroup * at.ld + key) * kGroup + row % kGroup]);
    }
    NK_INLINE bf16* rows_of(int j) const { return part<bf16>(at.rows) + j * at.ld; }

    // One query, or two of bf16: from scores and the gradient of probabilities to p and ds. A query whose keys all lie
    // in this block has its softmax made again, and delta of it: lse and the output were rounded.
    template <bool Plain>
    NK_INLINE void rows(int64_t i, int n, KeyRange r, Acc* s, Acc* dp, Unit* p, Unit* ds, int64_t count, bf16* row) {
        constexpr int N = kGroup;
        Softmax of[N];
        bool whole = true;
        Acc* const slack = part<Acc>(at.extra);
        Acc* const kept = slack + N * at.ld;
        unroll<N>([&](auto q) {
            if (q < n) {
                const KeyRange all = visible_keys(h.rules, i + q, h.queries, h.keys);
                whole = whole && all.begin >= block.begin && all.end <= block.end;
            }
        });
        unroll<N>([&](auto q) {
            Acc* const scores = s + q * at.ld;
            if (q >= n) {
                for (int64_t k = 0; k < count; k += W)
                    L::store(scores + k, V(whole ? Acc(0) : minus_infinity<Acc>())),
                        L::store(dp + q * at.ld + k, V(Acc(0)));
                return;
            }
            const KeyRange from{block.begin + r.begin, block.begin + r.end};
            const KeyRange seen = rules.apply(i + q, from, scores, count, Plain ? nullptr : slack + q * at.ld);
            for (int64_t k = 0; k < seen.begin / (2 * W) * (2 * W); k += W)
                L::store(scores + k, V(minus_infinity<Acc>()));
            for (int64_t k = cpu::attention_round_up(seen.end, 2 * W); k < count; k += W)
                L::store(scores + k, V(minus_infinity<Acc>()));
            if constexpr (!Plain)
                if (rules.drops()) drop(i + q, from, count, kept + q * at.ld, dp + q * at.ld);
            of[q] = whole ? made_again(i + q, scores, seen, dp + q * at.ld, count) : known(i + q);
        });
        const V unit(rules.unit), scale(static_cast<Acc>(h.rules.scale)), zero(Acc(0));
        const V hidden(minus_infinity<Acc>());
        const bool caps = h.rules.softcap != 0, drops = rules.drops();
        const auto finish = [&](auto again) NK_LAMBDA_INLINE {
            for (int64_t k = 0; k < count; k += W) {
                V share[N], change[N];
                unroll<N>([&](auto q) {
                    const V x = L::load(s + q * at.ld + k);
                    if constexpr (again.value != 0)
                        share[q] = x * V(of[q].factor);
                    else
                        share[q] = power(mad(x, unit, V(of[q].less)));
                    // hidden keys stay so where the softmax is NaN
                    share[q] = select(x == (again.value != 0 ? zero : hidden), zero, share[q]);
                    const auto none = share[q] == zero;
                    change[q] = share[q] * (L::load(dp + q * at.ld + k) - V(of[q].delta));

                    if constexpr (!Plain) {
                        if (h.g_bias != nullptr) L::store(dp + q * at.ld + k, select(none, zero, change[q]));
                        if (caps) change[q] = change[q] * L::load(slack + q * at.ld + k);
                        if (drops) share[q] = share[q] * L::load(kept + q * at.ld + k);
                    }
                    change[q] = select(none, zero, change[q] * scale);
                });
                put(p + k, ds + k, share, change, row + k);
            }
        };
        whole ? finish(Index<1>{}) : finish(Index<0>{});
        if constexpr (!Plain)
            if (h.g_bias != nullptr)
                for (int q = 0; q < N && q < n; ++q) {
                    Acc* const to = static_cast<Acc*>(h.g_bias) + (i + q) * h.g_bias_row +
                                    (block.begin + r.begin) * h.g_bias_column;
                    for (int64_t j = 0; j < r.end - r.begin; ++j) to[j * h.g_bias_column] += dp[q * at.ld + j];
                }
    }

    struct Softmax {
        Acc less = 0, factor = 1, delta = 0;
    };

    // What the forward left of a query's softmax.
    NK_INLINE Softmax known(int64_t i) const {
        const Acc* const numbers = reinterpret_cast<const Acc*>(queries + layout.numbers);
        return {-numbers[i], 1, numbers[h.queries + i]};
    }

    // Scores become exponentials, in place.
    NK_INLINE Softmax made_again(int64_t i, Acc* s, KeyRange seen, const Acc* dp, int64_t count) const {
        Acc top = highest<Acc>(s, seen), sum = 0;
        if (h.sink != nullptr) {
            const Acc sink = static_cast<Acc>(*h.sink * double(kUnit<Acc>)) / rules.unit;
            if (sink > top) top = sink;
            if (top > minus_infinity<Acc>()) sum = one_of(power(V((sink - top) * rules.unit)));
        }
        if (top == minus_infinity<Acc>()) top = 0;
        V total(Acc(0)), slope(Acc(0));
        for (int64_t k = 0; k < count; k += W) {
            const V e = power((L::load(s + k) - V(top)) * V(rules.unit));
            L::store(s + k, e);
            total = total + e;
            slope = slope + select(e == V(Acc(0)), V(Acc(0)), e * L::load(dp + k));
        }
        sum += reduce_add(total);
        Softmax of{0, sum == 0 ? Acc(0) : 1 / sum, 0};
        of.delta = reduce_add(slope) * of.factor;
        if (h.g_lse.data != nullptr) of.delta -= static_cast<const Acc*>(h.g_lse.data)[i * h.g_lse.row];
        return of;
    }
    static NK_INLINE Acc one_of(V x) {
        alignas(64) Acc of[W];
        L::store(of, x);
        return of[0];
    }

    // What dropout makes of probabilities, and so of their gradients.
    NK_INLINE void drop(int64_t i, KeyRange r, int64_t count, Acc* kept, Acc* dp) const {
        for (int64_t k = 0; k < W; ++k) kept[count - W + k] = 0;
        rules.each(i, r.begin, r.end - r.begin, [&](int64_t j, bool k) { kept[j] = k ? rules.keep : Acc(0); });
        for (int64_t k = 0; k < count; k += W) L::store(dp + k, L::load(dp + k) * L::load(kept + k));
    }

    static NK_INLINE void put_none(Unit* p) {
        if constexpr (kGroup == 1) L::store(p, V(Acc(0)));
#if defined(__AVX512BF16__)
        if constexpr (kGroup == 2) _mm512_storeu_si512(p, _mm512_setzero_si512());
#endif
    }
    NK_INLINE void put(Unit* p, Unit* ds, const V (&share)[kGroup], const V (&change)[kGroup],
                       [[maybe_unused]] bf16* row) const {
        if constexpr (kGroup == 1) L::store(p, share[0]), L::store(ds, change[0]);
#if defined(__AVX512BF16__)
        if constexpr (kGroup == 2) {
            const __m512i a = (__m512i)_mm512_cvtne2ps_pbh(share[1].v, share[0].v);
            const __m512i b = (__m512i)_mm512_cvtne2ps_pbh(change[1].v, change[0].v);
            _mm512_storeu_si512(p, interleaved(a));
            _mm512_storeu_si512(ds, interleaved(b));
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(row), _mm512_castsi512_si256(b));
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(row + at.ld), _mm512_extracti64x4_epi64(b, 1));
        }
#endif
    }
#if defined(__AVX512BF16__)
    static NK_INLINE __m512i interleaved(__m512i x) {  // 16-bit numbers i and 16 + i side by side
        const __m512i low = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(x));
        const __m512i high = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(x, 1));
        return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
    }
#endif

    // out[n, columns] (+)= a b, where b's rows begin at `first`; `units`: the length of its panels.
    static NK_INLINE void add_product(MicroArgs<Acc>& m, int n, const Operand<L, S>& b, int64_t first, int64_t units,
                                      int64_t columns, Acc* out, int64_t ld, bool add) {
        m.c_ld = m.init_ld = ld, m.target_row = ld * int64_t(sizeof(Acc));
        for (int64_t c = 0; c < columns; c += kWide) {
            const int64_t left = columns - c < kWide ? columns - c : kWide, width = cpu::attention_round_up(left, W);
            m.c = out + c, m.target = m.c, m.init = add ? out + c : nullptr;
            m.n = static_cast<int>(left);
            if (b.as_is) {
                m.b = reinterpret_cast<const char*>(b.data + first * b.row + c);
                m.b_step = b.row * int64_t(sizeof(Unit));
            } else {
                m.b = reinterpret_cast<const char*>(b.data + c * units + first / kGroup * width);
                m.b_step = width * int64_t(sizeof(Unit));
            }
            pick_micro<L, Unit, Acc, kRows>(n, static_cast<int>(width / W))(m);
        }
    }

    // dk and dv of the block, by queries i .. i + n - 1.
    NK_INLINE void gradients_of_keys(int64_t i, int64_t n) {
        const int64_t keys = block.end - block.begin, tiles = (keys + kRows - 1) / kRows;
        const auto product = [&](int64_t a, const Operand<L, S>& b, int64_t columns, int64_t to,
                                 int64_t ld) NK_LAMBDA_INLINE {
            for (int64_t t = 0; t < tiles; ++t) {
                const int64_t k = keys * t / tiles, rows = keys * (t + 1) / tiles - k;
                MicroArgs<Acc> m{};
                m.a = reinterpret_cast<const char*>(part<Unit>(a) + k);
                m.a_row = sizeof(Unit), m.a_step = at.ld * int64_t(sizeof(Unit));
                m.k = (n + kGroup - 1) / kGroup;
                add_product(m, static_cast<int>(rows), b, i, layout.units, columns, part<Acc>(to) + k * ld, ld, added);
            }
        };
        if (h.g_value.data != nullptr) product(at.p, g_straight, h.value_size, at.g_value, at.value_ld);
        if (h.g_key.data != nullptr) product(at.ds, query_straight, h.size, at.g_key, at.size_ld);
        for (int64_t q = 0; h.cleaned && q < n; ++q) {
            const bool in_g = h.g_value.data != nullptr && any_unusual<S>(h.g, i + q, i + q + 1, h.value_size);
            for (int64_t k = 0; in_g && k < keys; ++k)
                add_unusual<S, Acc>(h.g, i + q, h.value_size, weight(part<Unit>(at.p), q, k),
                                    part<Acc>(at.g_value) + k * at.value_ld);
            const bool in_query = h.g_key.data != nullptr && any_unusual<S>(h.query, i + q, i + q + 1, h.size);
            for (int64_t k = 0; in_query && k < keys; ++k)
                add_unusual<S, Acc>(h.query, i + q, h.size, weight(part<Unit>(at.ds), q, k),
                                    part<Acc>(at.g_key) + k * at.size_ld);
        }
    }

    static void put(const cpu::HeadMatrix& m, int64_t begin, int64_t end, const Acc* from, int64_t ld, int64_t columns,
                    bool added) {
        if (m.data == nullptr) return;
        for (int64_t k = begin; k < end; ++k, from += ld) {
            S* const to = static_cast<S*>(m.data) + k * m.row;
            if (m.column == 1)
                for (int64_t c = 0; c < columns; c += W)
                    L::store(to + c, added ? L::load(from + c) : V(Acc(0)), L::mask(columns - c));
            else
                for (int64_t c = 0; c < columns; ++c) put_number(to[c * m.column], added ? from[c] : Acc(0));
        }
    }

    static void finish_queries(const cpu::AttentionGradients& h, const void* sums, int64_t apart, int parts,
                               int64_t begin, int64_t end) {
        const int64_t ld = cpu::attention_round_up(h.size, W);
        for (int64_t i = begin; i < end; ++i) {
            const Acc* from = static_cast<const Acc*>(sums) + i * ld;
            S* const to = static_cast<S*>(h.g_query.data) + i * h.g_query.row;
            for (int64_t c = 0; c < h.size; c += W) {
                V sum = L::load(from + c);
                for (int part = 1; part < parts; ++part) sum = sum + L::load(from + part * apart + c);
                if (h.g_query.column == 1) {
                    L::store(to + c, sum, L::mask(h.size - c));
                } else {
                    alignas(64) Acc of[W];
                    L::store(of, sum);
                    for (int64_t j = 0; j < W && c + j < h.size; ++j) put_number(to[(c + j) * h.g_query.column], of[j]);
                }
            }
        }
    }
};

}  // namespace nk::NK_ISA
