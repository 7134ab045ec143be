// layer_norm and rms_norm on CUDA: the rows' kernels (kernels/cuda/normalization/rows.h), and for the gradients of
// weight and bias sums over the rows.
#include "context/context.h"
#include "cuda/columns.h"
#include "driver/kernel.h"
#include "normalization/plan_cuda.h"
#include "normalization/problem.h"
#include "plan/columns_cuda.h"
#include "tensor/check.h"
#include "tensor/scratch.h"

namespace nk::normalization {

namespace {

using cuda::NormBackwardParams;
using cuda::NormColumnParams;
using cuda::NormParams;

TensorView dims_of(const TensorView& t, int begin, int end) {
    TensorView part;
    part.data = t.data, part.dtype = t.dtype, part.device = t.device;
    part.ndim = end - begin;
    std::copy(t.shape + begin, t.shape + end, part.shape);
    std::copy(t.stride + begin, t.stride + end, part.stride);
    return part;
}

// `first` decides on the order of a row's elements.
Space space_of(const char* op, std::initializer_list<const TensorView*> data, const TensorView& statistics,
               std::initializer_list<const TensorView*> parameters, int row_dims) {
    const TensorView& like = **data.begin();
    const int outer_dims = like.ndim - row_dims;
    TensorView absent = dims_of(like, outer_dims, like.ndim);
    std::fill_n(absent.stride, absent.ndim, int64_t{0});
    TensorView outer[kMaxTensors], inner[kMaxTensors];
    const TensorView *outers[kMaxTensors], *inners[kMaxTensors];
    Space s;
    int o = 0, i = 0;
    const auto add = [](TensorView* views, const TensorView** list, int& n, const TensorView& v) {
        views[n] = v;
        list[n] = &views[n];
        ++n;
    };
    for (const TensorView* t : data) {
        s.address[i] = reinterpret_cast<uintptr_t>(t->data);
        add(outer, outers, o, dims_of(*t, 0, outer_dims));
        add(inner, inners, i, dims_of(*t, outer_dims, t->ndim));
    }
    s.data = i;
    add(outer, outers, o, statistics);
    for (const TensorView* t : parameters) {
        s.address[i] = t ? reinterpret_cast<uintptr_t>(t->data) : 0;
        add(inner, inners, i, t ? *t : absent);
    }
    s.outer = coalesce(outers, o);
    s.inner = coalesce(inners, i);
    if (s.inner.ndim > cuda::kLayoutDims)
        fail_runtime(op, "argument normalized_shape has ", s.inner.ndim, " dims that are not dense, expected at most ",
                     cuda::kLayoutDims);
    return s;
}

const void* data_of(const TensorView* t) { return t == nullptr ? nullptr : t->data; }

std::string typed(const std::string& kernel, DType t) { return kernel + "_" + cuda::short_name(t); }

// Launches the rows of each chunk; place(params, offset in elements of each tensor of the outer space).
template <class Params, class Place>
void run_rows(const char* op, const char* prefix, const Space& s, const TensorView& x, Params params, Place place) {
    const Plan plan = plan_rows(s, x.dtype);
    const std::string kernel = typed(prefix + plan.kernel, x.dtype);
    const int64_t grid = plan.grid(plan.chunks.front().space.numel());
    if (trace::active())
        trace::record({op, "cuda", kernel, describe(plan, plan.lanes(), grid, plan.chunks.size()), ""});
    plan::fill_layout(s.inner, params.inner);
    params.length = s.inner.numel();
    params.vector = plan.vector;
    params.lanes_log2 = plan.lanes_log2;
    for (const plan::Chunk& c : plan.chunks) {
        plan::fill_layout(c.space, params.outer);
        params.rows = c.space.numel();
        place(params, c.offset);
        cuda::launch(op, "normalization_rows", kernel, plan.grid(params.rows), 1, plan.threads, x.device, params);
    }
}

void* statistics_at(const TensorView* t, int64_t i) { return t == nullptr ? nullptr : cuda::at(*t, i); }

// gw (or gb, where the kernel is normalization_bias), by parts of the rows that are added in their order.
void sum_columns(const Backward& p, const char* name, const TensorView& sums) {
    const DType type = p.x.dtype;
    const int outer_dims = p.x.ndim - p.row_dims;
    const TensorView g_out = dims_of(p.g, 0, outer_dims), x_out = dims_of(p.x, 0, outer_dims),
                     g_in = dims_of(p.g, outer_dims, p.g.ndim), x_in = dims_of(p.x, outer_dims, p.x.ndim);
    Space s;
    s.outer = coalesce_all(g_out, x_out, p.rstd);
    s.inner = coalesce_all(sums, g_in, x_in);  // sums are contiguous, so columns are numbered as they lie
    const int64_t rows = p.rstd.numel(), columns = sums.numel();
    if (s.outer.ndim > cuda::kLayoutDims || s.inner.ndim > cuda::kLayoutDims)
        fail_runtime(p.op(), "argument input of shape ", shape_string(p.x), " has more than ", cuda::kLayoutDims,
                     " dims that are not dense");
    Space units;  // as rows of g and x
    units.outer = s.outer, units.data = 2;
    units.inner = coalesce_all(g_in, x_in);
    units.address[0] = reinterpret_cast<uintptr_t>(p.g.data), units.address[1] = reinterpret_cast<uintptr_t>(p.x.data);
    const bool vector = s.inner.ndim == 1 && units.in_units(type);
    const plan::ColumnPlan plan = plan::plan_columns(rows, columns, vector, type, cuda::multiprocessors(p.x.device));
    const std::string kernel = typed(name, type);
    if (trace::active()) trace::record({p.op(), "cuda", kernel, plan::describe(plan), ""});
    NormColumnParams c;
    c.in[0] = p.g.data, c.in[1] = p.x.data;
    c.mean = data_of(p.mean), c.rstd = p.rstd.data;
    plan::fill_layout(s.outer, c.outer);
    plan::fill_layout(s.inner, c.inner);
    c.sums = sums.data;
    c.sums_stride = 1;
    c.rows = rows, c.columns = columns;
    c.rows_per_part = plan.rows_per_part;
    c.vector = plan.vector;
    c.lanes_log2 = plan.lanes_log2;
    Scratch scratch;
    if (plan.parts > 1) scratch = allocate_scratch(sums, plan.workspace(columns, type));
    c.partial = scratch.data;
    constexpr const char* fatbin = "normalization_columns";
    cuda::launch(p.op(), fatbin, kernel, plan.tiles, plan.parts, cuda::kColumnThreads, p.x.device, c);
    if (c.partial != nullptr) cuda::finish_columns(p.op(), sums, c.partial, columns, plan.parts);
}

}  // namespace

void forward_cuda(const Forward& p) {
    if (p.rstd.numel() == 0) return;
    NormParams k;
    k.weight = data_of(p.weight), k.bias = data_of(p.bias);
    k.eps = p.eps;
    const Space s = space_of(p.op(), {&p.y, &p.x}, p.rstd, {p.weight, p.bias}, p.row_dims);
    run_rows(p.op(), "normalization_", s, p.x, k, [&](NormParams& k, const int64_t* offset) {
        k.y = cuda::at(p.y, offset[0]), k.x = cuda::at(p.x, offset[1]);
        k.mean = statistics_at(p.mean, offset[2]), k.rstd = statistics_at(&p.rstd, offset[2]);
    });
}

void backward_cuda(const Backward& p) {
    if (p.gx != nullptr && p.gx->numel() != 0) {
        NormBackwardParams k;
        k.weight = data_of(p.weight);
        const Space s = space_of(p.op(), {p.gx, &p.g, &p.x}, p.rstd, {p.weight}, p.row_dims);
        run_rows(p.op(), "normalization_backward_", s, p.x, k, [&](NormBackwardParams& k, const int64_t* offset) {
            k.gx = cuda::at(*p.gx, offset[0]), k.g = cuda::at(p.g, offset[1]), k.x = cuda::at(p.x, offset[2]);
            k.mean = statistics_at(p.mean, offset[3]), k.rstd = statistics_at(&p.rstd, offset[3]);
        });
    }
    if (p.gw != nullptr && p.gw->numel() != 0) sum_columns(p, "normalization_weight", *p.gw);
    if (p.gb != nullptr && p.gb->numel() != 0) sum_columns(p, "normalization_bias", *p.gb);
}

}  // namespace nk::normalization
