// The CUDA side of matmul: from checked tensors to a plan and its launches.
#include <array>
#include <numeric>

#include "context/context.h"
#include "driver/cuda_hooks.h"
#include "driver/kernel.h"
#include "kernels/activation.h"
#include "kernels/cuda/matmul/params.h"
#include "matmul/bind.h"
#include "matmul/plan_cuda.h"
#include "matmul/problem.h"
#include "plan/plan_cache.h"
#include "tensor/check.h"
#include "tensor/scratch.h"

namespace nk::cuda {

namespace {

constexpr const char* kOp = "matmul";
constexpr int kMostBatches = 65535;  // blockIdx.z

std::string only_kernels;  // see matmul_only

// One matrix of the problem with its batch steps, outermost first.
struct Matrix {
    const TensorView* view = nullptr;
    char* data = nullptr;
    int64_t row = 0, column = 0;
    int64_t batch[kMaxDims];
};

// The problem in the form that kernels take it: few batch dimensions, output rows contiguous where possible.
struct Problem {
    int64_t m = 0, n = 0, k = 0;
    int dims = 0;  // batch dimensions
    int64_t size[kMaxDims];
    Matrix a, b, out, residual, preact;
    const TensorView* bias = nullptr;
    int64_t bias_row = 0, bias_column = 0;
    int64_t element = 0;  // bytes

    std::array<Matrix*, 5> each() { return {&a, &b, &out, &residual, &preact}; }
    int64_t batches() const { return std::accumulate(size, size + dims, int64_t{1}, std::multiplies<>()); }
};

void read_matrix(const TensorView* view, Matrix& to) {
    to.view = view;
    if (view == nullptr) return;
    to.data = static_cast<char*>(view->data);
    to.row = view->step(-2), to.column = view->step(-1);
    for (int i = 0; i < view->ndim - 2; ++i) to.batch[i] = view->stride[i];
}

// Removes dimensions of size 1 and joins neighbours that every matrix walks in one stride.
void collapse_batches(Problem& p) {
    int kept = 0;
    for (int i = 0; i < p.dims; ++i) {
        if (p.size[i] == 1) continue;
        bool joins = kept > 0;
        for (const Matrix* x : p.each())
            if (x->view != nullptr && kept > 0) joins = joins && x->batch[kept - 1] == x->batch[i] * p.size[i];
        const int to = joins ? kept - 1 : kept++;
        p.size[to] = joins ? p.size[to] * p.size[i] : p.size[i];
        for (Matrix* x : p.each())
            if (x->view != nullptr) x->batch[to] = x->batch[i];
    }
    p.dims = kept;
}

// [..., B, M, K] times one B for all of them is [..., B * M, K], when the rows lie evenly: linear on a 3-D input.
void fold_batch_into_rows(Problem& p) {
    while (p.dims > 0 && p.b.batch[p.dims - 1] == 0 && p.bias_row == 0) {
        const int last = p.dims - 1;
        for (const Matrix* x : {&p.a, &p.out, &p.residual, &p.preact})
            if (x->view != nullptr && p.m != 1 && x->batch[last] != p.m * x->row) return;
        if (p.m == 1)
            for (Matrix* x : {&p.a, &p.out, &p.residual, &p.preact})
                if (x->view != nullptr) x->row = x->batch[last];
        p.m *= p.size[last];
        --p.dims;
    }
}

// Stores go along rows: an output whose columns are contiguous is computed as its transpose, B' A'.
void transpose_if_better(Problem& p) {
    if (p.out.column == 1 || p.out.row != 1 || p.n == 1) return;
    std::swap(p.a, p.b);
    std::swap(p.m, p.n);
    for (Matrix* x : p.each()) std::swap(x->row, x->column);
    std::swap(p.bias_row, p.bias_column);
}

Problem read_problem(const MatmulCall& call) {
    Problem p;
    p.m = call.out.size(-2), p.n = call.out.size(-1), p.k = call.a.size(-1);
    p.dims = call.out.ndim - 2;
    std::copy(call.out.shape, call.out.shape + p.dims, p.size);
    p.element = size_of(call.out.dtype);
    read_matrix(&call.a, p.a), read_matrix(&call.b, p.b), read_matrix(&call.out, p.out);
    read_matrix(call.beta != 0 ? call.residual : nullptr, p.residual), read_matrix(call.preact, p.preact);
    p.bias = call.bias;
    if (call.bias != nullptr) p.bias_column = call.bias->step(-1);
    collapse_batches(p);
    fold_batch_into_rows(p);
    transpose_if_better(p);
    return p;
}

// The largest power of two, at most `most`, that divides every address of these steps (in bytes).
int alignment(const Problem& p, const Matrix& x, int64_t step, int64_t steps, int most) {
    uint64_t bits = reinterpret_cast<uintptr_t>(x.data) | static_cast<uint64_t>(most);
    if (steps > 1) bits |= static_cast<uint64_t>(step * p.element);
    for (int i = 0; i < p.dims; ++i) bits |= static_cast<uint64_t>(x.batch[i] * p.element);
    return static_cast<int>(bits & -bits);
}

// `outer` is m for A and n for B.
plan::MatrixOperand operand(const Problem& p, const Matrix& x, int64_t outer, int64_t outer_step, int64_t k_step) {
    plan::MatrixOperand o;
    const bool along_outer = outer_step == 1, along_k = k_step == 1 && !(along_outer && p.k == 1);
    o.k_major = along_k || !along_outer;
    if (!along_k && !along_outer) return o.access = 0, o;
    const int bytes = along_k ? alignment(p, x, outer_step, outer, 16) : alignment(p, x, k_step, p.k, 16);
    o.access = bytes >= 4 ? bytes : 0;
    return o;
}

// Whether `lanes` columns of a row can be taken at once.
bool wide(const Problem& p, const Matrix& x, int lanes) {
    const int bytes = lanes * static_cast<int>(p.element);
    return x.view != nullptr && x.column == 1 && alignment(p, x, x.row, p.m, bytes) == bytes;
}

plan::MatmulProblem to_plan(const MatmulCall& call, const Problem& p) {
    plan::MatmulProblem q;
    q.m = p.m, q.n = p.n, q.k = p.k, q.batches = p.batches();
    q.dtype = call.out.dtype;
    q.only = only_kernels;
    q.tf32 = q.dtype == DType::f32 && allows_tf32();
    q.a = operand(p, p.a, p.m, p.a.row, p.a.column);
    q.b = operand(p, p.b, p.n, p.b.column, p.b.row);
    return q;
}

plan::Gpu gpu_of(Device device) {
    const driver::DeviceInfo& info = driver::device_info(device.kind == Device::cuda ? device.index : 0);
    return {info.multiprocessors, info.shared_per_block, info.shared_per_multiprocessor, info.major};
}

const plan::MatmulPlan& plan_for(const plan::MatmulProblem& problem, const plan::Gpu& gpu) {
    struct Key {
        plan::MatmulProblem problem;
        plan::Gpu gpu;
        bool operator==(const Key&) const = default;
    };
    static thread_local plan::PlanCache<Key, plan::MatmulPlan> cache;
    return cache.of({problem, gpu}, problem.m, problem.n, problem.k, [&] { return plan::plan_matmul(problem, gpu); });
}

MatrixRef reference(const Matrix& x, int first, int dims) {
    MatrixRef r;
    if (x.view == nullptr) return r;
    r.data = x.data, r.row = x.row, r.column = x.column;
    for (int i = 0; i < dims; ++i) r.batch[kBatchDims - dims + i] = x.batch[first + i];
    return r;
}

MatmulParams to_params(const MatmulCall& call, const Problem& p, const plan::MatmulPlan& plan, void* workspace) {
    MatmulParams q;
    const int lanes = call.out.dtype == DType::f64 ? 2 : 4;
    const int first = std::max(0, p.dims - kBatchDims), dims = p.dims - first;
    q.a = reference(p.a, first, dims), q.b = reference(p.b, first, dims), q.out = reference(p.out, first, dims);
    q.residual = reference(p.residual, first, dims), q.preact = reference(p.preact, first, dims);
    q.has_residual = p.residual.view != nullptr, q.has_preact = p.preact.view != nullptr;
    for (int i = 0; i < dims; ++i) q.batch_size[kBatchDims - dims + i] = p.size[first + i];
    if (p.k == 0) q.a.data = q.b.data = q.out.data;  // nothing is read, but kernels form addresses
    if (p.bias != nullptr) {
        q.bias = p.bias->data, q.bias_row = p.bias_row, q.bias_column = p.bias_column;
        const uintptr_t bytes = static_cast<uintptr_t>(lanes * p.element);
        q.wide_bias = p.bias_column == 1 && reinterpret_cast<uintptr_t>(q.bias) % bytes == 0;
    }
    q.m = p.m, q.n = p.n, q.k = p.k;
    q.k_per_split = plan.k_per_split, q.workspace_pitch = plan.workspace_pitch;
    q.workspace = workspace;
    q.alpha = call.alpha, q.beta = call.beta, q.p0 = call.p[0], q.p1 = call.p[1];
    q.tiles_m = plan.tiles_m, q.tiles_n = plan.tiles_n, q.group = plan.group, q.splits = plan.splits;
    q.activation = static_cast<int>(call.activation);
    q.a_access = plan.a_access, q.b_access = plan.b_access;
    q.wide_out = wide(p, p.out, lanes), q.wide_residual = wide(p, p.residual, lanes);
    q.wide_preact = wide(p, p.preact, lanes);
    return q;
}

std::string describe_call(const void* context) {
    const MatmulCall& c = *static_cast<const MatmulCall*>(context);
    return concat("a ", shape_string(c.a), ", b ", shape_string(c.b), ", out ", shape_string(c.out), " of ",
                  name_of(c.out.dtype));
}

// All batch entries that the kernels can decode, in as many launches as blockIdx.z needs.
void launch_batches(const MatmulCall& call, const plan::MatmulPlan& plan, MatmulParams& q, int64_t batches) {
    const std::string name = plan.name(), fatbin = plan.fatbin();
    const std::string reduce = std::string("matmul_reduce_") + short_name(call.out.dtype);
    const int64_t per_row = call.out.dtype == DType::f64 ? (q.n + 1) / 2 : (q.n + 3) / 4;
    for (q.batch_begin = 0; q.batch_begin < batches; q.batch_begin += kMostBatches) {
        q.batches = std::min<int64_t>(batches - q.batch_begin, kMostBatches);
        const unsigned z = static_cast<unsigned>(q.batches);
        driver::Launch what{kOp, fatbin.c_str(), name.c_str()};
        what.grid[0] = static_cast<unsigned>(plan.tiles_m) * static_cast<unsigned>(plan.tiles_n);
        what.grid[1] = static_cast<unsigned>(plan.splits), what.grid[2] = z;
        what.block[0] = static_cast<unsigned>(plan.kernel->threads);
        what.shared = static_cast<unsigned>(plan.kernel->shared);
        what.device = call.out.device, what.stream = current_stream(driver::titled(kOp), call.out.device);
        driver::launch(what, q, describe_call, &call);
        if (plan.splits == 1) continue;
        driver::Launch sum{kOp, "matmul_reduce", reduce.c_str()};
        sum.grid[0] = static_cast<unsigned>((q.m * per_row + 255) / 256), sum.grid[2] = z;
        sum.block[0] = 256;
        sum.device = what.device, sum.stream = what.stream;
        driver::launch(sum, q, describe_call, &call);
    }
}

// Batch dimensions beyond those that kernels decode are walked here.
void launch_outer(const MatmulCall& call, const plan::MatmulPlan& plan, MatmulParams& q, const Problem& p, int dim) {
    if (dim >= p.dims - kBatchDims) {
        int64_t batches = 1;
        for (int i = std::max(dim, 0); i < p.dims; ++i) batches *= p.size[i];
        launch_batches(call, plan, q, batches);
        return;
    }
    const std::pair<MatrixRef*, const Matrix*> pairs[] = {
        {&q.a, &p.a}, {&q.b, &p.b}, {&q.out, &p.out}, {&q.residual, &p.residual}, {&q.preact, &p.preact}};
    for (int64_t i = 0; i < p.size[dim]; ++i) {
        launch_outer(call, plan, q, p, dim + 1);
        for (auto [ref, x] : pairs)
            if (x->view != nullptr) ref->data = static_cast<char*>(ref->data) + x->batch[dim] * p.element;
    }
    for (auto [ref, x] : pairs)
        if (x->view != nullptr) ref->data = static_cast<char*>(ref->data) - p.size[dim] * x->batch[dim] * p.element;
}

}  // namespace

void matmul(const MatmulCall& call) {
    if (call.out.numel() == 0) return;
    const Problem p = read_problem(call);
    const plan::Gpu gpu = gpu_of(call.out.device);
    const plan::MatmulPlan plan = plan_for(to_plan(call, p), gpu);
    if (plan.kernel == nullptr)
        fail_runtime(kOp, "no CUDA kernel takes ", describe_call(&call), " on ", to_string(call.out.device));
    Scratch workspace;
    if (plan.splits > 1) workspace = allocate_scratch(call.out, plan.workspace_bytes);
    MatmulParams q = to_params(call, p, plan, workspace.data);
    if (trace::active()) trace::record({kOp, "cuda", plan.name(), plan.describe(), ""});
    launch_outer(call, plan, q, p, 0);
}

}  // namespace nk::cuda

namespace nk {

void set_matmul_only(std::string part) { cuda::only_kernels = std::move(part); }

}  // namespace nk
