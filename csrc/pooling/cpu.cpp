// Pooling on the CPU: planes, or rows of pixels where the channels are innermost, are shared out to the threads.
#include <memory>
#include <vector>

#include "call/run.h"
#include "cpu/cpuid.h"
#include "cpu/elementwise.h"
#include "cpu/strided_copy.h"
#include "cpu/table.h"
#include "cpu/threads.h"
#include "cpu/workspace.h"
#include "plan/arithmetic.h"
#include "pooling/problem.h"
#include "tensor/check.h"

namespace nk::pooling {

namespace {

using cpu::Pool;
using cpu::PoolAxis;

constexpr int64_t kMostStride = 8;  // windows further apart are looked at one by one

// A tensor that lies dense, as planes or with the channels innermost; any other is copied.
struct Dense {
    std::unique_ptr<char[]> copy;
    const char* data;

    Dense(const TensorView& t, int dims, bool channels) : data(static_cast<const char*>(t.data)) {
        const Image from(t, dims);
        if (t.numel() == 0 || from.is_dense(channels)) return;
        const int size = size_of(t.dtype);
        copy.reset(new char[static_cast<size_t>(t.numel() * size)]);
        data = copy.get();
        const int64_t c = from.size[1], d = from.size[2], h = from.size[3], w = from.size[4];
        const int64_t rows = from.size[0] * d * h;
        cpu::parallel(static_cast<int>(std::min<int64_t>(rows, cpu::threads_for(t.numel(), 1.0))), [&](int tid, int n) {
            for (int64_t row = rows * tid / n; row < rows * (tid + 1) / n; ++row) {
                const int64_t j = row % h, i = row / h % d, b = row / h / d;
                const int64_t source = b * from.stride[0] + i * from.stride[2] + j * from.stride[3];
                const int64_t to = channels ? row * w * c : (b * c * d * h + i * h + j) * w;
                cpu::copy({copy.get() + to * size, channels ? c : 1, channels ? 1 : d * h * w},
                          {from.data + source * size, from.stride[4], from.stride[1]}, c, w, size);
            }
        });
    }
};

// Whether an op works on the channels innermost: where its output lies so, or may, as its input does.
bool channels_innermost(const TensorView& out, const TensorView& in, int dims) {
    const Image to(out, dims), from(in, dims);
    return to.is_dense(true) && !(to.is_dense(false) && from.is_dense(false)) &&
           (!to.is_dense(false) || from.is_dense(true));
}

// The windows of all dims as tables, which the axes point into.
struct Tables {
    std::vector<int64_t> numbers;
    PoolAxis axis[3];
    bool holes = false;  // a window without an element

    Tables(const PoolDim (&dims)[3], bool include_pad) {
        size_t size = 0;
        for (const PoolDim& d : dims) size += static_cast<size_t>(3 * d.out + 2 * d.in);
        numbers.resize(size);
        int64_t* next = numbers.data();
        for (int k = 0; k < 3; ++k) {
            const PoolDim& d = dims[k];
            PoolAxis& a = axis[k];
            int64_t *begin = next, *end = begin + d.out, *count = end + d.out, *first = count + d.out;
            int64_t* last = first + d.in;
            next = last + d.in;
            a = {d.in,     d.out,      begin,
                 end,      first,      last,
                 count,    d.dilation, d.windows == Windows::plain && d.stride <= kMostStride,
                 d.kernel, d.stride,   d.windows == Windows::plain ? d.padding : 0};
            for (int64_t o = 0; o < d.out && d.windows != Windows::fractional; ++o) {
                const PoolRange r = pool_window(d, o);
                begin[o] = r.begin, end[o] = r.end, count[o] = pool_count(d, o, include_pad);
                holes |= r.begin >= r.end;
            }
            for (int64_t i = 0; i < d.in; ++i) {
                const PoolRange r = pool_holders(d, i);
                first[i] = r.begin, last[i] = r.end;
            }
        }
    }
};

// Windows over whole planes are those of one long row.
void merge_whole(PoolDim (&dim)[3]) {
    for (int k = 1; k >= 0; --k) {
        const bool whole = dim[2].windows == Windows::adaptive && dim[2].out == 1;
        if (!whole || dim[k].windows != Windows::adaptive || dim[k].out != 1) return;  // what lies between is not whole
        dim[2].in *= dim[k].in;
        dim[k] = PoolDim();
    }
}

size_t scratch_bytes(const Pool& p, bool plane_of_floats) {
    const PoolAxis& a = p.axis[2];
    const int64_t reach = a.regular ? (a.kernel - 1) * a.dilation / a.stride : 0;
    const int64_t phase = a.out + reach + 34, stride = a.regular ? a.stride : 1;
    const int64_t length = std::max(stride * phase, a.padding + a.in + 48);
    const int64_t lines = 8 * (3 * length + 2 * stride * phase + 4 * phase + a.kernel + 128);
    const int64_t plane = plane_of_floats ? 4 * (p.axis[0].in * p.axis[1].in * a.in + 16) : 0;
    int64_t holders = 1;  // windows that may hold one element
    for (const PoolAxis& d : p.axis) {
        int64_t most = 0;
        for (int64_t i = 0; i < d.in; ++i) most = std::max(most, d.last[i] - d.first[i]);
        holders *= most;
    }
    constexpr int64_t sums = 8 * 2112;  // of the channels of large windows
    return static_cast<size_t>(plan::round_up(std::max({lines, plane, 16 * holders, sums}), 64));
}

// f(part of the work, with a thread's own scratch) on as many threads as the work is worth.
template <class F>
void run_on_threads(const char* op, const Windowed& w, Pool& p, int64_t tasks, int64_t elements, double cost,
                    bool channels, bool plane_of_floats, F f) {
    const cpu::Level level = cpu::table().level;
    if (level == cpu::Level::scalar) cost *= 8;
    // where there are too few rows, the threads share the channels
    const int64_t blocks = plan::ceil_div(p.channels, 64), most = cpu::threads_for(elements, cost);
    const bool by_channel = channels && tasks < most && tasks < blocks;
    const int threads = static_cast<int>(std::clamp<int64_t>(by_channel ? blocks : tasks, 1, most));
    const size_t bytes = scratch_bytes(p, plane_of_floats);
    static thread_local cpu::Workspace workspace;
    char* const scratch = workspace.get(bytes * static_cast<size_t>(threads));
    run_on_cpu(
        op, name_of(w.kind), static_cast<double>(elements) * cost,
        [&] {
            return concat(cpu::name_of(level), ", ", channels ? "channels innermost" : "planes", ", ", threads,
                          " threads");
        },
        [&] {
            cpu::parallel(threads, [&](int tid, int count) {
                Pool part = p;
                part.begin = 0, part.end = tasks, part.first_channel = 0, part.last_channel = p.channels;
                if (by_channel)
                    part.first_channel = std::min(p.channels, blocks * tid / count * 64),
                    part.last_channel = std::min(p.channels, blocks * (tid + 1) / count * 64);
                else
                    part.begin = tasks * tid / count, part.end = tasks * (tid + 1) / count;
                part.scratch = scratch + bytes * static_cast<size_t>(tid);
                if (part.begin < part.end) f(part);
            });
        });
    workspace.trim();
}

int64_t elements_read(const Windowed& w, int64_t planes) {
    int64_t window = 1;
    for (const PoolDim& d : w.dim)
        window *= d.windows == Windows::adaptive ? d.in / std::max<int64_t>(d.out, 1) + 1 : d.kernel;
    return planes * std::max(w.inputs(), w.outputs() * window / 2);
}

// Whether each dim's windows share no element.
bool is_apart(const PoolDim (&dims)[3]) {
    for (const PoolDim& d : dims) {
        if (d.out == 1) continue;
        if (d.windows == Windows::fractional || (d.windows == Windows::adaptive && d.in % d.out != 0)) return false;
        if (d.windows == Windows::plain && (d.kernel - 1) * d.dilation >= d.stride) return false;
    }
    return true;
}

Pool pool_of(const Tables& t, const Windowed& w) {
    Pool p{};
    std::copy(t.axis, t.axis + 3, p.axis);
    p.divisor = static_cast<double>(w.divisor);
    p.norm = w.norm;
    p.full = static_cast<double>(w.dim[0].kernel * w.dim[1].kernel * w.dim[2].kernel);
    return p;
}

void* offset(const void* base, int64_t elements, int size) {
    return static_cast<char*>(const_cast<void*>(base)) + elements * size;
}

// Planes one by one, each with the starts of its own windows where they are fractional.
void max_each(const Windowed& w, const Pool& p, const Tables& t, const Image& y, int size, bool channels) {
    const auto& table = cpu::table().pooling;
    const int type = static_cast<int>(y.dtype);
    const int64_t inner = channels ? p.channels : 1, in = w.inputs(), out = w.outputs();
    std::vector<int64_t> starts;
    for (int64_t plane = p.begin; plane < p.end; ++plane) {
        const int64_t n = plane / y.size[1], c = plane % y.size[1];
        const int64_t from = channels ? n * inner * in + c : plane * in,
                      to = channels ? n * inner * out + c : plane * out;
        cpu::PoolEach e{offset(p.out, to, size), nullptr, offset(p.x, from, size), p.wide, {}, inner, inner};
        if (p.indices != nullptr) e.indices = offset(p.indices, to, p.wide ? 8 : 4);
        std::copy(t.axis, t.axis + 3, e.axis);
        if (w.samples != nullptr) {
            starts.resize(static_cast<size_t>(2 * (w.dim[0].out + w.dim[1].out + w.dim[2].out)));
            int64_t* next = starts.data();
            const TensorView& s = *w.samples;
            const int dims = dims_of(w.kind);
            for (int k = 0; k < 3; ++k) {
                const PoolDim& d = w.dim[k];
                int64_t *begin = next, *end = next + d.out;
                next = end + d.out;
                // of two dims torch gives W the first number, and of three D
                const int which = dims == 2 ? 2 - k : k;
                if (d.windows == Windows::fractional)
                    table.starts[type]({begin,
                                        offset(s.data, n * s.stride[0] + c * s.stride[1] + which * s.stride[2], size),
                                        d.in, d.out, d.kernel});
                else
                    begin[0] = 0;
                for (int64_t o = 0; o < d.out; ++o) end[o] = begin[o] + d.kernel;
                e.axis[k].begin = begin, e.axis[k].end = end;
            }
        }
        table.max_each[type](e);
    }
}

}  // namespace

void max_cpu(const char* op, const Windowed& given, const TensorView& y, const TensorView* indices,
             const TensorView& x) {
    if (y.numel() == 0) return;
    const int dims = dims_of(given.kind), type = static_cast<int>(y.dtype), size = size_of(y.dtype);
    const Image out(y, dims);
    const bool channels = channels_innermost(y, x, dims);
    Windowed w = given;
    if (!channels) merge_whole(w.dim);
    const Tables tables(w.dim, true);
    const Dense from(x, dims, channels);
    Pool p = pool_of(tables, w);
    p.out = y.data, p.x = from.data, p.channels = out.size[1];
    p.indices = indices == nullptr ? nullptr : indices->data;
    p.wide = indices != nullptr && indices->dtype == DType::i64;
    const int64_t exact = int64_t{1} << (y.dtype == DType::f64 ? 31 : 24);  // what a number counts to
    const bool each = w.samples != nullptr || tables.holes || w.inputs() >= exact;
    const int64_t planes = out.planes();
    const int64_t tasks = each || !channels ? planes : out.size[0] * w.dim[0].out * w.dim[1].out;
    const auto& table = cpu::table().pooling;
    run_on_threads(op, w, p, tasks, elements_read(w, planes), each ? 2.0 : 0.25, channels && !each, false,
                   [&](const Pool& part) {
                       if (each) return max_each(w, part, tables, out, size, channels);
                       (channels ? table.max_channels : table.max_planes)[type](part);
                   });
}

void max_backward_cpu(const char* op, const Windowed& given, const TensorView& gx, const TensorView& g,
                      const TensorView& indices) {
    if (gx.numel() == 0) return;
    const int dims = dims_of(given.kind), type = static_cast<int>(gx.dtype);
    const Image to(gx, dims);
    const bool channels = !to.is_dense(false);
    Windowed w = given;
    const Tables tables(w.dim, true);
    const Dense from(g, dims, channels), places(indices, dims, channels);
    Pool p = pool_of(tables, w);
    p.out = gx.data, p.g = from.data, p.indices = const_cast<char*>(places.data), p.channels = to.size[1];
    p.wide = indices.dtype == DType::i64, p.apart = is_apart(w.dim);
    const int64_t planes = to.planes(), tasks = channels ? to.size[0] * w.dim[0].in * w.dim[1].in : planes;
    const auto& table = cpu::table().pooling;
    run_on_threads(
        op, w, p, tasks, planes * (w.inputs() + 4 * w.outputs()), 0.25, channels, size_of(gx.dtype) == 2 && !channels,
        [&](const Pool& part) { (channels ? table.max_backward_channels : table.max_backward_planes)[type](part); });
}

void average_cpu(const char* op, const Windowed& given, const TensorView& y, const TensorView& x) {
    if (y.numel() == 0) return;
    const int dims = dims_of(given.kind), type = static_cast<int>(y.dtype);
    const Image out(y, dims);
    const bool channels = channels_innermost(y, x, dims);
    Windowed w = given;
    if (!channels) merge_whole(w.dim);
    const Tables tables(w.dim, w.include_pad);
    const Dense from(x, dims, channels);
    Pool p = pool_of(tables, w);
    p.out = y.data, p.x = from.data, p.channels = out.size[1];
    const int64_t planes = out.planes(), tasks = channels ? out.size[0] * w.dim[0].out * w.dim[1].out : planes;
    const auto& table = cpu::table().pooling;
    run_on_threads(op, w, p, tasks, elements_read(w, planes), w.norm != 0 ? 2.0 : 0.25, channels, false,
                   [&](const Pool& part) { (channels ? table.average_channels : table.average_planes)[type](part); });
}

void average_backward_cpu(const char* op, const Windowed& given, const TensorView& gx, const TensorView& g,
                          const TensorView* x, const TensorView* y) {
    if (gx.numel() == 0) return;
    const int dims = dims_of(given.kind), type = static_cast<int>(gx.dtype);
    const Image to(gx, dims);
    const bool channels = !to.is_dense(false);
    Windowed w = given;
    if (!channels) merge_whole(w.dim);
    const Tables tables(w.dim, w.include_pad);
    const Dense from(g, dims, channels);
    const Dense value(x == nullptr ? g : *x, dims, channels), result(y == nullptr ? g : *y, dims, channels);
    Pool p = pool_of(tables, w);
    p.out = gx.data, p.g = from.data, p.x = value.data, p.y = result.data, p.channels = to.size[1];
    const int64_t planes = to.planes(), tasks = channels ? to.size[0] * w.dim[0].in * w.dim[1].in : planes;
    const auto& table = cpu::table().pooling;
    run_on_threads(op, w, p, tasks, elements_read(w, planes), w.norm != 0 ? 2.0 : 0.25, channels, false,
                   [&](const Pool& part) {
                       (channels ? table.average_backward_channels : table.average_backward_planes)[type](part);
                   });
}

}  // namespace nk::pooling
