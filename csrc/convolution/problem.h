// Convolutions as checked arguments: what the launchers of the CPU and of CUDA take.
//
// One geometry serves six ops. It is that of a convolution: a window slides over an image of c channels and makes a
// result of o channels. Its three products, each of two of the tensors, are
//
//   forward           result = image * weight            conv
//   data gradient     image  = result * weight            the gradient of conv, and conv_transpose itself
//   weight gradient   weight = image * result             of both
//
// All tensors have five dims: [images, channels, depth, height, width], weights [o, c / groups, depth, height, width];
// of fewer spatial dims, the first are of size 1. Strides are whatever they are.
#pragma once

#include "kernels/activation.h"
#include "kernels/convolution.h"
#include "tensor/view.h"

namespace nk::convolution {

// What a padded convolution reads beside its image.
enum class PaddingMode { zeros, reflect, replicate, circular };
inline constexpr const char* kPaddingModes[] = {"zeros", "reflect", "replicate", "circular"};

struct Geometry {
    int64_t n = 0, c = 0, o = 0, groups = 1;  // images, channels of image and of result
    int64_t in[kSpatial], out[kSpatial];      // pixels of image and of result
    int64_t kernel[kSpatial], stride[kSpatial], dilation[kSpatial];
    int64_t pad[kSpatial];  // before the image; behind it there is as much as the result asks for
    PaddingMode mode = PaddingMode::zeros;

    int64_t pixels_in() const { return in[0] * in[1] * in[2]; }
    int64_t pixels_out() const { return out[0] * out[1] * out[2]; }
    int64_t taps() const { return kernel[0] * kernel[1] * kernel[2]; }
    int64_t image_channels() const { return c / groups; }   // of a group
    int64_t result_channels() const { return o / groups; }  // of a group
};

// result = act(image * weight + bias) + residual; preact receives what goes into act. Pointers may be null.
struct Forward {
    const char* op;
    const Geometry& g;
    const TensorView &result, &image, &weight;
    const TensorView *bias, *residual, *preact;
    Activation activation;
    double p[2];
};

// image = result * weight + bias, a bias for each of the image's channels, or null.
struct DataGradient {
    const char* op;
    const Geometry& g;
    const TensorView &image, &result, &weight;
    const TensorView* bias;
};

struct WeightGradient {
    const char* op;
    const Geometry& g;
    const TensorView &weight, &image, &result;
};

// sums[c] of t[:, c]
struct ChannelSums {
    const char* op;
    const TensorView &sums, &t;
};

void forward_cpu(const Forward& p);
void data_gradient_cpu(const DataGradient& p);
void weight_gradient_cpu(const WeightGradient& p);
void channel_sums_cpu(const ChannelSums& p);

void forward_cuda(const Forward& p);
void data_gradient_cuda(const DataGradient& p);
void weight_gradient_cuda(const WeightGradient& p);
void channel_sums_cuda(const ChannelSums& p);

}  // namespace nk::convolution
