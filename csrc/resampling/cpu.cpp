// Interpolation on the CPU: rows of the output are shared out to the threads.
#include <algorithm>

#include "call/run.h"
#include "cpu/cpuid.h"
#include "cpu/elementwise.h"
#include "cpu/threads.h"
#include "resampling/problem.h"
#include "resampling/tables.h"

namespace nk::resampling {

namespace {

template <class S>
void run_as(const Problem& p) {
    const Table<S> tables[3] = {{p.dim[0], p.transposed}, {p.dim[1], p.transposed}, {p.dim[2], p.transposed}};
    const Strides to(p.out), from(p.x);
    cpu::Resample work{p.out.data, p.x.data, {}, p.out.shape[1], {}, {}, 0, 0};
    for (int k = 0; k < 3; ++k) work.axis[k] = tables[k].axis();
    std::copy(to.of, to.of + 5, work.out_stride);
    std::copy(from.of, from.of + 5, work.x_stride);
    const bool channels = to.of[1] == 1 && from.of[1] == 1 && work.channels > 1;
    const int64_t rows = p.out.shape[0] * (channels ? 1 : work.channels) * p.size(0) * p.size(1);
    const double terms = tables[0].mean() * tables[1].mean() * tables[2].mean();
    const double cost = (channels ? 0.2 : 1.0) * (1.0 + terms);  // nanoseconds
    const int64_t wanted = cpu::threads_for(p.out.numel(), cost);
    const int threads = static_cast<int>(std::clamp<int64_t>(rows, 1, wanted));
    const auto& table = cpu::table().resampling;
    const auto kernel = (channels ? table.channels : table.planes)[static_cast<int>(p.out.dtype)];
    run_on_cpu(
        p.op, channels ? "gather_channels" : "gather_planes", static_cast<double>(p.out.numel()) * cost,
        [&] { return concat(cpu::name_of(cpu::table().level), ", ", threads, " threads"); },
        [&] {
            cpu::parallel(threads, [&](int tid, int n) {
                cpu::Resample part = work;
                part.begin = rows * tid / n, part.end = rows * (tid + 1) / n;
                if (part.begin < part.end) kernel(part);
            });
        });
}

}  // namespace

void run_cpu(const Problem& p) { p.out.dtype == DType::f64 ? run_as<double>(p) : run_as<float>(p); }

}  // namespace nk::resampling
