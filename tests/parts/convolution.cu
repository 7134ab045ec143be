// A convolution as an implicit product, made of the parts of matmul's kernels: rows are output pixels (n, p, q), k is
// (r, s, c) of a window in an image that lies as [N, H, W, C]. Only the walk of A and the place of results are its own.
#include "kernels/cuda/matmul/mma.h"

using namespace nk;
using namespace nk::cuda;

namespace {

struct ConvParams : EpilogueParams {
    const void *image, *weight;
    void* out;                    // [N, channels out, P, Q]
    int32_t h, w, c, r, s, p, q;  // c a multiple of 8
    int32_t stride, padding, dilation;
    int32_t tiles_m, tiles_n;
};

// Each thread keeps the pixel of each of its rows, and where in the window its chunk of 8 channels is; going on to the
// next tile is a sum and a carry or two.
template <int Outer, int K, int RowStep>
class WindowWalk {
    static constexpr int kRows = Outer / RowStep;

  public:
    struct Params {
        const ConvParams& conv;
        int64_t m0;
    };
    using Cursor = int;  // number of the row
    struct Limits {};
    static constexpr bool kUnrolled = true;

    __device__ __forceinline__ WindowWalk(const Params& a, int row, int column) : p_(a.conv), c_(column) {
#pragma unroll
        for (int i = 0; i < kRows; ++i) {
            const int64_t m = a.m0 + row + i * RowStep, pixel = m % (p_.p * p_.q);
            exists_[i] = m < p_.m;
            y_[i] = static_cast<int>(pixel / p_.q) * p_.stride - p_.padding;
            x_[i] = static_cast<int>(pixel % p_.q) * p_.stride - p_.padding;
            at_[i] =
                static_cast<const uint16_t*>(p_.image) + ((m / (p_.p * p_.q) * p_.h + y_[i]) * p_.w + x_[i]) * p_.c;
        }
        carry();
    }
    __device__ __forceinline__ int whole() const { return 0; }  // a window may stick out of the image anywhere
    static constexpr __device__ int access() { return tile::kBytes16; }
    static constexpr __device__ int64_t element_step() { return 2; }
    __device__ __forceinline__ const char* anywhere() const { return static_cast<const char*>(p_.image); }
    __device__ __forceinline__ Cursor begin() const { return 0; }
    __device__ __forceinline__ void down(Cursor& i) const { ++i; }
    __device__ __forceinline__ Limits limits(int) const { return {}; }
    __device__ __forceinline__ const char* address(Cursor i) const {
        return reinterpret_cast<const char*>(at_[i] + (int64_t{r_} * p_.w + s_) * p_.dilation * p_.c + c_);
    }
    __device__ __forceinline__ int valid(Cursor i, Limits) const {
        const int y = y_[i] + r_ * p_.dilation, x = x_[i] + s_ * p_.dilation;
        return exists_[i] && r_ < p_.r && y >= 0 && y < p_.h && x >= 0 && x < p_.w ? 8 : 0;
    }
    __device__ __forceinline__ void advance() { c_ += K, carry(); }

  private:
    __device__ __forceinline__ void carry() {
        while (c_ >= p_.c) {
            c_ -= p_.c;
            if (++s_ == p_.s) s_ = 0, ++r_;
        }
    }
    const ConvParams& p_;
    const uint16_t* at_[kRows];
    int y_[kRows], x_[kRows];
    bool exists_[kRows];
    int r_ = 0, s_ = 0, c_;
};

// [N, C, P, Q] from rows (n, p, q) and columns c.
struct ChannelsFirst {
    const ConvParams& p;
    int64_t out_step, preact_step, residual_step;
    __device__ __forceinline__ uint16_t* out(int64_t m, int64_t n) const {
        const int64_t pixels = p.p * p.q;
        return static_cast<uint16_t*>(p.out) + (m / pixels * p.n + n) * pixels + m % pixels;
    }
    __device__ __forceinline__ uint16_t* preact(int64_t, int64_t) const { return nullptr; }
    __device__ __forceinline__ const uint16_t* residual(int64_t, int64_t) const { return nullptr; }
};

using Tile = MmaTile<64, 64, 128, 32, 32, 3, 4>;

}  // namespace

extern "C" __global__ void __launch_bounds__(Tile::kThreads)
    convolution_bf16(uint16_t* out, const uint16_t* image, const uint16_t* weight, const int* sizes) {
    ConvParams p;
    p.image = image, p.weight = weight, p.out = out;
    p.h = sizes[1], p.w = sizes[2], p.c = sizes[3], p.n = sizes[4], p.r = sizes[5], p.s = sizes[6];
    p.stride = sizes[7], p.padding = sizes[8], p.dilation = sizes[9];
    p.p = (p.h + 2 * p.padding - p.dilation * (p.r - 1) - 1) / p.stride + 1;
    p.q = (p.w + 2 * p.padding - p.dilation * (p.s - 1) - 1) / p.stride + 1;
    p.m = int64_t{sizes[0]} * p.p * p.q;
    p.tiles_m = static_cast<int>((p.m + Tile::BM - 1) / Tile::BM);
    p.tiles_n = static_cast<int>((p.n + Tile::BN - 1) / Tile::BN);

    constexpr DType T = DType::bf16;
    constexpr int BM = Tile::BM, BN = Tile::BN, BK = Tile::BKBytes / 2;
    using MapA = tile::FragmentMap<true, true, BM, BK, 2, Tile::WM>;
    using ShapeA = tile::CopyShape<true, BM, BK, 2, Tile::kThreads>;
    using CopyA = tile::TileCopy<ShapeA, MapA::Swizzle, WindowWalk<BM, BK, ShapeA::kRowStep>>;
    using B = MmaOperand<false, true, BN, BK, 2, Tile::WN, Tile::kThreads>;
    using Warp = tile::WarpTile<T, Tile::WM, Tile::WN, Tile::BKBytes, MapA, B::Map>;

    extern __shared__ __align__(1024) char shared[];
    const tile::Work work = tile::work_of_block(p.tiles_m, p.tiles_n, 1);
    const int64_t m0 = int64_t{work.tile.m} * BM, n0 = int64_t{work.tile.n} * BN, k = int64_t{p.r} * p.s * p.c;
    CopyA copy_a({p, m0});
    B::Copy copy_b({p.weight, {k * 2, 2}, n0, p.n, 0, k, tile::kBytes16});
    Tile::Ring ring(shared);
    const int warp = threadIdx.x / 32;
    Warp sums(warp % Tile::kWarpsM, warp / Tile::kWarpsM, threadIdx.x % 32);
    tile::main_loop(sums, ring, copy_a, copy_b, static_cast<int>((k + BK - 1) / BK));
    ring.drain();
    const tile::Staging<float, BM, BN> staging{shared};
    sums.put(staging);
    __syncthreads();
    write_tile<T, Tile::kThreads>(p, ChannelsFirst{p, int64_t{p.p} * p.q, 0, 0}, staging, work, m0, n0);
}
