// A ring of stages in shared memory that copies fill ahead of the computation.
//
// A stage has one or more parts, which are filled and waited for apart and in turn: tiles of A and B together are one
// part; attention waits for a tile of keys, and for that of values when it needs them. Whoever fills writes
//
//     ring.acquire();  copies to ring.writing();  ring.commit();
//
// and whoever computes
//
//     ring.wait();  reads from ring.reading();  ring.release();
//
// both for part after part (`<1>`, `<2>`, ... for those after the first). kAhead stages are filled before the first
// wait, and after each wait the same part of the stage kAhead further, so that the copies stay that far ahead. How
// it becomes known that a part has arrived, and is free again, is `Arrival`: by groups of cp.async and the block's
// barrier, or by mbarriers.
#pragma once

#include <stdint.h>

#include "../ptx/address.h"
#include "../ptx/cp_async.h"
#include "../ptx/mbarrier.h"

namespace nk::tile {

// All threads copy, and all compute. Each commits one group for each part, empty or not: part number j (of all stages)
// is its group number j, and when it waits for j, those up to j + Ahead - 1 were committed (Ahead counts parts). So "at
// most Ahead - 1 pending" says that j has arrived. The barrier makes it visible to the block and, as it is passed by
// threads that are done with what they read before, frees the part that is filled next.
template <int Ahead>
struct GroupArrival {
    static constexpr bool kByGroups = true;

    __device__ __forceinline__ void acquire(int, uint32_t) const {}
    __device__ __forceinline__ void commit(int) const { ptx::cp_async_commit(); }
    __device__ __forceinline__ void wait(int, uint32_t) const {
        ptx::cp_async_wait<Ahead - 1>();
        __syncthreads();
    }
    __device__ __forceinline__ void release(int) const {}
};

// Two mbarriers for each slot (a part of a stage): `full` ends a phase when every producer has arrived, `empty` when
// every consumer has. Nobody waits for the block, so producers and consumers may be different warps.
template <int Slots>
struct MbarrierArrival {
    static constexpr int kBytes = 2 * Slots * 8;
    static constexpr bool kByGroups = false;

    // `barriers`: kBytes of shared memory, 8-byte aligned. By the whole block, once.
    __device__ __forceinline__ MbarrierArrival(char* barriers, int producers, int consumers)
        : full_(ptx::shared_address(barriers)) {
        if (threadIdx.x == 0) {
#pragma unroll 1
            for (int slot = 0; slot < Slots; ++slot) {
                ptx::mbarrier_init(full(slot), 2 * producers);  // see commit
                ptx::mbarrier_init(empty(slot), consumers);
            }
        }
        __syncthreads();
    }

    __device__ __forceinline__ uint32_t full(int slot) const { return full_ + 16 * slot; }
    __device__ __forceinline__ uint32_t empty(int slot) const { return full(slot) + 8; }

    // The slot's first filling finds it empty: there the phase before the first counts as over.
    __device__ __forceinline__ void acquire(int slot, uint32_t phase) const {
        ptx::mbarrier_wait(empty(slot), phase ^ 1);
    }
    __device__ __forceinline__ void commit(int slot) const {
        ptx::mbarrier_arrive_after_copies(full(slot));
        ptx::mbarrier_arrive(full(slot));  // for what this thread stored itself
    }
    __device__ __forceinline__ void wait(int slot, uint32_t phase) const { ptx::mbarrier_wait(full(slot), phase); }
    __device__ __forceinline__ void release(int slot) const { ptx::mbarrier_arrive(empty(slot)); }

  private:
    uint32_t full_;
};

// `PartBytes`: of each part of a stage.
template <int Stages, class Arrival, int... PartBytes>
class Ring {
    static_assert(Stages >= 2, "one stage is read while the others are filled");
    static constexpr int kParts = sizeof...(PartBytes);
    static constexpr int kStageBytes = (PartBytes + ...);

    static constexpr int offset(int part) {
        constexpr int bytes[] = {PartBytes...};
        int sum = 0;
        for (int i = 0; i < part; ++i) sum += bytes[i];
        return sum;
    }

  public:
    static constexpr int kAhead = Stages - 1;
    static constexpr int kBytes = Stages * kStageBytes;

    __device__ __forceinline__ explicit Ring(char* memory, Arrival arrival = Arrival())
        : memory_(memory), arrival_(arrival) {}

    template <int Part = 0>
    __device__ __forceinline__ char* reading() const {
        return memory_ + read_.offset + offset(Part);
    }
    template <int Part = 0>
    __device__ __forceinline__ char* writing() const {
        return memory_ + write_.offset + offset(Part);
    }

    // The part may be overwritten.
    template <int Part = 0>
    __device__ __forceinline__ void acquire() const {
        arrival_.acquire(write_.slot(Part), write_.phase);
    }
    // The copies of the part were started.
    template <int Part = 0>
    __device__ __forceinline__ void commit() {
        arrival_.commit(write_.slot(Part));
        if constexpr (Part == kParts - 1) write_.advance();
    }
    // The part has arrived, and may be read.
    template <int Part = 0>
    __device__ __forceinline__ void wait() const {
        arrival_.wait(read_.slot(Part), read_.phase);
    }
    // This thread has read it, into registers.
    template <int Part = 0>
    __device__ __forceinline__ void release() {
        arrival_.release(read_.slot(Part));
        if constexpr (Part == kParts - 1) read_.advance();
    }

    // The barrier that a part's copies arrive at, for copies that do so by themselves.
    template <int Part = 0>
    __device__ __forceinline__ uint32_t full() const {
        return arrival_.full(write_.slot(Part));
    }

    // Takes what was filled ahead and nobody asked for, as one who computes; afterwards the ring may be filled anew.
    __device__ __forceinline__ void flush() {
        if constexpr (Arrival::kByGroups) {
            ptx::cp_async_wait<0>();
            read_ = write_;
        } else {
#pragma unroll 1
            for (int stage = 0; stage < kAhead; ++stage) skip<0>();
        }
    }
    // By the whole block: nothing is under way any more and the memory is free for other uses.
    __device__ __forceinline__ void drain() {
        flush();
        __syncthreads();
    }

  private:
    // Parts that nobody asked for.
    template <int Part>
    __device__ __forceinline__ void skip() {
        wait<Part>();
        release<Part>();
        if constexpr (Part + 1 < kParts) skip<Part + 1>();
    }

    // A stage as its byte offset, and how often the ring came round to it (modulo 2).
    struct Place {
        uint32_t offset = 0, phase = 0;
        __device__ __forceinline__ int slot(int part) const { return offset / kStageBytes * kParts + part; }
        __device__ __forceinline__ void advance() {
            offset += kStageBytes;
            if (offset == kBytes) offset = 0, phase ^= 1;
        }
    };

    char* memory_;
    Arrival arrival_;
    Place read_, write_;
};

template <int Stages, int... PartBytes>
using GroupRing = Ring<Stages, GroupArrival<(Stages - 1) * static_cast<int>(sizeof...(PartBytes))>, PartBytes...>;
template <int Stages, int... PartBytes>
using MbarrierRing = Ring<Stages, MbarrierArrival<Stages* static_cast<int>(sizeof...(PartBytes))>, PartBytes...>;

}  // namespace nk::tile
