#include <algorithm>
#include <string>

#include "context/context.h"
#include "driver/kernel.h"
#include "softmax/plan_cuda.h"
#include "softmax/problem.h"

namespace nk::cuda {

namespace {

// views: out, then one input (forward) or two (backward).
void run(const char* op, const char* prefix, const TensorView* const* views, int tensors, int dim,
         cpu::SoftmaxKind kind) {
    const TensorView& out = *views[0];
    if (out.numel() == 0) return;
    const bool scalar = out.ndim == 0;  // a row of one element
    const IndexSpace rows = coalesce(views, tensors, dim);
    int64_t along[3] = {};
    plan::Operand operands[3];
    for (int t = 0; t < tensors; ++t) {
        along[t] = scalar ? 1 : views[t]->stride[dim];
        operands[t] = plan::operand(*views[t], t == 0);
    }
    const int64_t length = scalar ? 1 : out.shape[dim];
    const plan::SoftmaxPlan plan =
        plan::plan_softmax(rows, along, length, operands, out.dtype, multiprocessors(out.device));
    const std::string kernel = prefix + plan.kernel + "_" + short_name(out.dtype);
    if (trace::active()) trace::record({op, "cuda", kernel, plan::describe(plan), ""});
    const char* fatbin = plan.inner ? "softmax_inner" : "softmax_rows";
    for (const plan::SoftmaxPlan::Launch& l : plan.launches) {
        SoftmaxParams p;
        p.out = at(out, l.offset[0]);
        for (int k = 1; k < tensors; ++k) p.in[k - 1] = at(*views[k], l.offset[k]);
        p.layout = l.layout;
        std::copy(along, along + tensors, p.stride);
        p.rows = l.rows;
        p.length = length;
        p.vector = plan.vector;
        p.lanes_log2 = plan.lanes_log2;
        p.kind = static_cast<int32_t>(kind);
        launch(op, fatbin, kernel, l.grid, 1, plan.threads, out.device, p);
    }
}

}  // namespace

void softmax(const TensorView& out, const TensorView& x, int dim, cpu::SoftmaxKind kind) {
    const TensorView* const views[] = {&out, &x};
    run("softmax", "softmax_", views, 2, dim, kind);
}

void softmax_backward(const TensorView& gx, const TensorView& g, const TensorView& y, int dim, cpu::SoftmaxKind kind) {
    const TensorView* const views[] = {&gx, &g, &y};
    run("softmax_backward", "softmax_backward_", views, 3, dim, kind);
}

}  // namespace nk::cuda
