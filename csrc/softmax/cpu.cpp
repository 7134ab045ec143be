#include <algorithm>
#include <vector>

#include "call/run.h"
#include "cpu/cpuid.h"
#include "cpu/elementwise.h"
#include "cpu/strided_copy.h"
#include "cpu/table.h"
#include "cpu/threads.h"
#include "plan/stores_cpu.h"
#include "softmax/plan_cpu.h"
#include "softmax/problem.h"
#include "tensor/check.h"

namespace nk::cpu {

namespace {

constexpr int64_t kTaskColumns = 64;  // columns that one task takes; a multiple of every kernel's width
constexpr int64_t kGatheredBytes = int64_t{64} << 10;  // rows that are gathered together

struct SoftmaxProblem {
    const char* op;
    int dtype, size;
    SoftmaxKind kind;
    int tensors;  // out, x (y in the backward), g
    const TensorView* tensor[3];
    int64_t n;         // length of the dim
    int64_t step[3];   // strides along it
    IndexSpace outer;  // all other dims
    SoftmaxWay way;
    double cost;  // nanoseconds per element
    bool stream;

    char* address(int t, int64_t offset) const { return static_cast<char*>(tensor[t]->data) + offset * size; }
};

void decompose(const IndexSpace& s, int64_t linear, int64_t* offset) {
    for (int t = 0; t < s.tensors; ++t) offset[t] = 0;
    for (int d = 0; d < s.ndim; ++d) {
        const int64_t i = linear % s.size[d];
        linear /= s.size[d];
        for (int t = 0; t < s.tensors; ++t) offset[t] += i * s.stride[t][d];
    }
}

void call_rows(const SoftmaxProblem& p, const SoftmaxRows& a) {
    const auto& e = table().softmax;
    (p.tensors == 3 ? e.rows_backward : e.rows)[p.dtype](a);
}

void rows(const SoftmaxProblem& p, int64_t begin, int64_t end) {
    const IndexSpace& s = p.outer;
    while (begin < end) {
        int64_t offset[3] = {};
        decompose(s, begin, offset);
        const int64_t count = std::min(s.size[0] - begin % s.size[0], end - begin);
        call_rows(p,
                  {p.address(0, offset[0]), p.address(1, offset[1]), p.tensors == 3 ? p.address(2, offset[2]) : nullptr,
                   count, p.n, s.stride[0][0], s.stride[1][0], p.tensors == 3 ? s.stride[2][0] : 0, p.kind, p.stream});
        begin += count;
    }
    if (p.stream) drain_stores();
}

// A few rows at a time; those that are not contiguous are collected first, and the output spread afterwards.
void gathered(const SoftmaxProblem& p, int64_t begin, int64_t end) {
    const IndexSpace& s = p.outer;
    const int64_t most = std::min(s.size[0], std::clamp<int64_t>(kGatheredBytes / (p.n * p.size), 1, kTaskColumns));
    const int64_t line = 64 / p.size, apart = (p.n + line - 1) / line * line + line;  // rows begin in other sets of L1
    std::vector<char> buffer[3];
    bool as_is[3];
    for (int t = 0; t < p.tensors; ++t) {
        as_is[t] = p.step[t] == 1 || p.n == 1;
        if (!as_is[t]) buffer[t].resize(static_cast<size_t>(most * apart * p.size));
    }
    const void* filled = nullptr;  // where the gradient in its buffer came from, if it is one value
    int64_t filled_rows = 0;
    while (begin < end) {
        const int64_t count = std::min({most, s.size[0] - begin % s.size[0], end - begin});
        int64_t offset[3] = {};
        decompose(s, begin, offset);
        Grid there[3] = {}, used[3] = {};
        for (int t = 0; t < p.tensors; ++t) {
            there[t] = {p.address(t, offset[t]), p.step[t], s.stride[t][0]};
            used[t] = as_is[t] ? there[t] : Grid{buffer[t].data(), 1, apart};
            if (t == 0 || as_is[t] || (there[t].data == filled && count <= filled_rows)) continue;
            copy(used[t], there[t], count, p.n, p.size);
            if (t == 2 && p.step[2] == 0 && s.stride[2][0] == 0) filled = there[t].data, filled_rows = count;
        }
        call_rows(p, {used[0].data, used[1].data, used[2].data, count, p.n, used[0].apart, used[1].apart, used[2].apart,
                      p.kind, false});
        if (!as_is[0]) copy(there[0], used[0], count, p.n, p.size);
        begin += count;
    }
}

// A task is one block of columns at one place of the dims further out.
void columns(const SoftmaxProblem& p, int64_t begin, int64_t end) {
    const IndexSpace& s = p.outer;
    const auto& e = table().softmax;
    const auto kernel = (p.tensors == 3 ? e.columns_backward : e.columns)[p.dtype];
    const int64_t blocks = (s.size[0] + kTaskColumns - 1) / kTaskColumns;
    while (begin < end) {
        const int64_t block = begin % blocks, count = std::min(blocks - block, end - begin);
        const int64_t first = block * kTaskColumns, last = std::min(s.size[0], first + count * kTaskColumns);
        int64_t offset[3] = {};
        decompose(s, begin / blocks * s.size[0] + first, offset);
        kernel({p.address(0, offset[0]), p.address(1, offset[1]), p.tensors == 3 ? p.address(2, offset[2]) : nullptr,
                last - first, p.n, p.step[0], p.step[1], p.tensors == 3 ? p.step[2] : 0, p.kind});
        begin += count;
    }
}

void run_on_threads(const SoftmaxProblem& p) {
    const int64_t outer = p.outer.numel();
    int64_t tasks = outer;
    if (p.way == SoftmaxWay::columns)
        tasks = outer / p.outer.size[0] * ((p.outer.size[0] + kTaskColumns - 1) / kTaskColumns);
    const int64_t threads = std::min<int64_t>(tasks, threads_for(outer * p.n, p.cost));
    parallel(static_cast<int>(threads), [&](int tid, int count) {
        const int64_t begin = tasks * tid / count, end = tasks * (tid + 1) / count;
        if (begin == end) return;
        switch (p.way) {
            case SoftmaxWay::rows:
                return rows(p, begin, end);
            case SoftmaxWay::columns:
                return columns(p, begin, end);
            case SoftmaxWay::gathered:
                return gathered(p, begin, end);
        }
    });
}

}  // namespace

void softmax(const char* op, std::initializer_list<const TensorView*> tensors, int dim, SoftmaxKind kind) {
    SoftmaxProblem p;
    p.op = op;
    p.kind = kind;
    p.tensors = static_cast<int>(tensors.size());
    std::copy(tensors.begin(), tensors.end(), p.tensor);
    const TensorView& out = *p.tensor[0];
    if (out.numel() == 0) return;
    p.dtype = static_cast<int>(out.dtype);
    p.size = size_of(out.dtype);
    p.n = out.ndim == 0 ? 1 : out.shape[dim];
    for (int t = 0; t < p.tensors; ++t) p.step[t] = out.ndim == 0 ? 1 : p.tensor[t]->stride[dim];
    p.outer = coalesce(p.tensor, p.tensors, dim);
    p.way = softmax_way(p.outer, p.step, p.n);
    const Level level = table().level;
    p.cost = (p.tensors == 3 ? 0.5 : 0.8) * (out.dtype == DType::f64 ? 2 : 1) * (level == Level::scalar ? 15 : 1);
    const int64_t elements = p.outer.numel() * p.n;
    p.stream = p.way == SoftmaxWay::rows && plan::is_row_of_lines(p.n * p.size) &&
               plan::goes_past(p.tensor, 1, p.tensors - 1, last_level_cache());
    run_on_cpu(
        p.op, kSoftmaxNames[static_cast<int>(p.kind)], static_cast<double>(elements) * p.cost,
        [&] {
            constexpr const char* names[] = {"rows", "columns", "gathered rows"};
            return concat(name_of(level), ", ", names[static_cast<int>(p.way)], " of ", p.n, ", ",
                          threads_for(elements, p.cost), " threads", p.stream ? plan::kPastCaches : "");
        },
        [&] { run_on_threads(p); });
}

}  // namespace nk::cpu
