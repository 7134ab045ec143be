// A fused attention forward of one head, made of the parts of kernels/cuda/tile: a ring whose two parts are waited for
// apart, keys that advance along the outer index, values along k, and P from sums to operand in registers.
#include "kernels/cuda/ptx/approx.h"
#include "kernels/cuda/tile/copy.h"
#include "kernels/cuda/tile/element.h"
#include "kernels/cuda/tile/reduce.h"
#include "kernels/cuda/tile/ring.h"
#include "kernels/cuda/tile/warp_tile.h"

using namespace nk;

namespace {

constexpr int D = 64, kQueries = 64, kKeys = 64, kThreads = 128, kBytes = 2;

template <bool IsA, bool KMajor, int Outer, int K, int WarpOuter, tile::Along Direction>
struct Operand {
    using Map = tile::FragmentMap<IsA, KMajor, Outer, K, kBytes, WarpOuter>;
    using Shape = tile::CopyShape<KMajor, Outer, K, kBytes, kThreads>;
    using Copy = tile::TileCopy<Shape, typename Map::Swizzle, typename Shape::template Linear<Direction>>;
};
using Q = Operand<true, true, kQueries, D, 16, tile::Along::k>;
using K = Operand<false, true, kKeys, D, kKeys, tile::Along::outer>;
using V = Operand<false, false, D, kKeys, D, tile::Along::k>;
using KeyValueRing = tile::GroupRing<2, K::Copy::kTileBytes, V::Copy::kTileBytes>;

}  // namespace

// q, k, v, out: [length, D] with steps between rows in elements; all of one type.
template <DType T>
__device__ __forceinline__ void attention(uint16_t* out, const uint16_t* q, const uint16_t* k, const uint16_t* v,
                                          int queries, int keys, int64_t step, float scale) {
    extern __shared__ __align__(1024) char shared[];
    char* const shared_q = shared + KeyValueRing::kBytes;
    const int64_t q0 = int64_t{blockIdx.x} * kQueries, bytes = step * kBytes;
    Q::Copy copy_q({q, {bytes, kBytes}, q0, queries, 0, D, tile::kBytes16});
    K::Copy copy_k({k, {bytes, kBytes}, 0, keys, 0, D, tile::kBytes16});
    V::Copy copy_v({v, {kBytes, bytes}, 0, D, 0, keys, tile::kBytes16});
    KeyValueRing ring(shared);
    const int whole = min(copy_k.whole(), copy_v.whole());
    int tile_k = 0, tile_v = 0;
    const auto load_k = [&] {
        ring.acquire<0>();
        tile_k < whole ? copy_k.issue_whole(ring.writing<0>()) : copy_k.issue(ring.writing<0>(), tile_k);
        ring.commit<0>();
        ++tile_k;
    };
    const auto load_v = [&] {
        ring.acquire<1>();
        tile_v < whole ? copy_v.issue_whole(ring.writing<1>()) : copy_v.issue(ring.writing<1>(), tile_v);
        ring.commit<1>();
        ++tile_v;
    };
    copy_q.issue(shared_q, 0);  // arrives with the first keys
    for (int stage = 0; stage < KeyValueRing::kAhead; ++stage) load_k(), load_v();

    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const Q::Map map_q(warp, lane);
    const K::Map map_k(0, lane);
    const V::Map map_v(0, lane);
    uint32_t a[D / 16][1][4];
    float o[1][D / 8][4] = {}, top[2] = {-INFINITY, -INFINITY}, total[2] = {};
    for (int k0 = 0; k0 < keys; k0 += kKeys) {
        ring.wait<0>();
        load_k();
        if (k0 == 0)
#pragma unroll
            for (int i = 0; i < D / 16; ++i) tile::fetch<T, true>(a[i], shared_q, map_q, i);
        float s[1][kKeys / 8][4] = {};
#pragma unroll
        for (int i = 0; i < D / 16; ++i) {
            uint32_t b[kKeys / 16][4];
            tile::fetch<T, false>(b, ring.reading<0>(), map_k, i);
            tile::multiply<T>(s, a[i], b);
        }
        ring.release<0>();

#pragma unroll
        for (int half = 0; half < 2; ++half) {  // rows g and g + 8
            float row_top = top[half];
#pragma unroll
            for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
                for (int i = 2 * half; i < 2 * half + 2; ++i) {
                    const bool exists = k0 + n * 8 + lane % 4 * 2 + i % 2 < keys;
                    s[0][n][i] = exists ? s[0][n][i] * scale : -INFINITY;
                    row_top = fmaxf(row_top, s[0][n][i]);
                }
            row_top = cuda::reduce_quad(row_top, cuda::Max{});
            const float shrink = ptx::ex2_approx(top[half] - row_top);
            float sum = 0;
#pragma unroll
            for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
                for (int i = 2 * half; i < 2 * half + 2; ++i) {
                    s[0][n][i] = ptx::ex2_approx(s[0][n][i] - row_top);
                    sum += s[0][n][i];
                }
            top[half] = row_top;
            total[half] = total[half] * shrink + cuda::reduce_quad(sum, cuda::Add{});
#pragma unroll
            for (int n = 0; n < D / 8; ++n) o[0][n][2 * half] *= shrink, o[0][n][2 * half + 1] *= shrink;
        }

        ring.wait<1>();
        load_v();
#pragma unroll
        for (int i = 0; i < kKeys / 16; ++i) {
            uint32_t p[1][4], b[D / 16][4];
            tile::sums_as_operand<T>(s, i, p);
            tile::fetch<T, false>(b, ring.reading<1>(), map_v, i);
            tile::multiply<T>(o, p, b);
        }
        ring.release<1>();
    }
    ring.drain();

#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int64_t row = q0 + warp * 16 + lane / 4 + half * 8;
        const float by = ptx::rcp_approx(total[half]);
        if (row >= queries) continue;
#pragma unroll
        for (int n = 0; n < D / 8; ++n)
#pragma unroll
            for (int i = 0; i < 2; ++i)
                out[row * step + n * 8 + lane % 4 * 2 + i] = cuda::to_memory<T>(o[0][n][2 * half + i] * by);
    }
}

extern "C" __global__ void __launch_bounds__(kThreads)
    attention_bf16(uint16_t* out, const uint16_t* q, const uint16_t* k, const uint16_t* v, int queries, int keys,
                   int64_t step, float scale) {
    attention<DType::bf16>(out, q, k, v, queries, keys, step, scale);
}
extern "C" __global__ void __launch_bounds__(kThreads)
    attention_f16(uint16_t* out, const uint16_t* q, const uint16_t* k, const uint16_t* v, int queries, int keys,
                  int64_t step, float scale) {
    attention<DType::f16>(out, q, k, v, queries, keys, step, scale);
}
