// Between tensors and rows of accumulators [column][lane], where each lane is a channel.
//
// Channels that lie side by side are vectors already; columns that do become rows of a square of lanes, which is
// transposed. Anything else goes element by element.
#pragma once

#include "../product/lanes.h"
#include "depthwise.h"

namespace nk::NK_ISA {

// Where the channels of one vector lie.
template <class S>
struct LaneChannels {
    int64_t offset[vec<S>::lanes] = {};  // of each; those beyond the last repeat it
    int n = 0;                           // valid
    bool together = false;               // side by side

    LaneChannels() = default;
    // Channels first + l of what is made; (c / per_group) * sources + s of the source.
    LaneChannels(int64_t first, int64_t channels, int64_t per_group, int64_t sources, int64_t s, int64_t stride) {
        n = channels - first < vec<S>::lanes ? static_cast<int>(channels - first) : vec<S>::lanes;
        together = per_group == 1 && sources == 1 && (stride == 1 || n == 1);
        for (int l = 0; l < vec<S>::lanes; ++l) {
            const int64_t c = first + (l < n ? l : n - 1);
            offset[l] = (per_group == 1 ? c * sources + s : c / per_group * sources + s) * stride;
        }
    }
};

constexpr int64_t kFew = 2;  // columns that are not worth a square of lanes: 49 pixels have one such

// `n` columns of memory, `columns` to a row of lanes; those `ahead` elements on are fetched for later.
template <class S, class T>
void transpose_in(S* to, int64_t columns, int64_t apart, const T* from, const LaneChannels<S>& c, int64_t n,
                  int64_t ahead = 0) {
    using V = vec<S>;
    if constexpr (V::lanes == 1) {
        const T* x = from + c.offset[0];
        for (; n > 0; n -= columns, x += columns, to += apart)
            for (int64_t j = 0; j < columns && j < n; ++j) store(to + j, load(x + j));
    } else {
        const T* row[V::lanes];
        for (int l = 0; l < V::lanes; ++l) row[l] = from + c.offset[l];
        int64_t column = 0;
        for (int64_t j = 0; j < n; j += V::lanes) {
            const int64_t left = n - j;
            if (left <= kFew) {
                for (int64_t i = 0; i < left; ++i) {
                    S* const at = to + column * V::lanes;
                    for (int l = 0; l < V::lanes; ++l) at[l] = to_number(row[l][j + i]);
                    if (++column == columns) column = 0, to += apart;
                }
                break;
            }
            decltype(V::v) r[V::lanes];
            if (left >= V::lanes) {
                unroll<V::lanes>([&](auto l) NK_LAMBDA_INLINE { r[l] = load(row[l] + j).v; });
                if (ahead != 0)
                    for (int l = 0; l < V::lanes; ++l) __builtin_prefetch(row[l] + j + ahead, 0, 3);
            } else {
                const first<S> some(left);
                unroll<V::lanes>([&](auto l) NK_LAMBDA_INLINE { r[l] = load(row[l] + j, some).v; });
            }
            transpose(r);
            if (left >= V::lanes && column + V::lanes <= columns) {
                S* at = to + column * V::lanes;
                unroll<V::lanes>([&](auto l) NK_LAMBDA_INLINE { store(at + l * V::lanes, V(r[l])); });
                column += V::lanes;
                if (column == columns) column = 0, to += apart;
            } else {
                unroll<V::lanes>([&](auto l) NK_LAMBDA_INLINE {
                    if (l < left) {
                        store(to + column * V::lanes, V(r[l]));
                        if (++column == columns) column = 0, to += apart;
                    }
                });
            }
        }
    }
}

// n columns to memory; behind them, up to a vector's lanes of columns may be read.
template <class S, class T>
void transpose_out(T* to, const LaneChannels<S>& c, const S* from, int64_t n, int64_t ahead = 0) {
    using V = vec<S>;
    if constexpr (V::lanes == 1) {
        for (int64_t j = 0; j < n; ++j) store(to + c.offset[0] + j, load(from + j));
    } else {
        for (int64_t j = 0; j < n; j += V::lanes) {
            const int64_t left = n - j;
            if (left <= kFew) {
                for (int l = 0; l < c.n; ++l)
                    for (int64_t i = 0; i < left; ++i)
                        put_number(to[c.offset[l] + j + i], from[(j + i) * V::lanes + l]);
                break;
            }
            decltype(V::v) r[V::lanes];
            unroll<V::lanes>([&](auto l) NK_LAMBDA_INLINE { r[l] = load(from + (j + l) * V::lanes).v; });
            transpose(r);
            const first<S> some(left);
            if (ahead != 0)
                for (int l = 0; l < V::lanes; ++l) __builtin_prefetch(to + c.offset[l] + j + ahead, 1, 3);
            if (left >= V::lanes && c.n == V::lanes)
                unroll<V::lanes>([&](auto l) NK_LAMBDA_INLINE { store(to + c.offset[l] + j, V(r[l])); });
            else
                unroll<V::lanes>([&](auto l) NK_LAMBDA_INLINE {
                    if (l < c.n) store(to + c.offset[l] + j, V(r[l]), some);
                });
        }
    }
}

// One row of n columns, `step` apart in memory.
template <class S, class T>
void lanes_in(S* to, const T* from, const LaneChannels<S>& c, int64_t step, int64_t n, int64_t ahead = 0) {
    using V = vec<S>;
    if (c.together) {
        from += c.offset[0];
        if (c.n == V::lanes) {
            for (int64_t j = 0; j < n; ++j) store(to + j * V::lanes, load(from + j * step));
        } else {
            const first<S> some(c.n);
            for (int64_t j = 0; j < n; ++j) store(to + j * V::lanes, load(from + j * step, some));
        }
    } else if (step == 1) {
        transpose_in(to, n, n * V::lanes, from, c, n, ahead);
    } else {
        for (int64_t j = 0; j < n; ++j)
            for (int l = 0; l < V::lanes; ++l) to[j * V::lanes + l] = to_number(from[c.offset[l] + j * step]);
    }
}

template <class S, class T>
void lanes_out(T* to, const LaneChannels<S>& c, int64_t step, const S* from, int64_t n, int64_t ahead = 0) {
    using V = vec<S>;
    if (c.together) {
        to += c.offset[0];
        if (c.n == V::lanes) {
            for (int64_t j = 0; j < n; ++j) store(to + j * step, load(from + j * V::lanes));
        } else {
            const first<S> some(c.n);
            for (int64_t j = 0; j < n; ++j) store(to + j * step, load(from + j * V::lanes), some);
        }
    } else if (step == 1) {
        transpose_out(to, c, from, n, ahead);
    } else {
        for (int64_t j = 0; j < n; ++j)
            for (int l = 0; l < c.n; ++l) put_number(to[c.offset[l] + j * step], from[j * V::lanes + l]);
    }
}

// Those of the vector that was asked for last.
template <class S>
struct LaneCache {
    int64_t v = -1, s = -1;
    LaneChannels<S> channels;
    const LaneChannels<S>& of(const cpu::DepthwiseShape& shape, const cpu::DepthwiseTensor& x, int64_t vector) {
        if (v != vector) channels = LaneChannels<S>(vector * vec<S>::lanes, shape.channels, 1, 1, 0, x.channel);
        v = vector;
        return channels;
    }
    const LaneChannels<S>& of(const cpu::DepthwiseShape& shape, const cpu::DepthwiseTensor& x, int64_t vector,
                              int64_t of_source) {
        if (v != vector || s != of_source)
            channels = LaneChannels<S>(vector * vec<S>::lanes, shape.channels, shape.per_group, shape.sources,
                                       of_source, x.channel);
        v = vector, s = of_source;
        return channels;
    }
};

// Where what is needed next lies: in small images the next channels, else the rows below.
template <class T>
int64_t ahead_in(const cpu::DepthwiseTensor& x, int64_t lanes) {
    constexpr int64_t kSmall = 8192;  // bytes
    return x.channel * int64_t(sizeof(T)) <= kSmall ? x.channel * lanes : 2 * x.axis[1];
}

}  // namespace nk::NK_ISA
