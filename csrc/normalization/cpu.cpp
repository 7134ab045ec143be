// layer_norm and rms_norm on the CPU: rows are shared out to the threads; those that are not contiguous pass through
// buffers. The gradients of weight and bias are summed by parts of the rows, and the parts in their order.
#include <cstring>

#include "call/run.h"
#include "cpu/cpuid.h"
#include "cpu/elementwise.h"
#include "cpu/rows.h"
#include "cpu/table.h"
#include "cpu/threads.h"
#include "cpu/workspace.h"
#include "normalization/plan_cpu.h"
#include "normalization/problem.h"
#include "plan/stores_cpu.h"

namespace nk::normalization {

namespace {

// A weight or bias as n contiguous elements.
struct Parameter {
    std::unique_ptr<char[]> copy;
    const void* data = nullptr;

    explicit Parameter(const TensorView* t) {
        if (t == nullptr) return;
        const cpu::RowSet row(*t, t->ndim);
        data = t->data;
        if (row.contiguous()) return;
        copy.reset(new char[static_cast<size_t>(row.length * row.size)]);
        row.gather(0, 1, copy.get(), row.length);
        data = copy.get();
    }
};

double cost_of(DType dtype, bool backward) {  // nanoseconds per element
    const bool scalar = cpu::table().level == cpu::Level::scalar;
    return (backward ? 0.5 : 0.25) * (dtype == DType::f64 ? 2 : 1) * (scalar ? 8 : 1);
}

// f(first, count, operands...) over pieces of rows [begin, end) that lie evenly in each operand.
template <size_t N, class F>
void each_piece(const cpu::RowSet* (&rows)[N], int64_t begin, int64_t end, int64_t most, F f) {
    while (begin < end) {
        int64_t count = std::min(end - begin, most);
        for (const cpu::RowSet* r : rows)
            if (r != nullptr) count = std::min(count, r->together(begin));
        f(begin, count);
        begin += count;
    }
}

template <class F>
void run_on_threads(const char* op, int64_t rows, int64_t n, bool gathers, double cost, int threads, bool past, F f) {
    run_on_cpu(
        op, op, static_cast<double>(rows * n) * cost,
        [&] {
            return concat(cpu::name_of(cpu::table().level), ", ", gathers ? "gathered rows" : "rows", " of ", n, ", ",
                          threads, " threads", past ? plan::kPastCaches : "");
        },
        [&] { cpu::parallel(threads, f); });
}

char* at(const TensorView* t, int64_t i) {  // element i of contiguous statistics
    return t == nullptr ? nullptr : static_cast<char*>(t->data) + i * size_of(t->dtype);
}

}  // namespace

void forward_cpu(const Forward& p) {
    const cpu::RowSet y(p.y, p.row_dims), x(p.x, p.row_dims);
    const int d = static_cast<int>(p.x.dtype);
    const int64_t n = x.length;
    const auto& table = cpu::table().normalization;
    const auto kernel = (p.rms ? table.rms_norm : table.layer_norm)[d];
    const double cost = cost_of(p.x.dtype, false);
    const int threads = static_cast<int>(std::clamp<int64_t>(x.count, 1, cpu::threads_for(x.count * n, cost)));
    const bool as_is = y.contiguous() && x.contiguous();
    const Parameter weight(p.weight), bias(p.bias);
    const TensorView* const touched[] = {&p.y, &p.x};
    const bool stream =
        y.contiguous() && plan::is_row_of_lines(n * x.size) && plan::goes_past(touched, 1, 1, cpu::last_level_cache());
    const int64_t most = as_is ? x.count : cpu::rows_at_a_time(n, x.size);
    run_on_threads(p.op(), x.count, n, !as_is, cost, threads, stream, [&](int tid, int count) {
        cpu::RowBuffer to(y, true, most), from(x, false, most);
        const cpu::RowSet* sets[] = {&y, &x};
        each_piece(sets, x.count * tid / count, x.count * (tid + 1) / count, most, [&](int64_t first, int64_t rows) {
            kernel({to.take(first, rows), from.take(first, rows), weight.data, bias.data, at(p.mean, first),
                    at(&p.rstd, first), rows, n, to.apart(), from.apart(), p.eps, stream});
            to.give_back(first, rows);
        });
        if (stream) cpu::drain_stores();
    });
}

void backward_cpu(const Backward& p) {
    const cpu::RowSet g(p.g, p.row_dims), x(p.x, p.row_dims), gx(p.gx ? *p.gx : p.x, p.row_dims);
    const int d = static_cast<int>(p.x.dtype), acc = p.x.dtype == DType::f64 ? 8 : 4;
    const int64_t n = x.length, rows = x.count;
    if (n == 0) return;
    const auto& table = cpu::table().normalization;
    const auto kernel = (p.rms ? table.rms_norm_backward : table.layer_norm_backward)[d];
    const double cost = cost_of(p.x.dtype, true);
    const int threads = static_cast<int>(std::clamp<int64_t>(rows, 1, cpu::threads_for(rows * n, cost)));
    const bool as_is = g.contiguous() && x.contiguous() && (p.gx == nullptr || gx.contiguous());
    const Parameter weight(p.weight);
    const bool sums = p.gw != nullptr || p.gb != nullptr;
    const int64_t per_part = sums ? rows_per_part(rows, threads) : std::max<int64_t>(1, plan::ceil_div(rows, threads));
    const int64_t parts = plan::ceil_div(rows, per_part), stride = (n + 15) / 16 * 16;
    static thread_local cpu::Workspace workspace;
    const size_t half = static_cast<size_t>(parts * stride * acc);
    char* const gw = p.gw != nullptr ? workspace.get(2 * half) : nullptr;
    char* const gb = p.gb != nullptr ? workspace.get(2 * half) + half : nullptr;
    const int64_t most = as_is ? rows : cpu::rows_at_a_time(n, x.size);
    const TensorView* const touched[] = {p.gx, &p.g, &p.x};
    const bool stream = p.gx != nullptr && gx.contiguous() && reinterpret_cast<uintptr_t>(p.gx->data) % 64 == 0 &&
                        n * x.size % 64 == 0 && plan::goes_past(touched, 1, 2, cpu::last_level_cache());
    run_on_threads(p.op(), rows, n, !as_is, cost, threads, stream, [&](int tid, int count) {
        cpu::RowBuffer to(gx, true, most), from_g(g, false, most), from_x(x, false, most);
        const cpu::RowSet* sets[] = {&gx, &g, &x};
        for (int64_t part = parts * tid / count; part < parts * (tid + 1) / count; ++part) {
            const int64_t begin = part * per_part, end = std::min(rows, begin + per_part);
            each_piece(sets, begin, end, most, [&](int64_t first, int64_t some) {
                kernel({p.gx ? to.take(first, some) : nullptr, from_g.take(first, some), from_x.take(first, some),
                        weight.data, at(p.mean, first), at(&p.rstd, first), gw ? gw + part * stride * acc : nullptr,
                        gb ? gb + part * stride * acc : nullptr, some, n, to.apart(), from_g.apart(), from_x.apart(),
                        first == begin, stream});
                if (p.gx != nullptr) to.give_back(first, some);
            });
        }
        if (stream) cpu::drain_stores();
    });
    // of no rows there are no parts, whose memory may be null then, and the sums are zeros
    if (p.gw != nullptr) table.add_parts[d]({p.gw->data, gw, parts, n, stride});
    if (p.gb != nullptr) table.add_parts[d]({p.gb->data, gb, parts, n, stride});
    workspace.trim();
}

}  // namespace nk::normalization
