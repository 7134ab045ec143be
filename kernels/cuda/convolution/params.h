// What the kernels of convolutions are told: plain data, written by csrc/convolution/cuda*.cpp.
#pragma once

#include <stdint.h>

#include "../../convolution.h"
#include "../product/params.h"
#include "../tile/index.h"

namespace nk::cuda {

inline constexpr int kConvolutionThreads = 128;  // of the plain kernels
inline constexpr int kSpatial = convolution::kSpatial;

// What a padded convolution reads beside its image, in the order of csrc/convolution/problem.h.
enum PaddingMode : int32_t { kZeros, kReflect, kReplicate, kCircular };

// Images, or a weight as [o, c / groups, taps]; steps are in elements and may be anything.
struct ImagesRef {
    void* data = nullptr;  // may be null
    int64_t image = 0, channel = 0, pixel[kSpatial] = {};
};

// The plain kernels' whole problem, whatever its sizes, strides and groups. `n` of the epilogue: all channels.
struct PlainConvolutionParams : EpilogueParams {
    ImagesRef image, result, weight, preact, residual;
    int64_t images = 0, groups = 1;
    int64_t image_channels = 0, result_channels = 0;  // of a group
    int64_t in[kSpatial] = {}, out[kSpatial] = {}, kernel[kSpatial] = {};
    int64_t stride[kSpatial] = {}, dilation[kSpatial] = {}, pad[kSpatial] = {};
    int64_t padded[kSpatial] = {};  // pixels of the image with what the window sees before and behind it
    int32_t mode = kZeros;
    int32_t channels_inner = 0;  // neighbouring threads take neighbouring channels, else pixels
};

// sums[c] of all t[n, c, pixel], a part of the images and pixels a block.
struct ChannelSumsParams {
    ImagesRef t;
    void *sums = nullptr, *partial = nullptr;  // partial: [part][channel] of the compute type, or null
    int64_t sums_step = 0, channels = 0, images = 0, pixels[kSpatial] = {};
    int64_t count = 0, per_part = 0;  // images times pixels
};

}  // namespace nk::cuda
