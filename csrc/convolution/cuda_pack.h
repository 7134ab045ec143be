// Operands of convolutions as the tiled CUDA kernels take them: channels side by side.
#pragma once

#include <algorithm>
#include <array>

#include "convolution/cuda.h"
#include "convolution/plan_cuda.h"
#include "tensor/scratch.h"

namespace nk::convolution::on_cuda {

using cuda::ImagesRef;
using Sizes = std::array<int64_t, kSpatial>;

// Images as a kernel finds them: channels of a group side by side, `depth` of them (with zeros) instead of `channels`.
struct Packed {
    const char* data = nullptr;
    int64_t image = 0, group = 0, depth = 0;  // steps in elements
    Sizes pixel = {};
    Scratch scratch;
};

inline Sizes sizes(const int64_t* s) { return {s[0], s[1], s[2]}; }
inline int64_t product(const Sizes& s) { return s[0] * s[1] * s[2]; }

// How a pass over tensors is set up.
struct Context {
    const char* op;
    DType dtype;
    Device device;
    plan::Gpu gpu;
    bool tf32 = false;
    int unit = 0;  // elements

    Context(const char* op, const TensorView& t) : op(op), dtype(t.dtype), device(t.device) {
        const driver::DeviceInfo& info = driver::device_info(device.kind == Device::cuda ? device.index : 0);
        gpu = {info.multiprocessors, info.shared_per_block, info.shared_per_multiprocessor, info.major};
        tf32 = dtype == DType::f32 && allows_tf32();
        unit = plan::convolution_unit(dtype, tf32);
    }
    int64_t element() const { return size_of(dtype); }
    std::string element_name() const { return tf32 ? "tf32" : cuda::short_name(dtype); }
};

// Whether units of channels can be read where they are; and whether all lie without gaps.
bool lies_packed(const Context& c, const ImagesRef& t, int64_t images, const Sizes& size, int64_t channels);
bool lies_dense(const Context& c, const ImagesRef& t, int64_t images, const Sizes& size, int64_t channels);

// [images, pixels, groups of channels]
Scratch pack(const Context& c, const TensorView& like, const ImagesRef& from, int64_t images, const Sizes& size,
             int64_t channels, int64_t groups);
// A weight [groups of o, c, taps] as [groups, c, taps, o].
Scratch pack_transposed(const Context& c, const TensorView& like, const ImagesRef& from, int64_t groups, int64_t out,
                        int64_t in, const Sizes& taps);
// As they are, or packed.
Packed packed(const Context& c, const TensorView& like, const ImagesRef& t, int64_t images, const Sizes& size,
              int64_t channels, int64_t groups);

}  // namespace nk::convolution::on_cuda
