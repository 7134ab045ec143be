// max_unpool on the CPU: plane by plane, each element to the place that its index names; the last of several wins.
#include <atomic>
#include <cstring>

#include "call/run.h"
#include "cpu/elementwise.h"
#include "cpu/threads.h"
#include "pooling/problem.h"
#include "tensor/check.h"

namespace nk::pooling {

namespace {

template <class F>
void by_size(int size, F f) {
    if (size == 2)
        f(uint16_t());
    else if (size == 4)
        f(uint32_t());
    else
        f(uint64_t());
}

// Where the elements of a plane lie: one step apart, or anywhere.
class Places {
  public:
    explicit Places(const Image& t) : t_(t) {
        const bool rows = t.size[3] == 1 || t.stride[3] == t.size[4] * t.stride[4];
        even_ = rows && (t.size[2] == 1 || t.stride[2] == t.size[3] * t.size[4] * t.stride[4]);
    }
    int64_t plane(int64_t i) const { return i / t_.size[1] * t_.stride[0] + i % t_.size[1] * t_.stride[1]; }
    bool even() const { return even_; }
    int64_t step() const { return t_.stride[4]; }
    int64_t element(int64_t i) const {
        if (even_) return i * t_.stride[4];
        const int64_t w = i % t_.size[4], row = i / t_.size[4], h = row % t_.size[3], d = row / t_.size[3];
        return d * t_.stride[2] + h * t_.stride[3] + w * t_.stride[4];
    }

  private:
    const Image& t_;
    bool even_;
};

// copy(place of the small image's element, place of the large one's) over all elements; throws where an index is none.
template <class Copy>
void each(const char* op, const Image& small, const Image& indices, const Image& large, Copy copy) {
    const int64_t planes = small.planes(), inner = small.inner(), most = large.inner();
    const int64_t elements = planes * inner;
    const int threads = static_cast<int>(std::clamp<int64_t>(planes, 1, cpu::threads_for(elements, 3.0)));
    std::atomic<int64_t> wrong{-1};
    std::atomic<bool> failed{false};
    const Places at_small(small), at_index(indices), at_large(large);
    const auto all = [&](int tid, int count, auto element_of_index, auto element_of_small, auto element_of_large) {
        for (int64_t plane = planes * tid / count; plane < planes * (tid + 1) / count; ++plane) {
            const int64_t* index = reinterpret_cast<const int64_t*>(indices.data) + at_index.plane(plane);
            const int64_t from = at_small.plane(plane), base = at_large.plane(plane);
            for (int64_t i = 0; i < inner; ++i) {
                const int64_t to = index[element_of_index(i)];
                if (static_cast<uint64_t>(to) >= static_cast<uint64_t>(most)) {
                    wrong = to, failed = true;
                    return;
                }
                copy(from + element_of_small(i), base + element_of_large(to));
            }
        }
    };
    const auto work = [&](int tid, int count) {
        const auto itself = [](int64_t i) { return i; };
        if (at_small.even() && at_index.even() && at_large.even()) {
            if (at_small.step() == 1 && at_index.step() == 1 && at_large.step() == 1)
                return all(tid, count, itself, itself, itself);
            return all(
                tid, count, [step = at_index.step()](int64_t i) { return i * step; },
                [step = at_small.step()](int64_t i) { return i * step; },
                [step = at_large.step()](int64_t i) { return i * step; });
        }
        all(
            tid, count, [&](int64_t i) { return at_index.element(i); }, [&](int64_t i) { return at_small.element(i); },
            [&](int64_t i) { return at_large.element(i); });
    };
    run_on_cpu(
        op, op, static_cast<double>(elements) * 3.0, [&] { return concat("planes, ", threads, " threads"); },
        [&] { cpu::parallel(threads, work); });
    if (failed)
        fail_runtime(op, "argument indices holds ", wrong.load(), ", expected 0 to ", most - 1,
                     ", the places of a plane of the output");
}

}  // namespace

void unpool_cpu(const char* op, int dims, const TensorView& y, const TensorView& x, const TensorView& indices) {
    std::memset(y.data, 0, static_cast<size_t>(y.numel() * size_of(y.dtype)));
    if (x.numel() == 0) return;
    by_size(size_of(y.dtype), [&]<class T>(T) {
        T* to = static_cast<T*>(y.data);
        const T* from = static_cast<const T*>(x.data);
        each(op, Image(x, dims), Image(indices, dims), Image(y, dims), [&](int64_t i, int64_t o) { to[o] = from[i]; });
    });
}

void unpool_backward_cpu(const char* op, int dims, const TensorView& gx, const TensorView& g,
                         const TensorView& indices) {
    if (gx.numel() == 0) return;
    by_size(size_of(gx.dtype), [&]<class T>(T) {
        T* to = static_cast<T*>(gx.data);
        const T* from = static_cast<const T*>(g.data);
        each(op, Image(gx, dims), Image(indices, dims), Image(g, dims), [&](int64_t i, int64_t o) { to[i] = from[o]; });
    });
}

}  // namespace nk::pooling
