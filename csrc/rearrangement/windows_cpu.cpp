// Sliding windows on the CPU: a channel at a time. Channels whose pixels (or columns) are not contiguous pass through a
// buffer, some of them together: where they lie side by side that is a transpose.
#include <memory>

#include "cpu/strided_copy.h"
#include "rearrangement/run_cpu.h"

namespace nk::rearrangement {

namespace {

constexpr int64_t kTogether = 16;  // channels, and bytes that they may take
constexpr int64_t kBytes = int64_t{4} << 20;

void set_window(cpu::WindowPlane& a, const Window& w) {
    for (int i = 0; i < 2; ++i) {
        a.kernel[i] = w.kernel[i], a.dilation[i] = w.dilation[i], a.padding[i] = w.padding[i],
        a.stride[i] = w.stride[i];
        a.image[i] = w.image[i], a.places[i] = w.places[i];
    }
}

// Room for the channels that are gathered together.
struct Buffer {
    int64_t channels, each;  // of how many, elements of one
    std::unique_ptr<char[]> data;

    Buffer(bool needed, int64_t elements, int size)
        : channels(std::clamp<int64_t>(kBytes / std::max<int64_t>(elements * size, 1), 1, kTogether)), each(elements) {
        if (needed) data.reset(new char[static_cast<size_t>(channels * elements * size)]);
    }
};

}  // namespace

void run_cpu(const Unfold& p) {
    const TensorView& x = p.image;
    const int size = size_of(x.dtype);
    const int64_t channels = x.shape[1], height = x.shape[2], width = x.shape[3];
    const bool as_is = x.stride[3] == 1 || width == 1;
    const auto kernel = cpu::table().rearrangement.unfold[index_of_size(x.dtype)];
    const int64_t each = p.window.kernel[0] * p.window.kernel[1] * p.columns.shape[2];
    cpu::WindowPlane a{};
    set_window(a, p.window);
    a.apart = as_is ? x.stride[2] : width;
    share_out(p.op, "unfold", p.columns, x.shape[0] * channels, kCostPerByte, [&](int64_t first, int64_t last) {
        const Buffer buffer(!as_is, height * width, size);
        each_plane(first, last, channels, [&](int64_t image, int64_t begin, int64_t end) {
            cpu::WindowPlane b = a;
            while (begin < end) {
                const int64_t some = as_is ? end - begin : std::min(end - begin, buffer.channels);
                char* const from = at(x, image * x.stride[0] + begin * x.stride[1]);
                const bool rows_join = x.stride[2] == width * x.stride[3];
                for (int64_t h = 0; !as_is && h < (rows_join ? 1 : height); ++h)
                    cpu::copy({buffer.data.get() + h * width * size, 1, buffer.each},
                              {from + h * x.stride[2] * size, x.stride[3], x.stride[1]}, some,
                              rows_join ? height * width : width, size);
                for (int64_t c = 0; c < some; ++c) {
                    b.to = at(p.columns, (image * channels + begin + c) * each);
                    b.from = as_is ? from + c * x.stride[1] * size : buffer.data.get() + c * buffer.each * size;
                    kernel(b);
                }
                begin += some;
            }
        });
    });
}

void run_cpu(const Fold& p) {
    const TensorView &y = p.image, &x = p.columns;
    const int size = size_of(y.dtype);
    const int64_t channels = y.shape[1], pixels = y.shape[2] * y.shape[3], length = x.shape[2];
    const int64_t window = p.window.kernel[0] * p.window.kernel[1];
    const bool as_is = x.stride[2] == 1 || length == 1;
    const auto kernel = cpu::table().rearrangement.fold[static_cast<int>(y.dtype)];
    cpu::WindowPlane a{};
    set_window(a, p.window);
    a.apart = as_is ? x.stride[1] : length;
    const double cost = kCostPerByte * static_cast<double>(window);
    share_out(p.op, "fold", y, y.shape[0] * channels, cost, [&](int64_t first, int64_t last) {
        const Buffer buffer(!as_is, window * length, size);
        each_plane(first, last, channels, [&](int64_t image, int64_t begin, int64_t end) {
            cpu::WindowPlane b = a;
            while (begin < end) {
                const int64_t some = as_is ? end - begin : std::min(end - begin, buffer.channels);
                char* const from = at(x, image * x.stride[0] + begin * window * x.stride[1]);
                if (!as_is)
                    cpu::copy({buffer.data.get(), 1, length}, {from, x.stride[2], x.stride[1]}, some * window, length,
                              size);
                for (int64_t c = 0; c < some; ++c) {
                    b.to = at(y, (image * channels + begin + c) * pixels);
                    b.from =
                        as_is ? from + c * window * x.stride[1] * size : buffer.data.get() + c * buffer.each * size;
                    kernel(b);
                }
                begin += some;
            }
        });
    });
}

}  // namespace nk::rearrangement
