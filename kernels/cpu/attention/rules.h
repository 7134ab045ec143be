// Attention by tiles: which scores of a row can be seen, and what happens to them before the softmax.
#pragma once

#include "shape.h"

namespace nk::NK_ISA {

// The keys that at least one of these queries may see, as one range.
inline KeyRange keys_of_rows(const cpu::AttentionHead& h, int64_t begin, int64_t end) {
    KeyRange all = visible_keys(h.rules, begin, h.queries, h.keys);
    const KeyRange last = visible_keys(h.rules, end - 1, h.queries, h.keys);  // both ends grow with the query
    if (last.end > all.end) all.end = last.end;
    return all;
}

template <class S>
struct Rules {
    using Acc = typename compute<S>::type;
    using V = vec<Acc>;
    static constexpr int W = V::lanes;

    const cpu::AttentionHead& h;
    bool plain;  // scores need nothing but the scale
    Acc unit;    // from what `apply` leaves to units of log2(e)
    Acc keep;

    explicit Rules(const cpu::AttentionHead& head) : h(head) {
        plain = h.rules.scale > 0 && h.rules.softcap == 0 && h.slope == nullptr && h.mask.data == nullptr &&
                h.bias.data == nullptr;
        unit = static_cast<Acc>((plain ? h.rules.scale : 1) * double(kUnit<Acc>));
        keep = static_cast<Acc>(1 / (1 - h.rules.dropout));
    }

    bool drops() const { return h.rules.dropout != 0; }

    // s[0 .. n): scores of keys from r.begin on. Returns where those that the query sees are; all others in its vectors
    // become -infinity.
    NK_INLINE KeyRange apply(int64_t query, KeyRange r, Acc* s, int64_t n, Acc* slack = nullptr) const {
        KeyRange seen = visible_keys(h.rules, query, h.queries, h.keys);
        seen.begin = seen.begin < r.begin ? 0 : seen.begin - r.begin;
        seen.end = (seen.end < r.end ? seen.end : r.end) - r.begin;
        if (seen.begin >= seen.end) return {0, 0};
        if (!plain) change(query, r.begin, s, seen, slack);
        const int64_t from = seen.begin / (2 * W) * (2 * W);
        int64_t to = (seen.end + 2 * W - 1) / (2 * W) * (2 * W);
        if (to > n) to = n;
        for (int64_t j = from; j < seen.begin; ++j) s[j] = minus_infinity<Acc>();
        for (int64_t j = seen.end; j < to; ++j) s[j] = minus_infinity<Acc>();
        return seen;
    }

    // Everything that happens to a score; slack: what softcap makes of its derivative.
    void change(int64_t query, int64_t first_key, Acc* s, KeyRange seen, Acc* slack) const {
        const int64_t begin = seen.begin, end = seen.end;
        const V scale(static_cast<Acc>(h.rules.scale));
        const bool capped = h.rules.softcap != 0;
        if (capped) {
            const V by(static_cast<Acc>(h.rules.scale / h.rules.softcap)), cap(static_cast<Acc>(h.rules.softcap));
            for (int64_t j = begin / W * W; j < end; j += W) {
                const V t = math::tanh(load(s + j) * by);
                store(s + j, cap * t);
                if (slack != nullptr) store(slack + j, V(Acc(1)) - t * t);
            }
        }
        if (h.slope != nullptr) {
            alignas(64) Acc lane[W];
            for (int l = 0; l < W; ++l) lane[l] = static_cast<Acc>(l);
            const int64_t away = place_of(h.rules, query, h.queries, h.keys) - first_key;
            const V slope(static_cast<Acc>(*h.slope)), lanes = load(lane), by = capped ? V(Acc(1)) : scale;
            for (int64_t j = begin / W * W; j < end; j += W)
                store(s + j, load(s + j) * by - slope * abs(V(static_cast<Acc>(j - away)) + lanes));
        } else if (!capped) {
            for (int64_t j = begin / W * W; j < end; j += W) store(s + j, load(s + j) * scale);
        }
        if (h.bias.data != nullptr) {
            if (sizeof(S) == 2 && h.bias_f32)
                add<typename ChoiceOf<sizeof(S) == 2, float, S>::type>(query, first_key, s, seen);
            else
                add<S>(query, first_key, s, seen);
        }
        if (h.mask.data != nullptr) {
            const auto* m = static_cast<const uint8_t*>(h.mask.data) + query * h.mask.row + first_key * h.mask.column;
            if (h.mask.column == 1)
                for (int64_t j = begin; j < end; ++j) s[j] = m[j] != 0 ? s[j] : minus_infinity<Acc>();
            else
                for (int64_t j = begin; j < end; ++j) s[j] = m[j * h.mask.column] != 0 ? s[j] : minus_infinity<Acc>();
        }
    }
    template <class B>
    void add(int64_t query, int64_t first_key, Acc* s, KeyRange seen) const {
        const B* b = static_cast<const B*>(h.bias.data) + query * h.bias.row + first_key * h.bias.column;
        int64_t j = seen.begin;
        if (h.bias.column == 1)
            for (; j + W <= seen.end; j += W) store(s + j, load(s + j) + load(b + j));
        for (; j < seen.end; ++j) s[j] += to_number(b[j * h.bias.column]);
    }

    // Probabilities of keys first_key .. first_key + n - 1 become 0, or greater, as dropout has it.
    template <class Unit>
    void drop(int64_t query, int64_t first_key, Unit* units, int64_t n) const {
        const auto change = [&](auto* p) {
            each(query, first_key, n, [&](int64_t j, bool kept) {
                Acc x = to_number(p[j]);
                x = kept ? x * keep : Acc(0);
                put_number(p[j], x);
            });
        };
        if constexpr (sizeof(Unit) == 4 && !__is_same(Unit, float))
            change(reinterpret_cast<bf16*>(units));
        else
            change(units);
    }
    // f(j, whether key first_key + j is kept)
    template <class F>
    NK_INLINE void each(int64_t query, int64_t first_key, int64_t n, F&& f) const {
        const uint64_t index = h.dropout_index + static_cast<uint64_t>(query * h.dropout_row + first_key);
        const auto below = static_cast<float>(h.rules.dropout);
        for (int64_t j = 0; j < n;) {
            const math::PhiloxBlock made = math::philox(h.rules.seed, h.rules.offset + (index + j) / 4);
            for (auto word = (index + j) % 4; word < 4 && j < n; ++word, ++j)
                f(j, math::uniform<24>(made.word[word]) >= below);
        }
    }
};

}  // namespace nk::NK_ISA
