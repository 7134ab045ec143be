// A ring of shared-memory stages that cp.async fills ahead of the computation.
//
// Group counting: every step of the main loop commits exactly one group per thread, empty or not, after `Stages - 1`
// groups of the prologue. Tile i is group number i, so when tile i is wanted and tiles up to i + Stages - 2 have been
// committed, "at most Stages - 2 pending" means that it has arrived.
#pragma once

#include <stdint.h>

#include "../ptx/cp_async.h"

namespace nk::tile {

template <int Stages, int StageBytes>
class Ring {
    static_assert(Stages >= 2, "one stage is read while the others are filled");

  public:
    static constexpr int kAhead = Stages - 1;
    static constexpr int kBytes = Stages * StageBytes;

    __device__ __forceinline__ explicit Ring(char* memory) : memory_(memory) {}

    __device__ __forceinline__ char* reading() const { return memory_ + read_; }
    __device__ __forceinline__ char* writing() const { return memory_ + write_; }

    // After the copies of one stage were started.
    __device__ __forceinline__ void commit() {
        ptx::cp_async_commit();
        write_ = next(write_);
    }

    // Waits for the stage after the one that is read now (for the first one at the start), for the whole block.
    __device__ __forceinline__ void arrive() {
        ptx::cp_async_wait<Stages - 2>();
        __syncthreads();
    }
    __device__ __forceinline__ void advance() { read_ = next(read_); }

    // Nothing is under way any more and the memory is free for other uses.
    __device__ __forceinline__ void drain() {
        ptx::cp_async_wait<0>();
        __syncthreads();
    }

  private:
    static __device__ __forceinline__ uint32_t next(uint32_t offset) {
        return offset + StageBytes == kBytes ? 0 : offset + StageBytes;
    }

    char* memory_;
    uint32_t read_ = 0, write_ = 0;  // byte offsets
};

}  // namespace nk::tile
