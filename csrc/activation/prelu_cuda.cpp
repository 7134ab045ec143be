// PReLU on CUDA. Its weight's gradient is a sum over everything but the channel: of columns where the channel is the
// innermost dim, of rows anywhere else.
#include <algorithm>
#include <vector>

#include "activation/cuda.h"
#include "context/context.h"
#include "cuda/columns.h"
#include "driver/kernel.h"
#include "kernels/cuda/activation/params.h"
#include "plan/columns_cuda.h"
#include "tensor/check.h"
#include "tensor/scratch.h"

namespace nk::cuda {

namespace {

constexpr ElementwiseArguments kNoArguments{};

// The tensor as channels times the rest.
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
                           const TensorView& w) {
    PreluProblem p;
    const TensorView* const views[] = {&gx, &g, &x};
    if (gw.numel() > 1) {
        p.channel_dim = 1;
        p.channels = x.shape[1];
    }
    p.rest = coalesce(views, 3, p.channel_dim);
    for (int t = 0; t < 3; ++t) {
        p.operands[t] = plan::operand(*views[t], t == 0);
        p.channel_stride[t] = p.channel_dim < 0 ? 0 : views[t]->stride[1];
    }
    p.channel_stride[3] = p.channel_dim < 0 ? 0 : w.stride[1];
    p.as_columns = p.channels > 1 && p.channel_stride[0] == 1 && p.rest.ndim == 1;
    p.vector = plan::fits_units(p.rest, p.operands, x.dtype, false, p.channel_stride);
    if (p.as_columns) {
        ColumnProblem& c = p.columns;
        for (int t = 0; t < 3; ++t) {
            c.views[t] = views[t];
            c.row_stride[t] = p.rest.stride[t][0];
            c.column_stride[t] = p.channel_stride[t];
        }
        c.views[3] = &w;
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
        launches.push_back({c, plan::plan_rows(c.space.numel(), p.channels, p.vector, multiprocessors(device))});
    return launches;
}

int64_t total_parts(const std::vector<PreluLaunch>& launches) {
    int64_t parts = 0;
    for (const PreluLaunch& l : launches) parts += l.plan.parts;
    return parts;
}

}  // namespace

void prelu(const TensorView& out, const TensorView& x, const TensorView& w) {
    elementwise({"prelu", "activation_prelu", "activation_prelu"}, 1, kNoArguments, out, x, w);
}

void prelu_backward(const TensorView& gx, const TensorView* gw, const TensorView& g, const TensorView& x,
                    const TensorView& w) {
    constexpr const char *op = "prelu_backward", *fatbin = "activation_prelu";
    if (gw == nullptr) {
        elementwise({op, fatbin, "activation_prelu_backward"}, 1, kNoArguments, gx, g, x, w);
        return;
    }
    if (gw->numel() == 0) return;  // no channel, so no element either
    const PreluProblem p = prelu_problem(gx, *gw, g, x, w);
    if (p.as_columns) {
        run_columns({op, fatbin, "activation_prelu_columns"}, p.columns, gw, kNoArguments);
        return;
    }

    const std::vector<PreluLaunch> launches = prelu_rows_plans(p, x.dtype, x.device);
    const int64_t parts = total_parts(launches);
    const int64_t needed = parts > 1 ? parts * p.channels * plan::compute_size(x.dtype) : 0;
    const std::string kernel = std::string("activation_prelu_rows_") + short_name(x.dtype);
    if (trace::active())
        trace::record({op, "cuda", kernel,
                       concat(p.vector ? "units of 16 bytes" : "single elements", ", dims ", p.rest.ndim, ", grid ",
                              p.channels, " x ", launches[0].plan.parts, ", launches ", launches.size()),
                       ""});
    const Scratch scratch = needed > 0 ? allocate_scratch(*gw, needed) : Scratch();
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
    if (partial != nullptr) finish_columns(op, *gw, partial, p.channels, parts);
}

}  // namespace nk::cuda
