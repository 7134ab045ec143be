// Enough of CUDA C++ to run the kernels' own source on a CPU: blocks one after another, the threads of a block as
// coroutines of one operating-system thread, which change hands at barriers and at warp-wide instructions.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__
#define __launch_bounds__(...)
#define __grid_constant__
#define __shared__ static
#define __align__(n) __attribute__((aligned(n)))

struct Dim {
    unsigned x = 0, y = 0, z = 0;
};
extern Dim threadIdx, blockIdx;

struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(16) double2 {
    double x, y;
};
struct alignas(8) uint2 {
    uint32_t x, y;
};
struct alignas(16) uint4 {
    uint32_t x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline double2 make_double2(double x, double y) { return {x, y}; }
inline uint2 make_uint2(uint32_t x, uint32_t y) { return {x, y}; }
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }
inline float __uint_as_float(uint32_t x) {
    float r;
    memcpy(&r, &x, 4);
    return r;
}
inline uint32_t __float_as_uint(float x) {
    uint32_t r;
    memcpy(&r, &x, 4);
    return r;
}
using std::fma;
using std::fmaf;
using std::max;
using std::min;

namespace host {

inline constexpr int kSharedBytes = 227 * 1024;
extern char shared_memory[kSharedBytes];
extern long bank_conflicts;   // wavefronts beyond the least, of the accesses that are counted
extern unsigned shared_used;  // dynamic shared memory of this launch

void sync_block();

// All lanes of the warp meet; the last one to come does `work(lane states)` for all. States stay where lanes put them.
void warp_collective(void* mine, void (*work)(void** lanes));

[[noreturn]] inline void fail(const char* what) {
    fprintf(stderr, "cuda_host: %s (block %u %u %u, thread %u)\n", what, blockIdx.x, blockIdx.y, blockIdx.z,
            threadIdx.x);
    abort();
}

inline void check_shared(uint32_t address, uint32_t bytes, uint32_t alignment) {
    if (address + bytes > shared_used) fail("access beyond the shared memory of the launch");
    if (address % alignment != 0) fail("misaligned access to shared memory");
}

// Copies that cp.async has promised: they happen as late as waiting allows, so that a missing wait shows.
void async_copy(uint32_t dst, const void* src, int bytes, int valid);
void async_commit();
void async_wait(int pending);

}  // namespace host

inline void __syncthreads() { host::sync_block(); }
