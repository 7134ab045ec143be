// Attention forward of few rows on the tensor cores: rows are all queries of all heads that share keys, so that a tile
// of keys is read once for them all, and blocks share the keys of a head in parts (Flash-Decoding, Dao et al. 2023).
//
// KeyWarps warps share the keys of a tile, and each RowWarps-th of them has the same 16 rows; what they made is put
// together in their registers at the end. Rows of keys are found one by one, through a cache's table of pages if there
// is one: the page of a row is read a tile ahead, and where rows begin is kept in shared memory.
#pragma once

#include "../tile/row_walk.h"
#include "mma_softmax.h"
#include "split.h"

namespace nk::cuda {

template <DType T, int D, int RowWarps, int KeyWarps, int Keys>
struct MmaSplit : MmaSoftmax<1, Keys / KeyWarps / 8, D / 8> {
    static constexpr int kThreads = RowWarps * KeyWarps * kWarp, kRows = 16 * RowWarps, kWarpKeys = Keys / KeyWarps;
    static constexpr int kNs = kWarpKeys / 8, kCs = D / 8, kSteps = D / 16;
    using Sums = MmaSoftmax<1, kNs, kCs>;
    using MapQ = tile::FragmentMap<true, true, kRows, D, 2, 16>;
    using MapK = tile::FragmentMap<false, true, Keys, D, 2, kWarpKeys>;
    using MapV = tile::FragmentMap<false, false, D, Keys, 2, D>;
    using ShapeK = tile::CopyShape<true, Keys, D, 2, kThreads>;
    using ShapeV = tile::CopyShape<false, D, Keys, 2, kThreads>;
    using Walk = tile::RowWalk<Keys, D, ShapeK::kRowStep>;
    using CopyK = tile::TileCopy<ShapeK, typename MapK::Swizzle, Walk>;
    using CopyV = tile::TileCopy<ShapeV, typename MapV::Swizzle, Walk>;
    using Ring = tile::GroupRing<2, CopyK::kTileBytes, CopyV::kTileBytes>;
    static constexpr int kMergeBytes = (KeyWarps - 1) * RowWarps * (kCs + 1) * kWarp * 16;
    static_assert(kMergeBytes <= Ring::kBytes + kRows * D * 2 && Keys <= kThreads && kWarpKeys % 16 == 0,
                  "a thread for each key");

    struct Shared {
        SplitPlace at;
        HeadScores<T> scores;
        int64_t key_begins[2][Keys], value_begins[2][Keys];
    };

    const AttentionSplitParams& p;
    Shared& shared;
    int lane, row_warp, key_warp;
    int begin[2], end[2];  // the keys that this lane's rows see
    using Sums::o, Sums::top, Sums::total;

    __device__ __forceinline__ MmaSplit(const AttentionSplitParams& params, Shared& memory)
        : p(params),
          shared(memory),
          lane(threadIdx.x % kWarp),
          row_warp(threadIdx.x / kWarp % RowWarps),
          key_warp(threadIdx.x / kWarp / RowWarps) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const KeyRange r = row(half) < p.rows ? shared.scores.range(query(half)) : KeyRange{0, 0};
            begin[half] = static_cast<int>(r.begin), end[half] = static_cast<int>(r.end);
        }
    }
    // Of this lane.
    __device__ __forceinline__ int row(int half) const {
        return shared.at.first_row + row_warp * 16 + lane / 4 + half * 8;
    }
    __device__ __forceinline__ int head(int half) const { return row(half) / static_cast<int>(p.queries); }
    __device__ __forceinline__ int query(int half) const {
        return row(half) - head(half) * static_cast<int>(p.queries);
    }

    __device__ __forceinline__ void load_queries(char* to) const {
        const SplitPlace& at = shared.at;
        constexpr int kChunks = D / 8;
#pragma unroll 1
        for (int i = threadIdx.x; i < kRows * kChunks; i += kThreads) {
            const int r = i / kChunks, chunk = i % kChunks;
            uint4 v = make_uint4(0, 0, 0, 0);
            if (at.first_row + r < p.rows) {
                const int64_t from =
                    at.of_row(p.query, at.first_row + r, static_cast<int>(p.queries)) + chunk * 8 * p.query.column;
                if (p.q_access == 16 && chunk * 8 + 8 <= p.size) {
                    v = *reinterpret_cast<const uint4*>(element<T>(p.query.data, from));
                } else {
                    uint32_t word[4] = {};
#pragma unroll
                    for (int k = 0; k < 8; ++k)
                        if (chunk * 8 + k < p.size)
                            word[k / 2] |= uint32_t{*element<T>(p.query.data, from + k * p.query.column)}
                                           << 16 * (k % 2);
                    v = make_uint4(word[0], word[1], word[2], word[3]);
                }
            }
            *reinterpret_cast<uint4*>(to + MapQ::Swizzle::offset(r, chunk)) = v;
        }
    }

    // Scores to units of 2^x.
    __device__ __forceinline__ void features(float (&s)[1][kNs][4], int k0) const {
        HeadScores<T> scores = shared.scores;
        float slope[2];
        int place[2];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            slope[half] = row(half) < p.rows ? slope_of<float>(p, shared.at.place, head(half)) : 0.f;
            place[half] = query(half);
        }
        const auto change = [&](int, int n) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                float slack;
                scores.slope = slope[i / 2];
                const int key = k0 + n * 8 + lane % 4 * 2 + i % 2;
                s[0][0][i] = scores.template score<true>(s[0][0][i], place[i / 2], key, slack) * kLog2E;
            }
        };
        through_front(change, s);
    }
    __device__ __forceinline__ void hide(float (&s)[1][kNs][4], int k0) const {
        k0 += lane % 4 * 2;
#pragma unroll
        for (int n = 0; n < kNs; ++n)
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int key = k0 + n * 8 + i % 2;
                if (key < begin[i / 2] || key >= end[i / 2]) s[0][n][i] = -INFINITY;
            }
    }

    // Goes through the block's part of the keys. `careful`: see careful_product.
    __device__ __forceinline__ void run(char* memory, const Reach& sees, bool careful) {
        const AttentionPlace& place = shared.at.place;
        const SplitTiles part(sees.any_begin, sees.any_end, Keys, shared.at.part, static_cast<int>(p.parts));
        const int64_t kv_head = place.head / p.group;
        char* const shared_q = memory + Ring::kBytes;
        const int rows = sees.any_end - part.first;
        const auto walk = [&](const AttentionOperand& x, const int64_t (*begins)[Keys], int64_t columns, int access) {
            return typename Walk::Params{reinterpret_cast<const char*>(element<T>(x.data, place.of_keys(x, kv_head))),
                                         begins,
                                         x.column * 2,
                                         rows,
                                         static_cast<int>(columns),
                                         access};
        };
        CopyK copy_k(walk(p.key, shared.key_begins, p.size, p.k_access));
        CopyV copy_v(walk(p.value, shared.value_begins, p.value_size, p.v_access));
        Ring ring(memory);

        // where the rows of tile number `tile` begin: first read, later put down
        const auto find = [&](int tile) {
            const int key = tile * Keys + threadIdx.x;
            return threadIdx.x < Keys && key < rows && tile < part.count
                       ? page_of(p.pages, place.batch, static_cast<uint32_t>(part.first + key))
                       : PageOf{0, 0};
        };
        const auto put = [&](int tile, PageOf of) {
            if (threadIdx.x >= Keys) return;
            shared.key_begins[tile % 2][threadIdx.x] = (of.page * p.key_page + of.row * p.key.row) * 2;
            shared.value_begins[tile % 2][threadIdx.x] = (of.page * p.value_page + of.row * p.value.row) * 2;
        };
        const int whole_k = min(copy_k.whole(), part.count), whole_v = min(copy_v.whole(), part.count);
        int tile_k = 0, tile_v = 0;
        const auto load_k = [&] {
            copy_k.issue_next(ring.template writing<0>(), tile_k++, whole_k, part.count);
            ring.template commit<0>();
        };
        const auto load_v = [&] {
            copy_v.issue_next(ring.template writing<1>(), tile_v++, whole_v, part.count);
            ring.template commit<1>();
        };
        put(0, find(0)), put(1, find(1));
        __syncthreads();
        load_k(), load_v();
        if (!careful) load_queries(shared_q);

        const MapQ map_q(row_warp, lane);
        const MapK map_k(key_warp, lane);
        const MapV map_v(0, lane);
        const float scale = p.features ? 1.f : static_cast<float>(p.rules.scale) * kLog2E;
        const float slack = Sums::slack_of(scale);
        this->begin_sums();
        int k0 = part.first + key_warp * kWarpKeys;  // of this warp
#pragma unroll 1
        for (int i = 0; i < part.count; ++i, k0 += Keys) {
            const bool works = sees.some(k0, k0 + kWarpKeys);
            ring.template wait<0>();
            load_k();
            const PageOf next = find(i + 2);
            float s[1][kNs][4];
            if (works) {
                tile::clear(s);
#pragma unroll
                for (int step = 0; step < kSteps; ++step) {
                    uint32_t a[1][4], b[kNs / 2][4];
                    tile::fetch<T, true>(a, shared_q, map_q, step);
                    tile::fetch<T, false>(b, ring.template reading<0>(), map_k, step);
                    tile::multiply<T>(s, a, b);
                }
                if (p.features) features(s, k0);
                if (!sees.all(k0, k0 + kWarpKeys) || shared.at.first_row + kRows > p.rows) hide(s, k0);
                this->add(s, scale, slack);
            }
            ring.template release<0>();
            ring.template wait<1>();
            load_v();
            put(i + 2, next);
            if (works && careful) {
                const char* const tile = ring.template reading<1>() + key_warp * kWarpKeys * MapV::Swizzle::kRowBytes;
                careful_product<T, typename MapV::Swizzle>(o, s, tile);
            } else if (works) {
#pragma unroll
                for (int step = 0; step < kWarpKeys / 16; ++step) {
                    uint32_t a[1][4], b[kCs / 2][4];
                    tile::sums_as_operand<T>(s, step, a);
                    tile::fetch<T, false>(b, ring.template reading<1>(), map_v, key_warp * (kWarpKeys / 16) + step);
                    tile::multiply<T>(o, a, b);
                }
            }
            ring.template release<1>();
        }
        ring.drain();
    }

    // Brings together what the warps made that share rows, in the registers of the first.
    __device__ __forceinline__ void merge(char* memory, float scale) {
#pragma unroll
        for (int half = 0; half < 2; ++half) total[0][half] = reduce_quad(total[0][half], Add{});
        if constexpr (KeyWarps == 1) return;
        float4* const mine = reinterpret_cast<float4*>(memory) + lane;
        const auto at = [&](int warp, int c) {
            return ((warp - 1) * RowWarps + row_warp) * (kCs + 1) * kWarp + c * kWarp;
        };
        if (key_warp > 0) {
#pragma unroll
            for (int c = 0; c < kCs; ++c)
                mine[at(key_warp, c)] = make_float4(o[0][c][0], o[0][c][1], o[0][c][2], o[0][c][3]);
            mine[at(key_warp, kCs)] = make_float4(top[0][0], top[0][1], total[0][0], total[0][1]);
        }
        __syncthreads();
        if (key_warp > 0) return;
#pragma unroll 1
        for (int warp = 1; warp < KeyWarps; ++warp) {
            const float4 of = mine[at(warp, kCs)];
            float a[2], b[2];
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const float other = half ? of.y : of.x, next = fmaxf(top[0][half], other);
                const float from = next == -INFINITY ? 0.f : next * scale;
                a[half] = ptx::ex2_approx(fmaf(top[0][half], scale, -from)),
                b[half] = ptx::ex2_approx(fmaf(other, scale, -from));
                total[0][half] = fmaf(total[0][half], a[half], (half ? of.w : of.z) * b[half]);
                top[0][half] = next;
            }
#pragma unroll
            for (int c = 0; c < kCs; ++c) {
                const float4 x = mine[at(warp, c)];
                o[0][c][0] = fmaf(o[0][c][0], a[0], x.x * b[0]), o[0][c][1] = fmaf(o[0][c][1], a[0], x.y * b[0]);
                o[0][c][2] = fmaf(o[0][c][2], a[1], x.z * b[1]), o[0][c][3] = fmaf(o[0][c][3], a[1], x.w * b[1]);
            }
        }
    }

    // What there is of one part, for attention_combine.
    __device__ __forceinline__ void store_partial(float scale) const {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            if (row(half) >= p.rows) continue;
            const int64_t number = shared.at.number(p, row(half)) + shared.at.part;
            float* const to = static_cast<float*>(p.partial) + number * p.pitch + lane % 4 * 2;
#pragma unroll
            for (int c = 0; c < kCs; ++c)
                if (c * 8 < p.value_size)
                    *reinterpret_cast<float2*>(to + c * 8) = make_float2(o[0][c][2 * half], o[0][c][2 * half + 1]);
            if (lane % 4 == 0)
                static_cast<float2*>(p.statistics)[number] =
                    make_float2(top[0][half] == -INFINITY ? -INFINITY : top[0][half] * scale * kLn2, total[0][half]);
        }
    }
    // The only part is the result.
    __device__ __forceinline__ void store(float scale) const {
        const SplitPlace& at = shared.at;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            if (row(half) >= p.rows) continue;
            const int64_t its_head = at.place.head + head(half);
            const float sink =
                p.sink.data == nullptr ? -INFINITY : load<T>(p.sink.data, at.place.offset(p.sink, its_head)) * kLog2E;
            const RowEnd end(top[0][half] == -INFINITY ? -INFINITY : top[0][half] * scale, total[0][half], sink);
            if (p.lse.data != nullptr && lane % 4 == 0)
                static_cast<float*>(p.lse.data)[at.place.offset(p.lse, its_head, query(half))] = end.lse;
            memory_t<T>* const to = element<T>(p.output.data, at.place.offset(p.output, its_head, query(half)));
#pragma unroll
            for (int c = 0; c < kCs; ++c) {
                const int column = c * 8 + lane % 4 * 2;
                const float lo = o[0][c][2 * half] * end.by, hi = o[0][c][2 * half + 1] * end.by;
                if (p.wide_out && column < p.value_size) {
                    *reinterpret_cast<uint32_t*>(to + column) =
                        T == DType::bf16 ? ptx::pack_bf16(lo, hi) : ptx::pack_f16(lo, hi);
                } else {
                    if (column < p.value_size) to[column * p.output.column] = to_memory<T>(lo);
                    if (column + 1 < p.value_size) to[(column + 1) * p.output.column] = to_memory<T>(hi);
                }
            }
        }
    }
};

template <DType T, int D, int RowWarps, int KeyWarps, int Keys>
__device__ __forceinline__ void mma_attention_split(const AttentionSplitParams& p) {
    using Kernel = MmaSplit<T, D, RowWarps, KeyWarps, Keys>;
    extern __shared__ __align__(1024) char memory[];
    __shared__ typename Kernel::Shared shared;
    if (threadIdx.x == 0) {
        shared.at = SplitPlace(p, Kernel::kRows);
        shared.scores = HeadScores<T>(p, shared.at.place);
    }
    __syncthreads();
    const Reach sees([&](int query) { return shared.scores.range(query); }, shared.at.first_query,
                     shared.at.last_query - shared.at.first_query + 1, static_cast<int>(p.queries));
    Kernel work(p, shared);
    bool careful = false;
#pragma unroll 1
    while (true) {
        work.run(memory, sees, careful);
        if (careful || __syncthreads_or(any_nan(work.o)) == 0) break;
        careful = true;
    }
    const float scale = p.features ? 1.f : static_cast<float>(p.rules.scale) * kLog2E;
    work.merge(memory, scale);
    if (work.key_warp > 0) return;
    if (p.parts > 1)
        work.store_partial(scale);
    else
        work.store(scale);
}

}  // namespace nk::cuda
