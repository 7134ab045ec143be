// Attention forward on the tensor cores, by the scheme of FlashAttention-2 (Dao 2023): a block has Queries queries of
// one head, each warp 16 Ms of them, and goes through tiles of keys. Scores S = Q K' stay in registers, become P there,
// and are the operand of O += P V; sums and maxima of rows follow along.
//
// Only tiles that some query of the block sees are visited, only tiles that not all of a warp's see whole are tested
// number by number, and a warp rests where it sees nothing. What a call rarely asks for (mask, bias, slopes, softcap,
// dropout) is behind one branch for each tile.
#pragma once

#include "mma_softmax.h"

namespace nk::cuda {

template <DType T, int D, int Queries, int Keys, int Ms>
struct MmaForward : MmaSoftmax<Ms, Keys / 8, D / 8> {
    static constexpr int kThreads = Queries / (16 * Ms) * kWarp;
    static constexpr int kNs = Keys / 8, kCs = D / 8, kSteps = D / 16;
    using Q = HeadOperand<true, true, Queries, D, 16 * Ms, kThreads>;
    using K = HeadOperand<false, true, Keys, D, Keys, kThreads>;
    using V = HeadOperand<false, false, Keys, D, D, kThreads>;
    using KeyValueRing = tile::GroupRing<2, K::Copy::kTileBytes, V::Copy::kTileBytes>;
    static constexpr int kShared = KeyValueRing::kBytes + Q::Copy::kTileBytes;
    static constexpr bool kKeepsQueries = Ms == 1 && D <= 128;  // in registers

    struct Shared {
        AttentionPlace place;
        HeadScores<T> scores;
    };

    const AttentionParams& p;
    const Shared& shared;
    int row0, lane;  // of this lane's first row
    using Sums = MmaSoftmax<Ms, kNs, kCs>;
    using Sums::o, Sums::top, Sums::total;

    // Scores of a tile to what the softmax takes: in units of 2^x where features are asked for, else as they are.
    __device__ __forceinline__ void features(float (&s)[Ms][kNs][4], int k0) const {
        const auto change = [&](int m, int n) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int query = row0 + m * 16 + i / 2 * 8, key = k0 + n * 8 + lane % 4 * 2 + i % 2;
                float slack;
                float& x = s[m][0][i];
                x = shared.scores.sees(shared.scores.range(query), query, key)
                        ? shared.scores.template score<true>(x, query, key, slack) * kLog2E
                        : -INFINITY;
            }
        };
        through_front(change, s);
    }
    __device__ __forceinline__ void drop(float (&s)[Ms][kNs][4], int k0) const {
        const auto change = [&](int m, int n) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int query = row0 + m * 16 + i / 2 * 8, key = k0 + n * 8 + lane % 4 * 2 + i % 2;
                if (s[m][0][i] != 0) s[m][0][i] *= shared.scores.kept(query, key);
            }
        };
        through_front(change, s);
    }

    __device__ __forceinline__ MmaForward(const AttentionParams& params, const Shared& memory, int row)
        : p(params), shared(memory), row0(row), lane(threadIdx.x % kWarp) {}

    // Goes through all tiles of keys. `careful`: see careful_product.
    __device__ __forceinline__ void run(char* memory, int q0, int first, int tiles, bool careful) {
        const AttentionPlace& place = shared.place;
        const int64_t kv_head = place.head / p.group;
        char* const shared_q = memory + KeyValueRing::kBytes;
        const int keys = static_cast<int>(place.keys);
        typename K::Copy copy_k(
            K::walk(element<T>(p.key.data, place.of_keys(p.key, kv_head)), p.key, first, keys, p.size, p.k_access));
        typename V::Copy copy_v(V::walk(element<T>(p.value.data, place.of_keys(p.value, kv_head)), p.value, first, keys,
                                        p.value_size, p.v_access));
        KeyValueRing ring(memory);
        const int whole_k = min(copy_k.whole(), tiles), whole_v = min(copy_v.whole(), tiles);
        int tile_k = 0, tile_v = 0;
        const auto load_k = [&] {
            copy_k.issue_next(ring.template writing<0>(), tile_k++, whole_k, tiles);
            ring.template commit<0>();
        };
        const auto load_v = [&] {
            copy_v.issue_next(ring.template writing<1>(), tile_v++, whole_v, tiles);
            ring.template commit<1>();
        };
        if (!careful) {  // arrives with the first keys
            typename Q::Copy copy_q(Q::walk(element<T>(p.query.data, place.of_queries(p.query)), p.query, q0,
                                            place.queries, p.size, p.q_access));
            copy_q.issue(shared_q, 0);
        }
        load_k(), load_v();

        const int warp = threadIdx.x / kWarp;
        const typename Q::Map map_q(warp, lane);
        const typename K::Map map_k(0, lane);
        const typename V::Map map_v(0, lane);
        const auto range = [&](int query) { return shared.scores.range(query); };
        const Reach sees(range, q0 + warp * 16 * Ms, 16 * Ms, static_cast<int>(place.queries));
        const float scale = p.features ? 1.f : static_cast<float>(p.rules.scale) * kLog2E;
        const float slack = p.drops ? 0.f : Sums::slack_of(scale);  // what dropout keeps it multiplies
        this->begin_sums();
        uint32_t queries[kKeepsQueries ? kSteps : 1][Ms][4];
        if constexpr (kKeepsQueries) {
            ring.template wait<0>();
#pragma unroll
            for (int i = 0; i < kSteps; ++i) tile::fetch<T, true>(queries[i], shared_q, map_q, i);
        }
#pragma unroll 1
        for (int k0 = first, left = tiles; left > 0; k0 += Keys, --left) {
            const bool works = sees.some(k0, k0 + Keys);
            ring.template wait<0>();
            load_k();
            float s[Ms][kNs][4];
            if (works) {
                tile::clear(s);
#pragma unroll
                for (int i = 0; i < kSteps; ++i) {
                    uint32_t b[kNs / 2][4];
                    uint32_t (&a)[Ms][4] = queries[kKeepsQueries ? i : 0];
                    if constexpr (!kKeepsQueries) tile::fetch<T, true>(a, shared_q, map_q, i);
                    tile::fetch<T, false>(b, ring.template reading<0>(), map_k, i);
                    tile::multiply<T>(s, a, b);
                }
                if (p.features)
                    features(s, k0);
                else if (!sees.all(k0, k0 + Keys))
                    hide(s, range, row0, k0);
                this->add(s, scale, slack);
                if (p.drops) drop(s, k0);
            }
            ring.template release<0>();
            ring.template wait<1>();
            load_v();
            if (works && careful) {
                careful_product<T, typename V::Swizzle>(o, s, ring.template reading<1>());
            } else if (works) {
#pragma unroll
                for (int i = 0; i < Keys / 16; ++i) {
                    uint32_t a[Ms][4], b[kCs / 2][4];
                    tile::sums_as_operand<T>(s, i, a);
                    tile::fetch<T, false>(b, ring.template reading<1>(), map_v, i);
                    tile::multiply<T>(o, a, b);
                }
            }
            ring.template release<1>();
        }
        ring.drain();
    }

    // The sink takes part in the sums, which are those of the four lanes of a row; lse and results are stored.
    __device__ __forceinline__ void finish(char* tile, int q0, bool wide) {
        const AttentionPlace& place = shared.place;
        const float unit = p.features ? 1.f : static_cast<float>(p.rules.scale) * kLog2E;
        float sink = -INFINITY;
        if (p.sink.data != nullptr) sink = load<T>(p.sink.data, place.offset(p.sink, place.head)) * kLog2E;
        float by[Ms][2];
#pragma unroll
        for (int m = 0; m < Ms; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int query = row0 + m * 16 + half * 8;
                const RowEnd end(top[m][half] == -INFINITY ? -INFINITY : top[m][half] * unit,
                                 reduce_quad(total[m][half], Add{}), sink);
                by[m][half] = end.by;
                if (p.lse.data != nullptr && lane % 4 == 0 && query < place.queries)
                    static_cast<float*>(p.lse.data)[place.of_queries(p.lse) + query * p.lse.row] = end.lse;
            }
        store_rows<T, typename Q::Swizzle>(o, by, tile, threadIdx.x / kWarp * 16 * Ms,
                                           element<T>(p.output.data, place.of_queries(p.output) + q0 * p.output.row),
                                           p.output, static_cast<int>(place.queries) - q0,
                                           static_cast<int>(p.value_size), wide);
    }
};

template <DType T, int D, int Queries, int Keys, int Ms>
__device__ __forceinline__ void mma_attention(const AttentionParams& p) {
    using Kernel = MmaForward<T, D, Queries, Keys, Ms>;
    extern __shared__ __align__(1024) char memory[];
    __shared__ typename Kernel::Shared shared;
    const uint32_t tiles_q = static_cast<uint32_t>(p.tiles), heads = static_cast<uint32_t>(p.heads);
    const uint32_t entry = blockIdx.x / tiles_q;
    // the last queries first: where a query sees what is before it, they have the most to do
    const int q0 = static_cast<int>(tiles_q - 1 - blockIdx.x % tiles_q) * Queries;
    if (threadIdx.x == 0) {
        shared.place = AttentionPlace(p, entry / heads, entry % heads);
        shared.scores = HeadScores<T>(p, shared.place);
    }
    __syncthreads();
    if (q0 >= shared.place.queries) return;
    Kernel work(p, shared, q0 + threadIdx.x / kWarp * 16 * Ms + threadIdx.x % kWarp / 4);
    const Reach sees([&](int query) { return shared.scores.range(query); }, q0, Queries,
                     static_cast<int>(shared.place.queries));
    const int first = sees.any_begin / Keys * Keys;
    const int tiles = sees.any_end > first ? (sees.any_end - first + Keys - 1) / Keys : 0;
    bool careful = false;
#pragma unroll 1
    while (true) {
        work.run(memory, q0, first, tiles, careful);
        if (careful || __syncthreads_or(any_nan(work.o)) == 0) break;
        careful = true;
    }
    work.finish(memory + Kernel::KeyValueRing::kBytes, q0, p.wide_out != 0);
}

}  // namespace nk::cuda
