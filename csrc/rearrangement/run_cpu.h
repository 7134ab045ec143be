// What the CPU's launchers of this family share: the trace, threads, the way through outer dims.
#pragma once

#include <algorithm>

#include "call/run.h"
#include "cpu/cpuid.h"
#include "cpu/elementwise.h"
#include "cpu/table.h"
#include "cpu/threads.h"

namespace nk::rearrangement {

inline constexpr double kCostPerByte = 0.06;  // nanoseconds on one thread, of an output that is moved

// f(begin, end) of `items` on the threads that so many elements are worth.
template <class F>
void share_out(const char* op, const std::string& kernel, const TensorView& out, int64_t items, double cost, F f) {
    const double each = cost * size_of(out.dtype);
    const int64_t wanted = cpu::threads_for(out.numel(), each);
    const int threads = static_cast<int>(std::clamp<int64_t>(items, 1, wanted));
    run_on_cpu(
        op, [&] { return kernel; }, static_cast<double>(out.numel()) * each,
        [&] { return concat(cpu::name_of(cpu::table().level), ", ", threads, " threads"); },
        [&] { cpu::parallel(threads, [&](int tid, int n) { f(items * tid / n, items * (tid + 1) / n); }); });
}

// f(plane, begin, end): the rows begin .. end - 1 of a plane, for rows first .. last - 1 of all planes.
template <class F>
void each_plane(int64_t first, int64_t last, int64_t rows, F f) {
    while (first < last) {
        const int64_t plane = first / rows, begin = first % rows, end = std::min(rows, begin + last - first);
        f(plane, begin, end);
        first += end - begin;
    }
}

inline int index_of_size(DType t) { return size_of(t) / 4; }  // of kernels for 2, 4 and 8 bytes

inline char* at(const TensorView& t, int64_t elements) {
    return static_cast<char*>(t.data) + elements * size_of(t.dtype);
}

}  // namespace nk::rearrangement
