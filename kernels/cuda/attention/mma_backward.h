// Attention backward on the tensor cores. A block computes the gradient of Rows rows of one head, of queries or of keys
// and values, and goes through tiles of the others, whose scores it computes again:
//
//   of queries: S = Q K',  dP = g V',  dQ += dS K          of keys: S' = K Q',  dP' = V g',  dK += dS' Q,  dV += P' g
//
// with P = exp(S - lse) and dS = P (dP - delta). Both are one kernel: rows (Q, g) or (K, V) stay in shared memory,
// tiles (K, V) or (Q, g) come by a ring, and P and dS are operands of the next product as they lie in registers. A
// block of keys adds up the heads of its group, in order, and nobody else writes there: results are the same at every
// run.
#pragma once

#include <type_traits>

#include "mma.h"

namespace nk::cuda {

// Split: warps that share 16 rows, each with a part of the gradient's columns.
template <DType T, int D, int Rows, int Tile, int Split, bool OfKeys>
struct MmaBackward {
    static constexpr int kThreads = Rows / 16 * Split * kWarp;
    static constexpr int kNs = Tile / 8, kCs = D / 8 / Split, kSteps = D / 16;
    using X = HeadOperand<true, true, Rows, D, 16, kThreads>;           // rows, of scores
    using Y = HeadOperand<false, true, Tile, D, Tile, kThreads>;        // tiles, of scores
    using Z = HeadOperand<false, false, Tile, D, D / Split, kThreads>;  // the same tiles, of gradients
    static constexpr int kTileBytes = Y::Copy::kTileBytes, kRowBytes = X::Copy::kTileBytes;
    using TileRing = tile::GroupRing<2, 2 * kTileBytes>;
    static constexpr int kShared = TileRing::kBytes + 2 * kRowBytes;
    static_assert(std::is_same_v<typename Y::Swizzle, typename Z::Swizzle>, "one tile serves both");

    // lse in units of 2^x (infinity: no probabilities) and delta of a query.
    struct Statistics {
        float lse, delta;
    };
    struct Shared {
        alignas(16) Statistics of_tile[2][Tile];
        AttentionPlace place;
        HeadScores<T> scores;
    };

    const AttentionBackwardParams& p;
    Shared& shared;
    char* memory;
    int first_row, row0, lane, part;  // row0: of this lane's first row
    float dx[1][kCs][4], dv[1][OfKeys ? kCs : 1][4];

    __device__ __forceinline__ MmaBackward(const AttentionBackwardParams& params, Shared& s, char* dynamic, int first)
        : p(params), shared(s), memory(dynamic), first_row(first), lane(threadIdx.x % kWarp) {
        const int warp = threadIdx.x / kWarp;
        row0 = first + warp / Split * 16 + lane / 4;
        part = warp % Split;
    }

    __device__ __forceinline__ KeyRange range(int row) const {
        return OfKeys ? shared.scores.seen_by(row) : shared.scores.range(row);
    }
    __device__ __forceinline__ int rows() const {
        return static_cast<int>(OfKeys ? shared.place.keys : shared.place.queries);
    }

    __device__ __forceinline__ Statistics statistics(int64_t query) const {
        const AttentionPlace& place = shared.place;
        if (query >= place.queries) return {INFINITY, 0.f};
        const float lse = static_cast<const float*>(p.lse.data)[place.of_queries(p.lse) + query * p.lse.row];
        const float delta = static_cast<const float*>(p.delta)[place.row_number(p) + query];
        return {lse == -INFINITY ? INFINITY : lse * kLog2E, delta};
    }

    // S and dP of a tile to P (as dropout keeps it) and dS.
    __device__ __forceinline__ void features(float (&s)[1][kNs][4], float (&dp)[1][kNs][4], const Statistics (&own)[2],
                                             const Statistics* of_tile, int first) const {
        const auto change = [&](int, int n) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int row = row0 + i / 2 * 8, in_tile = n * 8 + lane % 4 * 2 + i % 2;
                const int query = OfKeys ? first + in_tile : row, key = OfKeys ? row : first + in_tile;
                const Statistics of = OfKeys ? of_tile[in_tile] : own[i / 2];
                float share = 0, ds = 0;
                if (shared.scores.sees(shared.scores.range(query), query, key)) {
                    float slack;
                    const float score = shared.scores.template score<true>(s[0][0][i], query, key, slack);
                    share = ptx::ex2_approx(fmaf(score, kLog2E, -of.lse));
                    if (share != 0) {
                        const float kept = shared.scores.kept(query, key);
                        ds = share * ((kept != 0 ? dp[0][0][i] * kept : 0.f) - of.delta) * slack;
                        share *= kept;
                    }
                }
                s[0][0][i] = share, dp[0][0][i] = ds;
            }
        };
        through_front(change, s, dp);
    }
    // The same without features, where nothing is NaN.
    __device__ __forceinline__ void derive(float (&s)[1][kNs][4], float (&dp)[1][kNs][4], const Statistics (&own)[2],
                                           const Statistics* of_tile) const {
        const float scale = static_cast<float>(p.rules.scale) * kLog2E;
#pragma unroll
        for (int n = 0; n < kNs; ++n) {
            Statistics of[2];
            if constexpr (OfKeys) {
                const float4 two = *reinterpret_cast<const float4*>(&of_tile[n * 8 + lane % 4 * 2]);
                of[0] = {two.x, two.y}, of[1] = {two.z, two.w};
            }
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const Statistics& at = OfKeys ? of[i % 2] : own[i / 2];
                s[0][n][i] = ptx::ex2_approx(fmaf(s[0][n][i], scale, -at.lse));
                dp[0][n][i] = s[0][n][i] * (dp[0][n][i] - at.delta);
            }
        }
    }

    // Adds what the tiles of one head contribute; the rows come with the first of them.
    __device__ __forceinline__ void add_head(bool with_rows, bool careful) {
        const AttentionPlace& place = shared.place;
        const int64_t kv_head = place.head / p.group;
        char* const rows1 = memory + TileRing::kBytes;
        char* const rows2 = rows1 + kRowBytes;
        const memory_t<T>* const q = element<T>(p.query.data, place.of_queries(p.query));
        const memory_t<T>* const g = element<T>(p.g.data, place.of_queries(p.g));
        const memory_t<T>* const k = element<T>(p.key.data, place.of_keys(p.key, kv_head));
        const memory_t<T>* const v = element<T>(p.value.data, place.of_keys(p.value, kv_head));
        if (with_rows) {
            typename X::Copy copy1(OfKeys ? X::walk(k, p.key, first_row, place.keys, p.size, p.k_access)
                                          : X::walk(q, p.query, first_row, place.queries, p.size, p.q_access));
            typename X::Copy copy2(OfKeys ? X::walk(v, p.value, first_row, place.keys, p.value_size, p.v_access)
                                          : X::walk(g, p.g, first_row, place.queries, p.value_size, p.g_access));
            copy1.issue(rows1, 0), copy2.issue(rows2, 0);
        }
        const auto range_of = [&](int row) { return range(row); };
        const Reach block(range_of, first_row, Rows, rows());
        const Reach mine(range_of, row0 - lane / 4, 16, rows());
        const int begin = block.any_begin / Tile * Tile;
        const int tiles = block.any_end > begin ? (block.any_end - begin + Tile - 1) / Tile : 0;
        typename Y::Copy copy_y(OfKeys ? Y::walk(q, p.query, begin, place.queries, p.size, p.q_access)
                                       : Y::walk(k, p.key, begin, place.keys, p.size, p.k_access));
        typename Y::Copy copy_z(OfKeys ? Y::walk(g, p.g, begin, place.queries, p.value_size, p.g_access)
                                       : Y::walk(v, p.value, begin, place.keys, p.value_size, p.v_access));
        TileRing ring(memory);
        const int whole = min(min(copy_y.whole(), copy_z.whole()), tiles);
        int tile = 0;
        const auto load = [&] {
            if (tile < whole) {
                copy_y.issue_whole(ring.writing());
                copy_z.issue_whole(ring.writing() + kTileBytes);
            } else if (tile < tiles) {
                copy_y.issue(ring.writing(), tile);
                copy_z.issue(ring.writing() + kTileBytes, tile);
            }
            ring.commit();
            ++tile;
        };
        load();
        Statistics own[2] = {};
        if constexpr (!OfKeys) own[0] = statistics(row0), own[1] = statistics(row0 + 8);
        const int warp = threadIdx.x / kWarp;
        const typename X::Map map_x(warp / Split, lane);
        const typename Y::Map map_y(0, lane);
        const typename Z::Map map_z(part, lane);
        int first = begin;
#pragma unroll 1
        for (int left = tiles; left > 0; first += Tile, --left) {
            Statistics* const of_tile = shared.of_tile[left % 2];
            if (OfKeys && threadIdx.x < Tile) of_tile[threadIdx.x] = statistics(first + threadIdx.x);
            ring.wait();
            load();
            if (mine.some(first, first + Tile)) {
                const char* const y = ring.reading();
                const char* const z = y + kTileBytes;
                float s[1][kNs][4] = {}, dp[1][kNs][4] = {};
#pragma unroll kSteps> 8 ? 4 : kSteps
                for (int i = 0; i < kSteps; ++i) {
                    uint32_t a[1][4], b[kNs / 2][4];
                    tile::fetch<T, true>(a, rows1, map_x, i);
                    tile::fetch<T, false>(b, y, map_y, i);
                    tile::multiply<T>(s, a, b);
                    tile::fetch<T, true>(a, rows2, map_x, i);
                    tile::fetch<T, false>(b, z, map_y, i);
                    tile::multiply<T>(dp, a, b);
                }
                if (p.features || careful) {
                    features(s, dp, own, of_tile, first);
                } else {
                    if (!mine.all(first, first + Tile)) hide(s, range_of, row0, first);
                    derive(s, dp, own, of_tile);
                }
                if (careful) {
                    careful_product<T, typename Z::Swizzle>(dx, dp, y, part * kCs);
                    if constexpr (OfKeys) careful_product<T, typename Z::Swizzle>(dv, s, z, part * kCs);
                } else {
#pragma unroll
                    for (int i = 0; i < Tile / 16; ++i) {
                        uint32_t a[1][4], b[kCs / 2][4];
                        tile::sums_as_operand<T>(dp, i, a);
                        tile::fetch<T, false>(b, y, map_z, i);
                        tile::multiply<T>(dx, a, b);
                        if constexpr (OfKeys) {
                            tile::sums_as_operand<T>(s, i, a);
                            tile::fetch<T, false>(b, z, map_z, i);
                            tile::multiply<T>(dv, a, b);
                        }
                    }
                }
            }
            ring.release();
        }
        ring.drain();
    }

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int c = 0; c < kCs; ++c)
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                dx[0][c][i] = 0;
                if constexpr (OfKeys) dv[0][c][i] = 0;
            }
    }

    __device__ __forceinline__ void put(const AttentionOperand& x, const float (&sum)[1][kCs][4], float by, char* tile,
                                        int64_t columns, bool wide, int64_t head) const {
        if (x.data == nullptr) return;
        const float both[1][2] = {{by, by}};
        const int64_t offset = shared.place.offset(x, head, OfKeys ? shared.place.first_key : shared.place.first_query);
        store_rows<T, typename X::Swizzle>(sum, both, tile, threadIdx.x / kWarp / Split * 16,
                                           element<T>(x.data, offset + first_row * x.row), x, rows() - first_row,
                                           static_cast<int>(columns), wide, part * kCs);
    }
    __device__ __forceinline__ void finish(int64_t head) const {
        char* const rows1 = memory + TileRing::kBytes;
        const float scale = static_cast<float>(p.rules.scale);
        if constexpr (OfKeys) {
            put(p.g_key, dx, scale, rows1, p.size, p.wide_g_key != 0, head);
            put(p.g_value, dv, 1.f, rows1 + kRowBytes, p.value_size, p.wide_g_value != 0, head);
        } else {
            put(p.g_query, dx, scale, rows1, p.size, p.wide_g_query != 0, head);
        }
    }
};

template <DType T, int D, int Rows, int Tile, int Split, bool OfKeys>
__device__ __forceinline__ void mma_attention_backward(const AttentionBackwardParams& p) {
    using Kernel = MmaBackward<T, D, Rows, Tile, Split, OfKeys>;
    extern __shared__ __align__(1024) char memory[];
    __shared__ __align__(16) typename Kernel::Shared shared;
    const uint32_t tiles = static_cast<uint32_t>(p.tiles);
    const uint32_t heads = static_cast<uint32_t>(OfKeys ? p.heads / p.group : p.heads);
    const uint32_t entry = blockIdx.x / tiles;
    // those that have the most to do first, where a query sees what is before it
    const int index = static_cast<int>(blockIdx.x % tiles);
    const int first = (OfKeys ? index : static_cast<int>(tiles) - 1 - index) * Rows;
    const int64_t batch = entry / heads, head = entry % heads;
    Kernel work(p, shared, memory, first);
    bool careful = false;
#pragma unroll 1
    while (true) {
        work.clear();
        const int64_t begin = OfKeys ? head * p.group : head, end = OfKeys ? begin + p.group : begin + 1;
#pragma unroll 1
        for (int64_t h = begin; h < end; ++h) {
            __syncthreads();
            if (threadIdx.x == 0) {
                shared.place = AttentionPlace(p, batch, h);
                shared.scores = HeadScores<T>(p, shared.place);
            }
            __syncthreads();
            if (first >= work.rows()) return;
            work.add_head(h == begin && !careful, careful);
        }
        bool bad = any_nan(work.dx);
        if constexpr (OfKeys) bad = bad || any_nan(work.dv);
        if (careful || __syncthreads_or(bad) == 0) break;
        careful = true;
    }
    work.finish(head);
}

}  // namespace nk::cuda
