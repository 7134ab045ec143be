// The gradients of PReLU: elementwise in x, a sum over everything but dim 1 in the weight.
//
// Each thread adds up its share of the rows: in float over a run or over kRows rows of a running weight, in double
// beyond that, and the threads' sums are added in their order, so the same shapes and threads give the same bits.
#include <algorithm>
#include <memory>
#include <numeric>
#include <vector>

#include "activation/cuda.h"
#include "activation/prelu.h"
#include "call/run.h"
#include "cpu/elementwise.h"
#include "cpu/repeated_operand.h"
#include "cpu/strided_copy.h"
#include "cpu/table.h"
#include "cpu/threads.h"
#include "tensor/index_space.h"

namespace nk {

namespace {

constexpr int64_t kRun = 1024;         // longest piece of a row: its sum in float stays exact enough
constexpr int64_t kLongChannel = 256;  // from here a channel's row is summed by itself
constexpr int64_t kRows = 64;          // pieces over one stretch of weights before the sums go to double
constexpr double kCost = 0.4;          // nanoseconds per element

struct PreluProblem {
    const TensorView &gx, &g, &x, &w;
    IndexSpace s;  // of gx, g, x, w and the channel
    int channels;
    void (*kernel)(const cpu::PreluBackward&);
    int size;
};

// The channel of each element as a tensor: stride 1 along dim 1, else 0. It lets the coalescing keep dim 1 apart.
TensorView channel_of(const TensorView& x, int64_t channels) {
    TensorView c;
    c.dtype = x.dtype;
    c.ndim = x.ndim;
    for (int d = 0; d < x.ndim; ++d) {
        c.shape[d] = x.shape[d];
        c.stride[d] = d == 1 && channels > 1 ? 1 : 0;
    }
    return c;
}

// One piece of a row: operands that are not contiguous pass through blocks.
struct Piece {
    alignas(64) char block[4][kRun * 8];
    const PreluProblem& p;

    explicit Piece(const PreluProblem& problem) : p(problem) {}

    void run(const int64_t* offset, int64_t n, void* sum) {
        const TensorView* t[4] = {&p.gx, &p.g, &p.x, &p.w};
        cpu::PreluBackward a;
        a.sum = sum;
        a.run.n = n;
        a.run.ahead = 0;
        a.run.past = false;
        for (int j = 0; j < 4; ++j) {
            char* here = static_cast<char*>(t[j]->data) + offset[j] * p.size;
            const int64_t stride = p.s.stride[j][0];
            const bool as_is = stride == 1 || n == 1;
            const bool repeated = !as_is && stride == 0 && !(j == 3 && p.s.stride[4][0] != 0);
            if (!as_is && j > 0)
                cpu::copy_strided(block[j], 1, here, stride, repeated ? int64_t{cpu::kRepeat} : n, p.size);
            void* used = as_is ? here : block[j];
            if (j == 0)
                a.run.out[0] = used;
            else
                a.run.in[j - 1] = used, a.run.step[j - 1] = !repeated;
        }
        // One value for the whole piece means one channel; a running weight is summed element by element.
        if (sum != nullptr && a.run.step[2] == 1 && p.s.stride[4][0] == 0) {
            cpu::copy_strided(block[3], 1, static_cast<char*>(p.w.data) + offset[3] * p.size, 0, cpu::kRepeat, p.size);
            a.run.in[2] = block[3];
            a.run.step[2] = 0;
        }
        p.kernel(a);
        if (a.run.out[0] == block[0])
            cpu::copy_strided(static_cast<char*>(p.gx.data) + offset[0] * p.size, p.s.stride[0][0], block[0], 1, n,
                              p.size);
    }
};

// Adds the share [begin, end) of the flattened index space into sums[channel].
template <class S>
void share(const PreluProblem& p, int64_t begin, int64_t end, double* sums) {
    const auto piece = std::make_unique<Piece>(p);
    const IndexSpace& s = p.s;
    const int64_t length = s.size[0];
    const bool running = s.stride[4][0] != 0;  // neighbours belong to different channels
    std::vector<S> part(static_cast<size_t>(running && sums ? length : 1), S(0));
    int64_t pieces = 0;
    const auto flush = [&](int64_t first_channel) {
        for (int64_t i = 0; i < length; ++i) {
            sums[first_channel + i * s.stride[4][0]] += part[static_cast<size_t>(i)];
            part[static_cast<size_t>(i)] = S(0);
        }
    };
    int64_t held = 0;  // channel at which `part` starts
    while (begin < end) {
        int64_t offset[5] = {}, index0 = 0, rest = begin;
        for (int d = 0; d < s.ndim; ++d) {
            const int64_t i = rest % s.size[d];
            rest /= s.size[d];
            if (d == 0) index0 = i;
            for (int t = 0; t < 5; ++t) offset[t] += i * s.stride[t][d];
        }
        const int64_t n = std::min({length - index0, end - begin, kRun});
        if (sums == nullptr) {
            piece->run(offset, n, nullptr);
        } else if (running) {
            const int64_t row_start = offset[4] - index0 * s.stride[4][0];
            if (pieces >= kRows * (1 + length / kRun) || row_start != held) {
                flush(held);
                pieces = 0;
                held = row_start;
            }
            piece->run(offset, n, part.data() + index0);
            ++pieces;
        } else {
            S sum(0);
            piece->run(offset, n, &sum);
            sums[offset[4]] += sum;
        }
        begin += n;
    }
    if (running && sums != nullptr) flush(held);
}

// As `share` where gx, g and x are contiguous and the channels repeat after `stretch` elements.
struct Repeating {
    int64_t period, stretch;
    std::unique_ptr<char[]> weight, channel;  // of each element of a stretch; the channel is an int32_t

    Repeating(const PreluProblem& p, int64_t length) : period(length), stretch(cpu::stretch_of(length)) {
        weight = cpu::repeated(p.s, 3, p.w.data, p.size, period, stretch);
        std::vector<int32_t> numbers(static_cast<size_t>(p.channels));
        std::iota(numbers.begin(), numbers.end(), 0);
        channel = cpu::repeated(p.s, 4, numbers.data(), sizeof(int32_t), period, stretch);
    }

    template <class S>
    void share(const PreluProblem& p, int64_t begin, int64_t end, double* sums) const {
        const auto* channels = reinterpret_cast<const int32_t*>(channel.get());
        std::vector<S> part(static_cast<size_t>(stretch), S(0));
        int64_t turns = 0;
        const auto flush = [&] {
            for (int64_t i = 0; i < stretch; ++i) sums[channels[i]] += part[static_cast<size_t>(i)];
            std::fill(part.begin(), part.end(), S(0));
            turns = 0;
        };
        while (begin < end) {
            const int64_t at = begin % stretch, n = std::min({stretch - at, end - begin, kRun});
            cpu::PreluBackward a;
            a.sum = part.data() + at;
            a.run.n = n;
            a.run.ahead = 0;
            a.run.past = false;
            a.run.out[0] = static_cast<char*>(p.gx.data) + begin * p.size;
            a.run.in[0] = static_cast<const char*>(p.g.data) + begin * p.size;
            a.run.in[1] = static_cast<const char*>(p.x.data) + begin * p.size;
            a.run.in[2] = weight.get() + at * p.size;
            for (int j = 0; j < 3; ++j) a.run.step[j] = 1;
            p.kernel(a);
            begin += n;
            if (at + n == stretch && ++turns == kRows) flush();
        }
        flush();
    }
};

void store_sum(const TensorView& gw, int64_t at, double value) {
    const int64_t offset = at * (gw.ndim > 0 ? gw.stride[gw.ndim - 1] : 0);
    cpu::table().elementwise.round_one[static_cast<int>(gw.dtype)](
        static_cast<char*>(gw.data) + offset * size_of(gw.dtype), value);
}

void run_on_threads(const PreluProblem& p, const TensorView* gw) {
    const int64_t n = p.s.numel();
    const int threads = cpu::threads_for(n, kCost);
    std::vector<std::vector<double>> sums(static_cast<size_t>(threads));
    // a weight for each channel; one for all is summed row by row
    const int64_t period = gw != nullptr && p.channels > 1 ? cpu::period_of(p.s, 3, 4) : 0;
    const bool soon = period != 0 && cpu::period_of(p.s, 3, 3) == period && p.s.size[0] < kLongChannel;
    const auto repeating = soon ? std::make_unique<Repeating>(p, period) : nullptr;
    const auto part = [&]<class S>(S, int64_t begin, int64_t end, double* into) {
        repeating ? repeating->share<S>(p, begin, end, into) : share<S>(p, begin, end, into);
    };
    cpu::parallel(threads, [&](int tid, int count) {
        auto& mine = sums[static_cast<size_t>(tid)];
        if (gw != nullptr) mine.assign(static_cast<size_t>(p.channels), 0.0);
        double* into = gw != nullptr ? mine.data() : nullptr;
        const int64_t begin = n * tid / count, end = n * (tid + 1) / count;
        p.gx.dtype == DType::f64 ? part(double(), begin, end, into) : part(float(), begin, end, into);
    });
    if (gw == nullptr) return;
    for (int c = 0; c < p.channels; ++c) {
        double total = 0;
        for (const auto& part : sums)
            if (!part.empty()) total += part[static_cast<size_t>(c)];
        store_sum(*gw, c, total);
    }
}

// gw: null where it is not wanted; w: of x's shape.
void run_on_processor(const TensorView& gx, const TensorView* gw, const TensorView& g, const TensorView& x,
                      const TensorView& w) {
    const int dtype = static_cast<int>(gx.dtype);
    const int64_t n = gx.numel(), channels = gw == nullptr ? 1 : gw->numel();
    if (n == 0) {
        for (int64_t c = 0; gw != nullptr && c < channels; ++c) store_sum(*gw, c, 0.0);
        return;
    }
    const TensorView channel = channel_of(x, channels);
    const PreluProblem p{gx,
                         g,
                         x,
                         w,
                         coalesce_all(gx, g, x, w, channel),
                         static_cast<int>(channels),
                         cpu::table().activation.prelu_backward[dtype],
                         size_of(gx.dtype)};
    run_on_cpu(
        "prelu_backward", "prelu_backward", static_cast<double>(n) * kCost,
        [&] { return concat(cpu::name_of(cpu::table().level), ", ", cpu::threads_for(n, kCost), " threads"); },
        [&] { run_on_threads(p, gw); });
}

}  // namespace

py::object prelu_backward(const Call& call, Input& g, Input& x, Input& w, Wants wants) {
    check_floating(x);
    check_like(g, x);
    check_kind(w, x);
    Output gx(call, "gx", x), gw(call, "gw", w, w->shape, w->ndim);
    as_channels(call.op, w.view, x);
    const TensorView* sums = wants[1] ? &gw.view : nullptr;
    const py::object none = py::none();
    run(
        call, x->device, {gx.object.ptr(), sums == nullptr ? Py_None : gw.object.ptr()},
        [&] { run_on_processor(gx, sums, g, x, w); }, [&] { cuda::prelu_backward(gx, sums, g, x, w); });
    return py::make_tuple(gx.object, sums == nullptr ? none : gw.object);
}

py::object rrelu_backward(const Call& call, Input& g, Input& x, Input& noise, Wants) {
    check_floating(x);
    check_like(g, x);
    check_like(noise, x);
    Output gx(call, "gx", x);
    run(
        call, x->device, {gx.object.ptr()}, [&] { run_on_processor(gx, nullptr, g, x, noise); },
        [&] { cuda::prelu_backward(gx, nullptr, g, x, noise); });
    return py::make_tuple(gx.object, py::none());
}

}  // namespace nk
