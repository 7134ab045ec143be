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

// f(offset of the plane, offset of the element) for each element of an image's planes begin .. end - 1.
int64_t at(const Image& t, int64_t plane, int64_t inner) {
    const int64_t w = inner % t.size[4], h = inner / t.size[4] % t.size[3], d = inner / t.size[4] / t.size[3];
    return plane / t.size[1] * t.stride[0] + plane % t.size[1] * t.stride[1] + d * t.stride[2] + h * t.stride[3] +
           w * t.stride[4];
}

// copy(place of the small image's element, place of the large one's) over all elements; throws where an index is none.
template <class Copy>
void each(const char* op, const Image& small, const Image& indices, const Image& large, Copy copy) {
    const int64_t planes = small.planes(), inner = small.inner(), most = large.inner();
    const int64_t elements = planes * inner;
    const int threads = static_cast<int>(std::clamp<int64_t>(planes, 1, cpu::threads_for(elements, 3.0)));
    std::atomic<int64_t> wrong{-1};
    std::atomic<bool> failed{false};
    const auto work = [&](int tid, int count) {
        for (int64_t plane = planes * tid / count; plane < planes * (tid + 1) / count; ++plane)
            for (int64_t i = 0; i < inner; ++i) {
                const int64_t to = reinterpret_cast<const int64_t*>(indices.data)[at(indices, plane, i)];
                if (to < 0 || to >= most) {
                    wrong = to, failed = true;
                    return;
                }
                copy(at(small, plane, i), at(large, plane, to));
            }
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
