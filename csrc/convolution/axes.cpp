#include "convolution/axes.h"

#include <algorithm>

namespace nk::convolution {

namespace {

// `read`(tap, position): the pixel as if the source had no ends. `place`: what is there, or -1.
template <class Read, class Place>
Axis axis_of(int64_t positions, int64_t taps, int64_t size, int64_t step, int64_t stride, Read&& read, Place&& place) {
    Axis a;
    a.lists.resize(static_cast<size_t>(taps * positions + 2 * taps));
    int32_t *at = a.lists.data(), *first = at + taps * positions, *last = first + taps;
    for (int64_t t = 0; t < taps; ++t) {
        int64_t begin = 0, end = 0;  // inside of the source
        for (int64_t p = 0; p < positions; ++p) {
            const int64_t pixel = read(t, p);
            const bool inside = pixel >= 0 && pixel < size;
            if (inside && begin == end) begin = p;
            if (inside) end = p + 1;
            at[t * positions + p] = static_cast<int32_t>(inside ? pixel : place(pixel));
        }
        first[t] = static_cast<int32_t>(begin), last[t] = static_cast<int32_t>(end);
    }
    a.kernel.positions = positions, a.kernel.taps = taps;
    a.kernel.at = at, a.kernel.first = first, a.kernel.last = last;
    a.kernel.step = step, a.kernel.stride = stride;
    return a;
}

// Of axes that padded rows are made of; longer ones, which padding alone can make, are gathered.
template <class Pixel>
void set_places(Axis& a, int64_t count, int64_t step, int64_t dilation, Pixel&& pixel) {
    constexpr int64_t kMost = 1 << 20;
    if (count > kMost) return;
    for (int64_t u = 0; u < count; ++u) a.pixels.push_back(static_cast<int32_t>(pixel(u)));
    a.place = {a.pixels.data(), count, step, dilation};
}

}  // namespace

cpu::ConvTarget target_of(const TensorView* t) {
    cpu::ConvTarget to;
    if (t == nullptr) return to;
    to.data = t->data, to.image = t->stride[0], to.channel = t->stride[1];
    std::copy_n(t->stride + 2, kSpatial, to.axis);
    return to;
}

int64_t pixel_at(int64_t at, int64_t size, PaddingMode mode) {
    if (at >= 0 && at < size) return at;
    switch (mode) {
        case PaddingMode::reflect:
            return at < 0 ? -at : 2 * (size - 1) - at;
        case PaddingMode::replicate:
            return at < 0 ? 0 : size - 1;
        case PaddingMode::circular:
            return at < 0 ? at + size : at - size;
        case PaddingMode::zeros:
            break;
    }
    return -1;
}

Axis forward_axis(const Geometry& g, int k, int64_t stride) {
    const int64_t size = g.in[k];
    Axis a = axis_of(
        g.out[k], g.kernel[k], size, g.stride[k], stride,
        [&](int64_t t, int64_t p) { return p * g.stride[k] - g.pad[k] + t * g.dilation[k]; },
        [&](int64_t at) { return pixel_at(at, size, g.mode); });
    a.kernel.zeros = g.mode == PaddingMode::zeros;
    a.kernel.joined = g.dilation[k] == 1 && a.kernel.zeros;
    set_places(a, (g.out[k] - 1) * g.stride[k] + (g.kernel[k] - 1) * g.dilation[k] + 1, g.stride[k], g.dilation[k],
               [&](int64_t u) { return pixel_at(u - g.pad[k], size, g.mode); });
    return a;
}

Phase image_phase(const Geometry& g, int k, int64_t phase, int64_t stride) {
    Phase made;
    made.step = g.stride[k];
    made.first = ((phase - g.pad[k]) % made.step + made.step) % made.step;
    for (int64_t t = g.kernel[k] - 1; t >= 0; --t)  // backwards: a later one reads a later pixel
        if (t * g.dilation[k] % made.step == phase) made.taps.push_back(t);
    const auto taps = static_cast<int64_t>(made.taps.size());
    const int64_t count = made.first < g.in[k] ? (g.in[k] - made.first - 1) / made.step + 1 : 0;
    const auto read = [&](int64_t t, int64_t p) {
        return (made.first + p * made.step + g.pad[k] - made.taps[static_cast<size_t>(t)] * g.dilation[k]) / made.step;
    };
    made.axis = axis_of(count, taps, g.out[k], 1, stride, read, [](int64_t) { return int64_t{-1}; });
    const int64_t apart = taps > 1 ? (made.taps[0] - made.taps[1]) * g.dilation[k] / made.step : 1;
    made.axis.kernel.joined = apart == 1;
    if (taps > 0 && count > 0)
        set_places(made.axis, count - 1 + (taps - 1) * apart + 1, 1, apart, [&](int64_t u) {
            const int64_t pixel = read(0, 0) + u;
            return pixel >= 0 && pixel < g.out[k] ? pixel : -1;
        });
    return made;
}

Axis plain_axis(int64_t pixels, int64_t stride) {
    return axis_of(
        pixels, 1, pixels, 1, stride, [](int64_t, int64_t p) { return p; }, [](int64_t) { return int64_t{-1}; });
}

}  // namespace nk::convolution
