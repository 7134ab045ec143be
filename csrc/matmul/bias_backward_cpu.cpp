// activation_bias_backward on the CPU: columns are dealt out to threads, or rows where there are few columns.
#include <algorithm>

#include "call/run.h"
#include "cpu/table.h"
#include "cpu/threads.h"
#include "cpu/workspace.h"
#include "kernels/activation.h"
#include "matmul/problem.h"
#include "tensor/check.h"

namespace nk::cpu {

namespace {

constexpr double kCost = 0.5;                 // nanoseconds an element
constexpr int64_t kElementsPerThread = 8192;  // fewer are not worth waking a thread for
constexpr int64_t kColumns = 64;              // a thread's columns are a multiple of this: whole cache lines

MatmulOperand part_of(const TensorView* t, int64_t i, int64_t j) {
    if (t == nullptr) return {};
    const int64_t offset = i * t->stride[0] + j * t->stride[1];
    return {static_cast<const char*>(t->data) + offset * size_of(t->dtype), t->stride[0], t->stride[1]};
}

}  // namespace

void bias_backward(const BiasBackwardCall& c) {
    const MatmulEntries& entries = table().matmul;
    const int d = static_cast<int>(c.g.dtype);
    const int64_t m = c.g.shape[0], n = c.g.shape[1], acc = c.g.dtype == DType::f64 ? 8 : 4;
    if (n == 0) return;
    const int threads = int(std::clamp<int64_t>(m * n / kElementsPerThread, 1, max_threads()));
    const bool by_columns = n >= kColumns * threads;
    // Sums of each part of the rows; by columns there is one part.
    const int parts = by_columns ? 1 : threads;
    static thread_local Workspace workspace;
    const int64_t stride = (n + 15) / 16 * 16;
    char* sums = c.gb ? workspace.get(size_t(parts * stride * acc)) : nullptr;
    auto work = [&](int tid, int count) {
        for (int part = tid; part < threads; part += count) {
            const int64_t columns = (n + kColumns - 1) / kColumns;
            const int64_t i0 = by_columns ? 0 : m * part / threads, i1 = by_columns ? m : m * (part + 1) / threads;
            const int64_t j0 = by_columns ? columns * part / threads * kColumns : 0;
            const int64_t j1 = by_columns ? std::min(n, columns * (part + 1) / threads * kColumns) : n;
            ActivationBiasTask t{};
            t.gz = part_of(c.gz, i0, j0), t.g = part_of(&c.g, i0, j0), t.z = part_of(c.z, i0, j0);
            t.m = i1 - i0, t.n = j1 - j0;
            t.activation = static_cast<int>(c.activation);
            t.p[0] = c.p[0], t.p[1] = c.p[1];
            t.sums = sums ? sums + ((by_columns ? 0 : part * stride) + j0) * acc : nullptr;
            entries.bias_backward[d](t);
        }
    };
    run_on_cpu(
        "activation_bias_backward", [&] { return concat("activation_bias_", entries.tile[d].isa); },
        static_cast<double>(m * n) * kCost,
        [&] { return concat(name_of(c.activation), by_columns ? " columns" : " rows", " threads ", threads); },
        [&] {
            parallel(threads, work);
            if (c.gb) entries.bias_finish[d](c.gb->data, c.gb->stride[0], sums, stride, parts, n);
        });
    workspace.trim();
}

}  // namespace nk::cpu
