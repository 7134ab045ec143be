// Wrong pooling calls are refused here, in torch's cases and with its types of exceptions.
#pragma once

#include "call/call.h"
#include "pooling/problem.h"

namespace nk::pooling {

// Whether torch's output of this op has the channels innermost; one channel leaves that to the strides.
// `of`: the windows, for an output.
bool keeps_channels_last(Kind kind, const TensorView& x, const Windowed* of = nullptr);

// The windows of a plain op, or of an adaptive one; null: there is none.
Windowed windows(const Call& call, const Input& x, Kind kind, const Ints& kernel, const Ints& stride,
                 const Ints* padding, const Ints* dilation, const Ints* output_size, bool ceil_mode);
// `samples`: null in a gradient, which finds its windows without.
Windowed fractional(const Call& call, const Input& x, const Input* samples, Kind kind, const Ints& kernel,
                    const Ints& output_size);

void check_shape(const Call& call, const Input& t, const int64_t* shape, int ndim);
void check_unpool(const Call& call, const Input& x, const Input& indices, int dims, const Ints& output_size);
void check_unpool_gradient(const Call& call, const Input& g, const Input& indices, int dims, const Ints& output_size);

}  // namespace nk::pooling
