// The running softmax of a warp on the tensor cores: sums of results, and what they are relative to (mma.h has the
// places of rows and columns in lanes).
#pragma once

#include "mma.h"

namespace nk::cuda {

// How a row ends, from its maximum in units of 2^x, the sum relative to it, and the sink, which takes part in the sum.
struct RowEnd {
    float by, lse;  // by: what results are multiplied by

    __device__ __forceinline__ RowEnd(float top, float sum, float sink) {
        const float all = fmaxf(top, sink), from = all == -INFINITY ? 0.f : all;
        const float shrink = top == -INFINITY ? 1.f : ptx::ex2_approx(top - from);
        sum = sum * shrink + (sink == -INFINITY ? 0.f : ptx::ex2_approx(sink - from));
        by = sum == 0 ? 0.f : shrink / sum;
        lse = sum == 0 ? -INFINITY : math::log(sum) + from * kLn2;
    }
};

// 16 Ms rows of 8 Ns scores and 8 Cs columns of results.
template <int Ms, int Ns, int Cs>
struct MmaSoftmax {
    // What a score may exceed the greatest by: 2^8 as a probability. Finite, as the first of a row exceeds -infinity.
    static __device__ __forceinline__ float slack_of(float scale) { return fminf(8 / scale, 1e38f); }

    float o[Ms][Cs][4], top[Ms][2], from[Ms][2], total[Ms][2];

    __device__ __forceinline__ void begin_sums() {
        tile::clear(o);
#pragma unroll
        for (int m = 0; m < Ms; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half) top[m][half] = -INFINITY, from[m][half] = total[m][half] = 0;
    }

    // Scores become probabilities, less a factor for each row, and their sums follow. The factor is that of `top`, the
    // greatest score some tiles ago: sums and results are scaled anew only when a row of the warp has exceeded its own
    // by `slack` (`slack_of`, which f16 can hold).
    __device__ __forceinline__ void add(float (&s)[Ms][Ns][4], float scale, float slack) {
        float next[Ms][2];
        bool grows = false;
#pragma unroll
        for (int m = 0; m < Ms; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                float& greatest = next[m][half];
                greatest = fmaxf(s[m][0][2 * half], s[m][0][2 * half + 1]);
#pragma unroll
                for (int n = 1; n < Ns; ++n)
                    greatest = fmaxf(fmaxf(greatest, s[m][n][2 * half]), s[m][n][2 * half + 1]);
                grows |= greatest > top[m][half] + slack;
            }
        if (__any_sync(kAllLanes, grows)) raise(next, scale);
#pragma unroll
        for (int m = 0; m < Ms; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                float sum = 0;
#pragma unroll
                for (int n = 0; n < Ns; ++n)
#pragma unroll
                    for (int i = 2 * half; i < 2 * half + 2; ++i) {
                        s[m][n][i] = ptx::ex2_approx(fmaf(s[m][n][i], scale, -from[m][half]));
                        sum += s[m][n][i];
                    }
                total[m][half] += sum;  // of this lane's columns
            }
    }
    // Makes sums and results relative to the greatest scores so far.
    __device__ __forceinline__ void raise(const float (&greatest)[Ms][2], float scale) {
#pragma unroll
        for (int m = 0; m < Ms; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const float before = top[m][half];
                top[m][half] = fmaxf(before, reduce_quad(greatest[m][half], Max{}));
                from[m][half] = top[m][half] == -INFINITY ? 0.f : top[m][half] * scale;
                const float shrink = ptx::ex2_approx(fmaf(before, scale, -from[m][half]));
                total[m][half] *= shrink;
#pragma unroll
                for (int c = 0; c < Cs; ++c) o[m][c][2 * half] *= shrink, o[m][c][2 * half + 1] *= shrink;
            }
    }
};

}  // namespace nk::cuda
