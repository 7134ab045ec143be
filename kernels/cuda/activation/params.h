// What the host tells PReLU's own kernel; see elementwise/params.h.
#pragma once

#include "../elementwise/params.h"

namespace nk::cuda {

// prelu_backward where the channel is not innermost: block (c, part) walks its share of the channel's elements.
struct PreluRowsParams {
    void* out = nullptr;             // gx
    const void* in[3] = {};          // g, x, w
    Layout<3> layout;                // gx, g, x over one channel's elements, in units when `vector`
    int64_t channel_stride[4] = {};  // gx, g, x, w
    void* partial = nullptr;         // compute type, [parts, channels]; null: write sums at once
    void* sums = nullptr;
    int64_t sums_stride = 0;
    int64_t channels = 0;
    int64_t count = 0;     // points of the layout in one channel
    int64_t numel = 0;     // elements in one channel
    int64_t per_part = 0;  // points
    int32_t vector = 0;
};

}  // namespace nk::cuda
