#include "activation_cuda.h"

#include "check.h"
#include "launch_cuda.h"
#include "scratch.h"

namespace nk::cuda {

namespace {

struct Elementwise {
    const char* op;
    const char* fatbin;
    const char* kernel;  // without the element type
};

// Outputs first, then inputs, as the kernel's Op lists them.
void run_elementwise(const Elementwise& what, const TensorView* const* views, int outputs, int tensors, Act act) {
    const TensorView& first = *views[0];
    const IndexSpace space = coalesce(views, tensors);
    plan::Operand operands[kMaxTensors];
    for (int t = 0; t < tensors; ++t) operands[t] = operand(*views[t], t < outputs);
    auto launches =
        plan::plan_elementwise(space, operands, tensors - outputs, first.dtype, multiprocessors(first.device));
    const std::string kernel = std::string(what.kernel) + "_" + short_name(first.dtype);
    if (trace::active()) trace_launch(what.op, kernel, plan::describe(launches));
    for (plan::ElementwiseLaunch& l : launches) {
        for (int t = 0; t < tensors; ++t) l.params.data[t] = at(*views[t], l.offset[t]);
        l.params.activation = static_cast<int32_t>(act.id);
        l.params.p[0] = act.p0;
        l.params.p[1] = act.p1;
        launch(what.op, what.fatbin, kernel, l.grid, 1, kElementwiseThreads, first.device, l.params);
    }
}

template <class... Views>
void elementwise(const Elementwise& what, int outputs, Act act, const Views&... views) {
    const TensorView* const list[] = {&views...};
    run_elementwise(what, list, outputs, sizeof...(views), act);
}

constexpr Act kNoActivation = {Activation::identity, 0, 0};

// sums[c] = the parts added in order; a launch behind the one that wrote them, on the same stream.
void finish(const char* op, const TensorView& sums, const void* partial, int64_t columns, int64_t parts) {
    FinishParams f;
    f.partial = partial;
    f.sums = sums.data;
    f.sums_stride = sums.ndim == 0 ? 1 : sums.stride[0];
    f.columns = columns;
    f.parts = static_cast<int32_t>(parts);
    f.lanes_log2 = std::min(plan::ceil_log2(columns), kColumnLanesLog2);
    launch(op, "activation_bias_backward", std::string("activation_finish_") + short_name(sums.dtype),
           plan::ceil_div(columns, int64_t{1} << f.lanes_log2), 1, kColumnThreads, sums.device, f);
}

constexpr int64_t kAnyWorkspace = int64_t{1} << 62;

// What reduce_columns works on: [rows, columns], `tensors` of out (maybe none) and the inputs.
struct ColumnProblem {
    const TensorView* views[4] = {};  // out or null, in[0], in[1], in[2]
    int64_t row_stride[4] = {}, column_stride[4] = {};
    int64_t rows = 0, columns = 0;
    int inputs = 0;
    DType type = DType::f32;
    Device device;

    bool vector() const {
        const int unit = plan::unit_of(type);
        bool ok = columns % unit == 0;
        for (int k = 0; k <= inputs && ok; ++k) {
            if (views[k] == nullptr) continue;
            if (k > 0 && column_stride[k] == 0) continue;
            ok = column_stride[k] == 1 && (row_stride[k] % unit == 0 || rows == 1) &&
                 plan::aligned(reinterpret_cast<uintptr_t>(views[k]->data));
        }
        return ok;
    }
    plan::ColumnPlan plan() const {
        return plan::plan_columns(rows, columns, vector(), type, multiprocessors(device), kAnyWorkspace);
    }
};

Scratch scratch_of(const TensorView& like, int64_t bytes) {
    return bytes == 0 ? Scratch{} : allocate_scratch(like, bytes);
}

void run_columns(const char* op, const char* fatbin, const char* name, const ColumnProblem& c, const TensorView* sums,
                 Act act) {
    if (c.columns == 0) return;
    const plan::ColumnPlan plan = c.plan();
    const std::string kernel = std::string(name) + "_" + short_name(c.type);
    if (trace::active()) trace_launch(op, kernel, plan::describe(plan));
    Scratch scratch;
    ColumnParams p;
    p.out = c.views[0] ? c.views[0]->data : nullptr;
    for (int k = 0; k < c.inputs; ++k) p.in[k] = c.views[1 + k]->data;
    std::copy(c.row_stride, c.row_stride + 4, p.row_stride);
    std::copy(c.column_stride, c.column_stride + 4, p.column_stride);
    if (sums != nullptr) {
        p.sums = sums->data;
        p.sums_stride = sums->ndim == 0 ? 1 : sums->stride[0];
        scratch = scratch_of(*sums, plan.workspace(c.columns, c.type));
        p.partial = scratch.data;
    }
    p.rows = c.rows;
    p.columns = c.columns;
    p.rows_per_part = plan.rows_per_part;
    p.vector = plan.vector;
    p.lanes_log2 = plan.lanes_log2;
    p.activation = static_cast<int32_t>(act.id);
    p.p[0] = act.p0;
    p.p[1] = act.p1;
    launch(op, fatbin, kernel, plan.tiles, plan.parts, kColumnThreads, c.device, p);
    if (p.partial != nullptr) finish(op, *sums, p.partial, c.columns, plan.parts);
}

// ---- prelu: the tensor as channels times the rest ----

struct PreluProblem {
    int channel_dim = -1;  // -1: one channel
    int64_t channels = 1;
    int64_t channel_stride[4] = {};  // gx, g, x, w
    IndexSpace rest;                 // gx, g, x over one channel
    plan::Operand operands[3];
    ColumnProblem columns;
    bool as_columns = false;
    bool vector = false;  // of the rows kernel
};

PreluProblem prelu_problem(const TensorView& gx, const TensorView& gw, const TensorView& g, const TensorView& x,
                           const TensorView* w) {
    PreluProblem p;
    const TensorView* const views[] = {&gx, &g, &x};
    if (gw.numel() > 1) {
        p.channel_dim = 1;
        p.channels = x.shape[1];
    }
    p.rest = coalesce(views, 3, p.channel_dim);
    for (int t = 0; t < 3; ++t) {
        p.operands[t] = operand(*views[t], t == 0);
        p.channel_stride[t] = p.channel_dim < 0 ? 0 : views[t]->stride[1];
    }
    p.channel_stride[3] = w == nullptr || p.channel_dim < 0 ? 0 : w->stride[1];
    p.as_columns = p.channels > 1 && p.channel_stride[0] == 1 && p.rest.ndim == 1;
    p.vector = plan::fits_units(p.rest, p.operands, x.dtype, false, p.channel_stride);
    if (p.as_columns) {
        ColumnProblem& c = p.columns;
        for (int t = 0; t < 3; ++t) {
            c.views[t] = views[t];
            c.row_stride[t] = p.rest.stride[t][0];
            c.column_stride[t] = p.channel_stride[t];
        }
        c.views[3] = w;
        c.column_stride[3] = p.channel_stride[3];
        c.rows = p.rest.size[0];
        c.columns = p.channels;
        c.inputs = 3;
        c.type = x.dtype;
        c.device = x.device;
    }
    return p;
}

struct PreluLaunch {
    plan::Chunk chunk;
    plan::RowsPlan plan;
};

// Each chunk of a huge tensor has parts of its own.
std::vector<PreluLaunch> prelu_rows_plans(const PreluProblem& p, DType type, Device device) {
    const std::vector<plan::Chunk> chunks = plan::split(p.vector ? plan::in_units(p.rest, type) : p.rest);
    std::vector<PreluLaunch> launches;
    for (const plan::Chunk& c : chunks)
        launches.push_back(
            {c, plan::plan_rows(c.space.numel(), p.channels, p.vector, type, multiprocessors(device), kAnyWorkspace)});
    return launches;
}

int64_t total_parts(const std::vector<PreluLaunch>& launches) {
    int64_t parts = 0;
    for (const PreluLaunch& l : launches) parts += l.plan.parts;
    return parts;
}

}  // namespace

void unary(const TensorView& out, const TensorView& x, Act act) {
    elementwise({"unary", "activation_elementwise", "activation_unary"}, 1, act, out, x);
}

void unary_backward(const TensorView& out, const TensorView& g, const TensorView& x, Act act) {
    elementwise({"unary_backward", "activation_elementwise", "activation_unary_backward"}, 1, act, out, g, x);
}

void unary_backward2(const TensorView& out, const TensorView& gg, const TensorView& g, const TensorView& x, Act act) {
    elementwise({"unary_backward2", "activation_elementwise", "activation_unary_backward2"}, 1, act, out, gg, g, x);
}

void unary_backward_from_output(const TensorView& out, const TensorView& g, const TensorView& y, Act act) {
    elementwise({"unary_backward", "activation_elementwise", "activation_unary_backward_from_output"}, 1, act, out, g,
                y);
}

void unary_backward2_from_output(const TensorView& out, const TensorView& gg, const TensorView& g, const TensorView& y,
                                 Act act) {
    elementwise({"unary_backward2", "activation_elementwise", "activation_unary_backward2_from_output"}, 1, act, out,
                gg, g, y);
}

void gated(const TensorView& out, const TensorView& a, const TensorView& b, Act act) {
    elementwise({"gated", "activation_gated", "activation_gated"}, 1, act, out, a, b);
}

void gated_backward(const TensorView& ga, const TensorView& gb, const TensorView& g, const TensorView& a,
                    const TensorView& b, Act act) {
    elementwise({"gated_backward", "activation_gated", "activation_gated_backward"}, 2, act, ga, gb, g, a, b);
}

void prelu(const TensorView& out, const TensorView& x, const TensorView& w) {
    elementwise({"prelu", "activation_prelu", "activation_prelu"}, 1, kNoActivation, out, x, w);
}

void prelu_backward(const TensorView& gx, const TensorView* gw, const TensorView& g, const TensorView& x,
                    const TensorView& w) {
    constexpr const char *op = "prelu_backward", *fatbin = "activation_prelu";
    if (gw == nullptr) {
        elementwise({op, fatbin, "activation_prelu_backward"}, 1, kNoActivation, gx, g, x, w);
        return;
    }
    if (gw->numel() == 0) return;  // no channel, so no element either
    const PreluProblem p = prelu_problem(gx, *gw, g, x, &w);
    if (p.as_columns) {
        run_columns(op, fatbin, "activation_prelu_columns", p.columns, gw, kNoActivation);
        return;
    }

    const std::vector<PreluLaunch> launches = prelu_rows_plans(p, x.dtype, x.device);
    const int64_t parts = total_parts(launches);
    const int64_t needed = parts > 1 ? parts * p.channels * plan::compute_size(x.dtype) : 0;
    const std::string kernel = std::string("activation_prelu_rows_") + short_name(x.dtype);
    if (trace::active())
        trace_launch(op, kernel,
                     concat(p.vector ? "units of 16 bytes" : "single elements", ", dims ", p.rest.ndim, ", grid ",
                            p.channels, " x ", launches[0].plan.parts, ", launches ", launches.size()));
    const Scratch scratch = scratch_of(*gw, needed);
    char* const partial = static_cast<char*>(scratch.data);
    int64_t first_part = 0;
    for (const PreluLaunch& l : launches) {
        PreluRowsParams k;
        k.out = at(gx, l.chunk.offset[0]);
        k.in[0] = at(g, l.chunk.offset[1]);
        k.in[1] = at(x, l.chunk.offset[2]);
        k.in[2] = w.data;
        plan::fill_layout(l.chunk.space, k.layout);
        std::copy(p.channel_stride, p.channel_stride + 4, k.channel_stride);
        k.partial = partial ? partial + first_part * p.channels * plan::compute_size(x.dtype) : nullptr;
        k.sums = gw->data;
        k.sums_stride = gw->ndim == 0 ? 1 : gw->stride[0];
        k.channels = p.channels;
        k.count = l.chunk.space.numel();
        k.numel = p.rest.numel();
        k.per_part = l.plan.per_part;
        k.vector = p.vector;
        launch(op, fatbin, kernel, p.channels, l.plan.parts, kColumnThreads, x.device, k);
        first_part += l.plan.parts;
    }
    if (partial != nullptr) finish(op, *gw, partial, p.channels, parts);
}

namespace {

ColumnProblem bias_problem(const TensorView* gz, const TensorView& g, const TensorView* z, Act act) {
    ColumnProblem c;
    c.views[0] = gz;
    c.views[1] = &g;
    c.inputs = 1;
    if (act.id != Activation::identity) c.views[2] = z, c.inputs = 2;
    for (int k = 0; k <= c.inputs; ++k) {
        if (c.views[k] == nullptr) continue;
        c.row_stride[k] = c.views[k]->stride[0];
        c.column_stride[k] = c.views[k]->stride[1];
    }
    c.rows = g.shape[0];
    c.columns = g.shape[1];
    c.type = g.dtype;
    c.device = g.device;
    return c;
}

}  // namespace

void activation_bias_backward(const TensorView* gz, const TensorView* gb, const TensorView& g, const TensorView* z,
                              Act act) {
    const ColumnProblem c = bias_problem(gz, g, z, act);
    run_columns("activation_bias_backward", "activation_bias_backward",
                c.inputs == 1 ? "activation_column_sum" : "activation_bias_backward", c, gb, act);
}

}  // namespace nk::cuda
