// Copies tiles of an operand with any strides into shared memory as [K][Pitch], the outer index contiguous, by
// cp.async of single elements (4 or 8 bytes), which turns k-contiguous operands on the way and asks for no alignment.
#pragma once

#include <stdint.h>

#include "../ptx/address.h"
#include "../ptx/cp_async.h"
#include "walk.h"

namespace nk::tile {

// How the lanes of a warp are laid over the tile: along the direction in which the operand is contiguous.
enum class Walk : int { k, outer, outer_wide };

// Columns of a row in shared memory: four more than the tile. When lanes run along k (kLanesK of them, then along the
// outer index) their stores then fall into different banks: element (k, i) lies in word 4 k + i of 32 (f32) or in
// double 4 k + i of 16 (f64). The host model in tests/test_plan.py counts conflicts for every walk.
template <int Outer>
inline constexpr int kElementPitch = Outer + 4;

template <int Outer, int K, int ElementBytes, int Threads>
class ElementCopy {
    static constexpr int kPitch = kElementPitch<Outer>;
    static constexpr int kLanesK = 32 / ElementBytes;  // one sector of 32 bytes along k
    static constexpr int kPerChunk = 16 / ElementBytes;
    static_assert(K % kLanesK == 0 && Threads % Outer == 0 && Threads % kLanesK == 0, "whole passes");
    static_assert(Outer % (Threads / kLanesK) == 0 || (Threads / kLanesK) % Outer == 0, "whole passes");

  public:
    static constexpr int kTileBytes = K * kPitch * ElementBytes;

    __device__ __forceinline__ explicit ElementCopy(const MatrixWalk& walk) : p_(walk) {
        walk_ = p_.access == kBytes16 ? Walk::outer_wide : p_.steps.k == ElementBytes ? Walk::k : Walk::outer;
        source_ = static_cast<const char*>(p_.origin) + p_.outer * p_.steps.outer + p_.k * p_.steps.k;
    }

    // As TileCopy's: tiles that exist entirely are not told from others.
    __device__ __forceinline__ int whole() const { return 0; }
    __device__ __forceinline__ void issue_whole(char*) {}

    __device__ __forceinline__ void issue(char* tile, int index) {
        const auto [outers, ks] = p_.template limits<Along::k, Outer, K>(index);
        if (walk_ == Walk::outer_wide)
            along_outer<16>(tile, outers, ks);
        else if (walk_ == Walk::outer)
            along_outer<ElementBytes>(tile, outers, ks);
        else
            along_k(tile, outers, ks);
        source_ += K * p_.steps.k;
    }

  private:
    template <int Bytes>
    __device__ __forceinline__ void along_outer(char* tile, int outers, int ks) {
        constexpr int kLanes = Outer * ElementBytes / Bytes;  // of one row
        constexpr int kRowStep = Threads / kLanes;
        static_assert(Threads % kLanes == 0 && K % kRowStep == 0, "whole passes");
        const int i = threadIdx.x % kLanes * (Bytes / ElementBytes), row = threadIdx.x / kLanes;
        const char* from = source_ + i * p_.steps.outer + row * p_.steps.k;
        const uint32_t target = ptx::shared_address(tile) + (row * kPitch + i) * ElementBytes;
        const int valid = min(max((outers - i) * ElementBytes, 0), Bytes);
#pragma unroll
        for (int k = 0; k < K; k += kRowStep, from += kRowStep * p_.steps.k)
            copy<Bytes>(target, k, from, row + k < ks ? valid : 0);
    }

    __device__ __forceinline__ void along_k(char* tile, int outers, int ks) {
        constexpr int kOuterStep = Threads / kLanesK;
        const int k = threadIdx.x % kLanesK, i = threadIdx.x / kLanesK;
        const char* from = source_ + i * p_.steps.outer + k * p_.steps.k;
        const uint32_t target = ptx::shared_address(tile) + (k * kPitch + i) * ElementBytes;
#pragma unroll
        for (int o = 0; o < Outer; o += kOuterStep, from += kOuterStep * p_.steps.outer)
#pragma unroll
            for (int kk = 0; kk < K; kk += kLanesK) {
                const int bytes = k + kk < ks && i + o < outers ? ElementBytes : 0;
                ptx::cp_async<ElementBytes>(target + (kk * kPitch + o) * ElementBytes,
                                            bytes > 0 ? from + kk * ElementBytes : anywhere(), bytes);
            }
    }

    template <int Bytes>
    __device__ __forceinline__ void copy(uint32_t target, int k, const char* from, int bytes) {
        const uint32_t to = target + k * kPitch * ElementBytes;
        if constexpr (Bytes == 16)
            ptx::cp_async_16(to, bytes > 0 ? from : anywhere(), bytes);
        else
            ptx::cp_async<Bytes>(to, bytes > 0 ? from : anywhere(), bytes);
    }

    __device__ __forceinline__ const char* anywhere() const { return static_cast<const char*>(p_.origin); }

    MatrixWalk p_;
    const char* source_;
    Walk walk_;
};

}  // namespace nk::tile
