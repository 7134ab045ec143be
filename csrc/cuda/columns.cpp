#include "cuda/columns.h"

#include <algorithm>
#include <string>

#include "context/context.h"
#include "driver/kernel.h"
#include "plan/columns_cuda.h"
#include "tensor/scratch.h"

namespace nk::cuda {

namespace {

bool fits_units(const ColumnProblem& c) {
    const int unit = plan::unit_of(c.type);
    bool ok = c.columns % unit == 0;
    for (int k = 0; k <= c.inputs && ok; ++k) {
        if (c.views[k] == nullptr) continue;
        if (k > 0 && c.column_stride[k] == 0) continue;
        ok = c.column_stride[k] == 1 && (c.row_stride[k] % unit == 0 || c.rows == 1) &&
             plan::aligned(reinterpret_cast<uintptr_t>(c.views[k]->data));
    }
    return ok;
}

}  // namespace

void finish_columns(const char* op, const TensorView& sums, const void* partial, int64_t columns, int64_t parts) {
    FinishParams f;
    f.partial = partial;
    f.sums = sums.data;
    f.sums_stride = sums.ndim == 0 ? 1 : sums.stride[0];
    f.columns = columns;
    f.parts = static_cast<int32_t>(parts);
    f.lanes_log2 = std::min(plan::ceil_log2(columns), kColumnLanesLog2);
    launch(op, "elementwise_finish", std::string("elementwise_finish_") + short_name(sums.dtype),
           plan::ceil_div(columns, int64_t{1} << f.lanes_log2), 1, kColumnThreads, sums.device, f);
}

void run_columns(const ElementwiseKernel& what, const ColumnProblem& c, const TensorView* sums,
                 const ElementwiseArguments& arguments) {
    if (c.columns == 0) return;
    const plan::ColumnPlan plan =
        plan::plan_columns(c.rows, c.columns, fits_units(c), c.type, multiprocessors(c.device));
    const std::string kernel = std::string(what.name) + "_" + short_name(c.type);
    if (trace::active()) trace::record({what.op, "cuda", kernel, plan::describe(plan), ""});
    Scratch scratch;
    ColumnParams p;
    p.out = c.views[0] ? c.views[0]->data : nullptr;
    for (int k = 0; k < c.inputs; ++k) p.in[k] = c.views[1 + k]->data;
    std::copy(c.row_stride, c.row_stride + 4, p.row_stride);
    std::copy(c.column_stride, c.column_stride + 4, p.column_stride);
    if (sums != nullptr) {
        p.sums = sums->data;
        p.sums_stride = sums->ndim == 0 ? 1 : sums->stride[0];
        if (const int64_t bytes = plan.workspace(c.columns, c.type); bytes > 0)
            scratch = allocate_scratch(*sums, bytes);
        p.partial = scratch.data;
    }
    p.rows = c.rows;
    p.columns = c.columns;
    p.rows_per_part = plan.rows_per_part;
    p.vector = plan.vector;
    p.lanes_log2 = plan.lanes_log2;
    p.activation = arguments.activation;
    p.p[0] = arguments.p[0];
    p.p[1] = arguments.p[1];
    launch(what.op, what.fatbin, kernel, plan.tiles, plan.parts, kColumnThreads, c.device, p);
    if (p.partial != nullptr) finish_columns(what.op, *sums, p.partial, c.columns, plan.parts);
}

}  // namespace nk::cuda
