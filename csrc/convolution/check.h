// From the arguments of a convolution to its geometry.
#pragma once

#include "call/call.h"
#include "convolution/problem.h"

namespace nk::convolution {

inline constexpr const char* kTorchNames[] = {"conv1d",           "conv2d",           "conv3d",
                                              "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"};
enum class TorchName { conv1d, conv2d, conv3d, conv_transpose1d, conv_transpose2d, conv_transpose3d };
using FaceArgument = NameOf<TorchName, 6, kTorchNames>;
inline int dims_of(TorchName face) { return static_cast<int>(face) % kSpatial + 1; }
using ModeName = NameOf<PaddingMode, 4, kPaddingModes>;

// How the window walks, as it was given: a number for each spatial dim, of padding the numbers before and behind.
struct Window {
    const Ints &stride, &padding, &dilation;
    int64_t groups;
    PaddingMode mode = PaddingMode::zeros;
};

// A convolution whose image, weight and result have these shapes, and its result's shape where that was not given.
struct Checked {
    Geometry g;
    int dims;      // spatial
    bool batched;  // images come in a batch

    // conv of image and weight
    static Checked convolution(const Call& call, const Input& image, const Input& weight, TorchName face,
                               const Window& window);
    // conv_transpose, whose argument input is the result of the geometry and whose output is its image
    static Checked transpose(const Call& call, const Input& input, const Input& weight, TorchName face,
                             const Window& window, const Ints& output_padding);
    // the weight's gradient, of the shape [o, c / groups, *kernel]
    static Checked weight_gradient(const Call& call, const Input& g, const Input& image, const Ints& kernel,
                                   const Window& window);

    // Shapes as the user has them; returns the number of dims.
    int image_shape(int64_t* shape) const { return shape_of(g.c, g.in, shape); }
    int result_shape(int64_t* shape) const { return shape_of(g.o, g.out, shape); }
    int weight_shape(int64_t* shape) const;

    // Throws unless t is the result of the convolution in shape, dtype and device.
    void check_result(const Call& call, const Input& t, const Input& like) const;
    void check_bias(const Call& call, const OptionalInput& bias, const Input& like, int64_t channels) const;

    // A tensor of images, or a weight, with five dims.
    TensorView five(const TensorView& t) const;

  private:
    int shape_of(int64_t channels, const int64_t* pixels, int64_t* shape) const;
};

// Whether torch lays out channels last what it makes of these two.
bool makes_channels_last(const TensorView& images, const TensorView& weight, bool batched);
// The same of the weight's gradient.
bool makes_weight_channels_last(const TensorView& images, const TensorView& weight, bool batched);

}  // namespace nk::convolution
