// What becomes of the scores of one head (../../attention.h), a number at a time.
#pragma once

#include "../../math.h"
#include "../../math/philox.h"
#include "../ptx/approx.h"
#include "place.h"

namespace nk::cuda {

inline constexpr float kLog2E = 1.44269504f, kLn2 = 0.693147181f;

// Whether dropout keeps probability number `index`; `seed` holds the seed and where its numbers begin.
__device__ __forceinline__ bool dropout_keeps(const uint64_t* seed, float dropout, uint64_t index) {
    const math::PhiloxBlock made = math::philox(seed[0], seed[1] + index / 4);
    const uint32_t low = index & 1 ? made.word[1] : made.word[0], high = index & 1 ? made.word[3] : made.word[2];
    return math::uniform<24>(index & 2 ? high : low) >= dropout;
}

template <DType T>
struct HeadScores {
    using Number = compute_t<T>;

    const AttentionParams* params;
    const uint8_t* mask;
    const char* bias;
    Number scale, cap, slope;
    int64_t queries, keys, shift;  // shift: from a query's number to its place
    uint64_t first_index;          // of dropout, for query 0 and key 0

    HeadScores() = default;  // for shared memory
    __device__ __forceinline__ HeadScores(const AttentionParams& p, const AttentionPlace& place)
        : params(&p), mask(static_cast<const uint8_t*>(p.mask.data)), bias(static_cast<const char*>(p.bias.data)) {
        if (mask != nullptr) mask += place.of_pairs(p.mask);
        if (bias != nullptr) bias += place.of_pairs(p.bias) * (p.bias_f32 ? 4 : size_of(T));
        scale = static_cast<Number>(p.rules.scale), cap = static_cast<Number>(p.rules.softcap);
        slope = slope_of<Number>(p, place);
        queries = place.queries, keys = place.keys;
        shift = p.rules.bottom_right ? keys - queries : 0;
        first_index = static_cast<uint64_t>(place.row_number(p) * p.keys + place.first_key);
    }

    // The keys of a query but for the mask; none for rows that do not exist.
    __device__ __forceinline__ KeyRange range(int64_t query) const {
        if (query < 0 || query >= queries) return {0, 0};
        return visible_keys(params->rules, query, queries, keys);
    }
    // The queries of a key.
    __device__ __forceinline__ KeyRange seen_by(int64_t key) const {
        if (key < 0 || key >= keys) return {0, 0};
        return seeing_queries(params->rules, key, queries, keys);
    }
    __device__ __forceinline__ bool sees(const KeyRange& r, int64_t query, int64_t key) const {
        return key >= r.begin && key < r.end &&
               (mask == nullptr || mask[query * params->mask.row + key * params->mask.column] != 0);
    }
    // The score of a pair that exists; slack is its derivative by scale * q k'. Quick: tanh within 2^-18 of itself.
    template <bool Quick = false>
    __device__ __forceinline__ Number score(Number dot, int64_t query, int64_t key, Number& slack) const {
        Number s = dot * scale;
        slack = 1;
        if (cap != 0) {
            const Number x = s / cap;
            if constexpr (Quick) {
                // near 0 the difference from 1 has lost x
                const float t = fabsf(x) < 0.03f ? x - x * x * x * (1.f / 3)
                                                 : 1 - 2 * ptx::rcp_approx(1 + ptx::ex2_approx(2 * kLog2E * x));
                s = cap * t, slack = 1 - t * t;
            } else {
                s = cap * math::tanh(x), slack = math::sech2(x);
            }
        }
        if (params->slopes.data != nullptr) {
            const int64_t away = query + shift - key;
            s -= slope * static_cast<Number>(away < 0 ? -away : away);
        }
        if (bias != nullptr) {
            const int64_t i = query * params->bias.row + key * params->bias.column;
            s += params->bias_f32 ? static_cast<Number>(reinterpret_cast<const float*>(bias)[i]) : load<T>(bias, i);
        }
        return s;
    }
    __device__ __forceinline__ Number kept(int64_t query, int64_t key) const {
        if (params->rules.dropout == 0) return 1;
        const uint64_t index = first_index + static_cast<uint64_t>(query * params->keys + key);
        return dropout_keeps(params->seed, static_cast<float>(params->rules.dropout), index)
                   ? static_cast<Number>(1 / (1 - params->rules.dropout))
                   : Number(0);
    }
};

template <class Number>
__device__ __forceinline__ Number minus_infinity() {
    return -static_cast<Number>(INFINITY);
}

}  // namespace nk::cuda
