// Which keys a query of attention sees, and what happens to a score before the softmax: the same on the host, on the
// CPU and in CUDA.
//
//   s = scale * q k'                                  scores
//   s = softcap * tanh(s / softcap)                   if softcap is not 0
//   s = s - slope[head] * |place - key|               if there are slopes (ALiBi)
//   s = s + bias[..., query, key]                     if there is a bias
//   p = softmax over the keys that are visible, the sink's logit counting in the sum alone
//   p = p / (1 - dropout) where uniform(seed, index) >= dropout, else 0
//   out = p v,   lse = log of the softmax's sum (-infinity where nothing is visible, and out is 0)
//
// A query is at `place`: its own number, or with bottom_right that plus (keys - queries), so that the last query is at
// the last key. It sees keys place - left .. place + right, of its own chunk alone if there are chunks, and of those
// the ones where the mask is true. A key that is not visible counts for nothing, whatever its value.
#pragma once

#include <stdint.h>

#ifdef __CUDACC__
#define NK_ATTENTION_FN __host__ __device__ __forceinline__
#else
#define NK_ATTENTION_FN inline
#endif

namespace nk {

inline constexpr int64_t kNoLimit = int64_t{1} << 40;  // left or right: as far as there are keys

struct AttentionRules {
    int64_t left = kNoLimit, right = kNoLimit;
    int64_t chunk = 0;         // keys of a chunk; 0: there are none
    int32_t bottom_right = 0;  // whether the last query is at the last key, else the first at the first
    double scale = 1, softcap = 0;
    double dropout = 0;             // probability
    uint64_t seed = 0, offset = 0;  // on a GPU they are read from memory there
};

// Keys begin .. end - 1, none when begin >= end.
struct KeyRange {
    int64_t begin, end;
};

NK_ATTENTION_FN int64_t place_of(const AttentionRules& r, int64_t query, int64_t queries, int64_t keys) {
    return r.bottom_right ? query + keys - queries : query;
}

NK_ATTENTION_FN KeyRange visible_keys(const AttentionRules& r, int64_t query, int64_t queries, int64_t keys) {
    const int64_t place = place_of(r, query, queries, keys);
    int64_t begin = place - r.left, end = place + r.right + 1;
    if (r.chunk > 0) {
        const int64_t first = (place >= 0 ? place : place - r.chunk + 1) / r.chunk * r.chunk;
        if (first > begin) begin = first;
        if (first + r.chunk < end) end = first + r.chunk;
    }
    return {begin > 0 ? begin : 0, end < keys ? end : keys};
}

// The queries that see key `key`, as a range that holds them all: the same question from the other side.
NK_ATTENTION_FN KeyRange seeing_queries(const AttentionRules& r, int64_t key, int64_t queries, int64_t keys) {
    const int64_t shift = r.bottom_right ? keys - queries : 0;
    int64_t begin = key - r.right, end = key + r.left + 1;  // places
    if (r.chunk > 0) {
        const int64_t first = key / r.chunk * r.chunk;
        if (first > begin) begin = first;
        if (first + r.chunk < end) end = first + r.chunk;
    }
    begin -= shift, end -= shift;
    return {begin > 0 ? begin : 0, end < queries ? end : queries};
}

// The number of a probability, from which dropout's random number is made: word index % 4 of Philox's block
// offset + index / 4.
NK_ATTENTION_FN uint64_t dropout_index(int64_t batch, int64_t heads, int64_t head, int64_t queries, int64_t query,
                                       int64_t keys, int64_t key) {
    return static_cast<uint64_t>(((batch * heads + head) * queries + query) * keys + key);
}

}  // namespace nk
