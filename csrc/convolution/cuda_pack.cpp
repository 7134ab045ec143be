#include "convolution/cuda_pack.h"

namespace nk::convolution::on_cuda {

namespace {

void launch_pack(const Context& c, cuda::PackParams& q) {
    launch(c.op, "convolution_reduce", concat("convolution_pack_", 8 * c.element()),
           {q.outers * q.inners * ceil_div(q.pixels, cuda::kPackTile) * ceil_div(q.groups * q.padded, cuda::kPackTile),
            cuda::kPackThreads},
           c.device, q, "channels side by side");
}

Scratch scratch_of(const Context& c, const TensorView& like, int64_t elements) {
    return allocate_scratch(like, std::max<int64_t>(elements * c.element(), 16));
}

}  // namespace

bool lies_packed(const Context& c, const ImagesRef& t, int64_t images, const Sizes& size, int64_t channels) {
    if ((t.channel != 1 && channels > 1) || channels % c.unit != 0) return false;
    bool even = reinterpret_cast<uintptr_t>(t.data) % (c.unit * c.element()) == 0;
    even = even && (images <= 1 || t.image % c.unit == 0);
    for (int d = 0; d < kSpatial; ++d) even = even && (size[d] <= 1 || t.pixel[d] % c.unit == 0);
    return even;
}

bool lies_dense(const Context& c, const ImagesRef& t, int64_t images, const Sizes& size, int64_t channels) {
    bool dense = lies_packed(c, t, images, size, channels);
    int64_t step = channels;
    for (int d = kSpatial - 1; d >= 0; --d) {
        dense = dense && (size[d] == 1 || t.pixel[d] == step);
        step *= size[d];
    }
    return dense;
}

Scratch pack(const Context& c, const TensorView& like, const ImagesRef& from, int64_t images, const Sizes& size,
             int64_t channels, int64_t groups) {
    cuda::PackParams q;
    q.from = from.data, q.from_outer = from.image, q.from_channel = from.channel;
    std::copy(size.begin(), size.end(), q.pixel + 1), std::copy(from.pixel, from.pixel + kSpatial, q.from_pixel + 1);
    q.outers = images, q.pixels = product(size);
    q.channels = channels, q.padded = plan::round_up(channels, c.unit), q.groups = groups;
    q.to_pixel = groups * q.padded, q.to_outer = q.pixels * q.to_pixel;
    const Scratch to = scratch_of(c, like, images * q.to_outer);
    q.to = to.data;
    launch_pack(c, q);
    return to;
}

Scratch pack_transposed(const Context& c, const TensorView& like, const ImagesRef& from, int64_t groups, int64_t out,
                        int64_t in, const Sizes& taps) {
    cuda::PackParams q;
    q.from = from.data, q.from_outer = out * from.image, q.from_channel = from.image;
    q.outers = groups, q.channels = out, q.padded = plan::round_up(out, c.unit);
    q.to_outer = in * product(taps) * q.padded;
    if (from.channel == 1) {
        std::copy(taps.begin(), taps.end(), q.inner), std::copy(from.pixel, from.pixel + kSpatial, q.from_inner);
        q.inners = product(taps), q.pixel[3] = q.pixels = in, q.from_pixel[3] = 1;
        q.to_inner = q.padded, q.to_pixel = q.inners * q.padded;
    } else {
        q.pixel[0] = in, q.from_pixel[0] = from.channel, q.pixels = in * product(taps);
        std::copy(taps.begin(), taps.end(), q.pixel + 1);
        std::copy(from.pixel, from.pixel + kSpatial, q.from_pixel + 1);
        q.to_pixel = q.padded;
    }
    const Scratch to = scratch_of(c, like, groups * q.to_outer);
    q.to = to.data;
    launch_pack(c, q);
    return to;
}

Packed packed(const Context& c, const TensorView& like, const ImagesRef& t, int64_t images, const Sizes& size,
              int64_t channels, int64_t groups) {
    Packed p;
    if (lies_packed(c, t, images, size, channels)) {
        p.data = static_cast<const char*>(t.data), p.image = t.image, p.depth = channels;
        p.group = channels * t.channel;  // of one channel: wherever the next is
        std::copy(t.pixel, t.pixel + kSpatial, p.pixel.begin());
        return p;
    }
    p.scratch = pack(c, like, t, images, size, channels, groups);
    p.data = static_cast<const char*>(p.scratch.data);
    p.group = p.depth = plan::round_up(channels, c.unit);
    p.pixel[2] = groups * p.depth, p.pixel[1] = size[2] * p.pixel[2], p.pixel[0] = size[1] * p.pixel[1];
    p.image = size[0] * p.pixel[0];
    return p;
}

}  // namespace nk::convolution::on_cuda
