// The sums of products of depthwise convolutions, over rows of accumulators [column][lane].
#pragma once

#include "../product/lanes.h"
#include "depthwise.h"

namespace nk::NK_ISA {

// One phase of a made row: out[j * step] = init + sum over reads and taps of w[tap] * x[j * stride + tap * dilation].
template <class S>
struct LaneRow {
    const cpu::DepthwiseRead* reads;
    int64_t count;
    const S *x, *w;
    S* out;
    int64_t step, n;
    int64_t taps, stride, dilation;
    const S* init;  // one vector, or null
};

// total[tap] += sum over reads and columns of g[j] * x[j * stride + tap * dilation]; reads have g's offset as w.
template <class S>
struct LaneTaps {
    const cpu::DepthwiseRead* reads;
    int64_t count;
    const S *x, *g;
    S* total;
    int64_t n;
    int64_t taps, stride, dilation;
};

void lane_row(const LaneRow<float>& r);
void lane_row(const LaneRow<double>& r);
void lane_taps(const LaneTaps<float>& r);
void lane_taps(const LaneTaps<double>& r);

}  // namespace nk::NK_ISA
