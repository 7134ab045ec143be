// matmul on the CPU: reduce the tensors to matrices and batches, plan, cut into tasks, run them on threads.
#include <algorithm>

#include "call/run.h"
#include "cpu/table.h"
#include "cpu/threads.h"
#include "cpu/workspace.h"
#include "kernels/activation.h"
#include "matmul/plan_cpu.h"
#include "matmul/problem.h"
#include "plan/plan_cache.h"
#include "tensor/check.h"

namespace nk::cpu {

namespace {

// The tensors that walk through the batch together.
enum Role { kOut, kA, kB, kResidual, kPreact, kRoles };

// The call as matrices: sizes, matrix strides and, for each batch dimension left, one stride a tensor (elements).
struct Matrices {
    int64_t m, n, k, batch = 1;
    MatmulOperand x[kRoles] = {};
    int dims = 0;
    int64_t size[kMaxDims];
    int64_t step[kMaxDims][kRoles];
};

Matrices matrices_of(const MatmulCall& c) {
    Matrices v;
    v.m = c.m(), v.n = c.n(), v.k = c.k();
    const TensorView* t[kRoles] = {&c.out, &c.a, &c.b, c.residual, c.preact};
    for (int r = 0; r < kRoles; ++r)
        if (t[r]) v.x[r] = {t[r]->data, t[r]->step(-2), t[r]->step(-1)};
    for (int d = 0; d < c.out.ndim - 2; ++d) {
        if (c.out.shape[d] == 1) continue;
        v.batch *= c.out.shape[d];
        int64_t step[kRoles];
        for (int r = 0; r < kRoles; ++r) step[r] = t[r] ? t[r]->stride[d] : 0;
        bool joins = v.dims > 0;  // the dimension before steps over whole rows of this one, in every tensor
        for (int r = 0; joins && r < kRoles; ++r) joins = v.step[v.dims - 1][r] == step[r] * c.out.shape[d];
        const int at = joins ? v.dims - 1 : v.dims++;
        v.size[at] = joins ? v.size[at] * c.out.shape[d] : c.out.shape[d];
        std::copy(step, step + kRoles, v.step[at]);
    }
    return v;
}

// A batch that shares b is one taller matrix, if the rows of all others go on evenly from one batch to the next.
void fold_batch(Matrices& v) {
    while (v.dims > 0) {
        const int d = v.dims - 1;
        bool even = v.step[d][kB] == 0;
        for (int r : {kOut, kA, kResidual, kPreact})
            even = even && (!v.x[r].data || v.m == 1 || v.step[d][r] == v.m * v.x[r].row);
        if (!even) return;
        if (v.m == 1)
            for (int r : {kOut, kA, kResidual, kPreact}) v.x[r].row = v.step[d][r];
        v.m *= v.size[d];
        v.batch /= v.size[d];
        --v.dims;
    }
}

// Strides of dimensions of one element never matter: call them 1, the best one.
void settle_unit_dims(Matrices& v) {
    if (v.m == 1) v.x[kA].row = v.x[kOut].row = 1;
    if (v.n == 1) v.x[kB].col = v.x[kOut].col = 1;
    if (v.k <= 1) v.x[kA].col = v.x[kB].row = 1;
}

// Rows that the kernel for products within one vector can take at a time: all of each matrix of a batch, or as many of
// a single one as go into the lanes; 0 where it can't.
int small_rows(const Matrices& v, int64_t lanes) {
    const MatmulOperand &a = v.x[kA], &b = v.x[kB], &out = v.x[kOut];
    if (v.k < 1 || v.k > lanes || v.n > lanes || v.dims > 1 || std::min({a.row, a.col, b.row, b.col}) < 0) return 0;
    if ((v.k - 1) * b.row + (v.n - 1) * b.col >= lanes || (v.k - 1) * a.col >= lanes) return 0;
    int64_t rows = lanes / v.n;
    if (a.row > 0) rows = std::min(rows, (lanes - 1 - (v.k - 1) * a.col) / a.row + 1);
    const bool by_rows = (v.m == 1 || out.row == v.n) && (v.n == 1 || out.col == 1);
    const bool by_columns = (v.n == 1 || out.col == v.m) && (v.m == 1 || out.row == 1);
    if (v.m <= rows) return by_rows || by_columns ? static_cast<int>(v.m) : 0;
    return by_rows && v.dims == 0 ? static_cast<int>(rows) : 0;
}

// A matrix as a batch of so many of its rows; returns how many the last has.
int64_t into_batch(Matrices& v, int64_t rows) {
    if (v.dims > 0) return v.m;
    v.batch = v.size[0] = (v.m + rows - 1) / rows, v.dims = 1;
    for (int r = 0; r < kRoles; ++r) v.step[0][r] = r == kB ? 0 : rows * v.x[r].row;
    return v.m - (v.batch - 1) * rows;
}

bool near(int64_t apart, int64_t step, int64_t size) {
    return step == 1 && apart * size <= kNearBytes && apart * size >= -kNearBytes;
}

const void* advance(const void* p, int64_t elements, int64_t size) {
    return p == nullptr ? nullptr : static_cast<const char*>(p) + elements * size;
}
MatmulOperand part_of(const MatmulOperand& x, int64_t i, int64_t j, int64_t size) {
    return {advance(x.data, i * x.row + j * x.col, size), x.row, x.col};
}
MatmulOperand turned(const MatmulOperand& x) { return {x.data, x.col, x.row}; }

// The matrices of `to` at batch number `index`, given those of `t` at the first.
void move_to_batch(const Matrices& v, int64_t index, int64_t size, bool swap, const MatmulTask& t, MatmulTask& to) {
    int64_t offset[kRoles] = {};
    for (int d = v.dims - 1; d >= 0; --d) {
        const int64_t at = d > 0 ? index % v.size[d] : index;
        if (d > 0) index /= v.size[d];
        for (int r = 0; r < kRoles; ++r) offset[r] += at * v.step[d][r];
    }
    to.out.data = advance(t.out.data, offset[kOut], size);
    to.a.data = advance(t.a.data, offset[swap ? kB : kA], size);
    to.b.data = advance(t.b.data, offset[swap ? kA : kB], size);
    to.epilogue.residual.data = advance(t.epilogue.residual.data, offset[kResidual], size);
    to.epilogue.preact.data = advance(t.epilogue.preact.data, offset[kPreact], size);
}

int64_t aligned(int64_t bytes) { return (bytes + 63) / 64 * 64; }

// Bytes that one thread needs, with the offsets of the pieces in `t`. A line is added so that threads share none.
int64_t lay_out_work(const MatmulPlan& plan, const MatmulTile& tile, int64_t m, int64_t n, int64_t k, MatmulTask& t) {
    const bool pairs = plan.path != MatmulPath::stream && tile.group == 2;
    const int64_t unit = plan.path == MatmulPath::stream ? tile.stream_unit : tile.unit;
    auto units = [&](int64_t depth) { return pairs ? (depth + 1) / 2 : depth; };
    if (plan.path == MatmulPath::dot) return plan.pack_a ? aligned(m * packed_row(units(k), unit) * unit + 64) : 0;
    const int64_t wide = (std::min(plan.nc, n) + tile.lanes - 1) / tile.lanes * tile.lanes;
    const int64_t packed = m <= plan.mc ? std::min(k, plan.kc) : k;
    t.work_a = plan.pack_b ? aligned(units(packed + 1) * wide * unit) : 0;
    const int64_t across = (plan.mr + tile.lanes - 1) / tile.lanes * tile.lanes * units(plan.kc);
    const int64_t rows = plan.mr * packed_row(units(plan.kc), unit);
    t.work_acc = t.work_a + (plan.pack_a ? aligned(std::max(across, rows) * unit) : 0);
    return t.work_acc + (k > plan.kc ? aligned(std::min(plan.mc, m) * wide * tile.acc) : 0) + 64;
}

const MatmulPlan& planned(const MatmulProblem& p, const MatmulTile& tile) {
    struct Key {
        MatmulProblem problem;
        const char* isa = nullptr;
        bool operator==(const Key&) const = default;
    };
    static thread_local plan::PlanCache<Key, MatmulPlan> cache;
    return cache.of({p, tile.isa}, p.m, p.n, p.k, [&] { return plan_matmul(p, tile); });
}

struct Job {
    const Matrices& v;
    const MatmulPlan& plan;
    const MatmulTile& tile;
    MatmulTask whole;  // one matrix of the batch, turned if the plan says so
    void (*kernel)(const MatmulTask&);
    void (*finish)(const MatmulTask&, const void*, int64_t, int);
    int64_t size;  // of an element
    char* work;
    int64_t work_each;
    char* partial;
    void (*small)(const MatmulTask&, const MatmulSteps&) = nullptr;
    int64_t last = 0;  // rows of the last matrix, for `small`
};

// Rows [i0, i1), columns [j0, j1) and steps [k0, k1) of a task.
MatmulTask cut(const MatmulTask& t, int64_t i0, int64_t i1, int64_t j0, int64_t j1, int64_t k0, int64_t k1,
               int64_t size) {
    MatmulTask r = t;
    r.m = i1 - i0, r.n = j1 - j0, r.k = k1 - k0;
    r.a = part_of(t.a, i0, k0, size);
    r.b = part_of(t.b, k0, j0, size);
    r.out = part_of(t.out, i0, j0, size);
    r.epilogue.bias = part_of(t.epilogue.bias, i0, j0, size);
    r.epilogue.residual = part_of(t.epilogue.residual, i0, j0, size);
    r.epilogue.preact = part_of(t.epilogue.preact, i0, j0, size);
    return r;
}

void run_part(const Job& job, int64_t index, char* work) {
    const MatmulPlan& p = job.plan;
    const MatmulTask& w = job.whole;
    const int ik = int(index % p.tk), in = int(index / p.tk % p.tn), im = int(index / p.tk / p.tn % p.tm);
    const int64_t grain = p.path == MatmulPath::dot ? 4 : job.tile.lanes;
    const int64_t i0 = part_begin(w.m, 1, im, p.tm), i1 = part_begin(w.m, 1, im + 1, p.tm);
    const int64_t j0 = part_begin(w.n, grain, in, p.tn), j1 = part_begin(w.n, grain, in + 1, p.tn);
    const int64_t k0 = part_begin(w.k, 64, ik, p.tk), k1 = part_begin(w.k, 64, ik + 1, p.tk);
    if (i0 == i1 || j0 == j1) return;
    MatmulTask t = cut(w, i0, i1, j0, j1, k0, k1, job.size);
    if (job.v.dims > 0) move_to_batch(job.v, index / (int64_t(p.tk) * p.tn * p.tm), job.size, p.swap, t, t);
    if (p.tk > 1) {
        t.sums_only = true;
        t.out = {job.partial + (ik * w.m * w.n + i0 * w.n + j0) * job.tile.acc, w.n, 1};
    }
    t.work = work;
    job.kernel(t);
}

// Bytes of the next matrix's b that are worth fetching ahead: it must leave room in the second cache for this one's.
constexpr int64_t kAheadFrom = 4 << 10, kAheadUpTo = 256 << 10;

// Undivided matrices [begin, end) of the batch: next to small ones, cutting parts would be most of the work.
void run_matrices(const Job& job, int64_t begin, int64_t end, char* work) {
    MatmulTask t = job.whole;
    t.work = work;
    if (job.small) {
        const int64_t* step = job.v.step[0];
        move_to_batch(job.v, begin, job.size, false, job.whole, t);
        if (begin < end)
            job.small(t, {step[kOut], step[kA], step[kB], end - begin, end == job.v.batch ? job.last : t.m});
        return;
    }
    const int64_t b_bytes = t.k * t.n * job.size;
    const bool ahead = job.v.dims == 1 && b_bytes >= kAheadFrom && b_bytes <= kAheadUpTo;
    const int64_t b_step = job.v.step[0][job.plan.swap ? kA : kB];
    for (int64_t i = begin; i < end; ++i) {
        if (job.v.dims > 0) move_to_batch(job.v, i, job.size, job.plan.swap, job.whole, t);
        t.next_b = ahead && i + 1 < end ? advance(t.b.data, b_step, job.size) : nullptr;
        job.kernel(t);
    }
}

void run_finish(const Job& job, int tid, int count) {
    const MatmulTask& w = job.whole;
    const int64_t i0 = part_begin(w.m, 1, tid, count), i1 = part_begin(w.m, 1, tid + 1, count);
    if (i0 < i1)
        job.finish(cut(w, i0, i1, 0, w.n, 0, w.k, job.size), job.partial + i0 * w.n * job.tile.acc, w.m * w.n,
                   job.plan.tk);
}

void run(const Job& job) {
    const int64_t parts = job.v.batch * job.plan.tm * job.plan.tn * job.plan.tk;
    parallel(job.plan.threads, [&](int tid, int count) {
        char* work = job.work + tid * job.work_each;
        const int64_t begin = parts * tid / count, end = parts * (tid + 1) / count;
        if (parts == job.v.batch) return run_matrices(job, begin, end, work);
        for (int64_t i = begin; i < end; ++i) run_part(job, i, work);
        if (job.plan.tk > 1) {
            if (count > 1) barrier();
            run_finish(job, tid, count);
        }
    });
}

MatmulTask whole_task(const MatmulCall& c, const Matrices& v, const MatmulPlan& plan) {
    MatmulTask t{};
    t.m = v.m, t.n = v.n, t.k = v.k;
    t.a = v.x[kA], t.b = v.x[kB], t.out = v.x[kOut];
    MatmulEpilogue& e = t.epilogue;
    if (c.bias) e.bias = {c.bias->data, 0, c.bias->stride[0]};
    if (c.residual && c.beta != 0) e.residual = v.x[kResidual];
    e.preact = v.x[kPreact];
    e.alpha = c.alpha, e.beta = c.beta;
    e.activation = static_cast<int>(c.activation);
    e.p[0] = c.p[0], e.p[1] = c.p[1];
    if (plan.swap) {
        std::swap(t.m, t.n);
        t.a = turned(v.x[kB]), t.b = turned(v.x[kA]), t.out = turned(t.out);
        for (MatmulOperand* x : {&e.bias, &e.residual, &e.preact}) *x = turned(*x);
    }
    t.mr = plan.mr, t.nv = plan.nv, t.kc = plan.kc, t.nc = plan.nc, t.mc = plan.mc;
    t.pack_a = plan.pack_a, t.pack_b = plan.pack_b;
    return t;
}

}  // namespace

void matmul(const MatmulCall& c) {
    const MatmulEntries& entries = table().matmul;
    const int d = static_cast<int>(c.out.dtype);
    const MatmulTile& tile = entries.tile[d];

    Matrices v = matrices_of(c);
    fold_batch(v);
    settle_unit_dims(v);
    const bool bare =
        !c.bias && !(c.residual && c.beta != 0) && !c.preact && c.alpha == 1 && c.activation == Activation::identity;
    const int64_t size = size_of(c.out.dtype);
    const bool sums_alone =
        bare || (c.bias && !c.residual && !c.preact && c.alpha == 1 && c.activation == Activation::identity);
    const int within = entries.small[d] && sums_alone ? small_rows(v, tile.lanes) : 0;
    const MatmulProblem problem{v.batch,
                                v.m,
                                v.n,
                                v.k,
                                c.out.dtype,
                                v.x[kA].row == 1,
                                v.x[kA].col == 1,
                                v.x[kB].row == 1,
                                v.x[kB].col == 1,
                                v.x[kOut].row == 1,
                                v.x[kOut].col == 1,
                                near(v.x[kA].row, v.x[kA].col, size),
                                near(v.x[kB].col, v.x[kB].row, size),
                                bare,
                                max_threads(),
                                within};
    const MatmulPlan plan = planned(problem, tile);
    Job job{v, plan, tile, whole_task(c, v, plan), nullptr, entries.finish[d], size, nullptr, 0, nullptr};
    job.kernel = plan.path == MatmulPath::dot      ? entries.dot[d]
                 : plan.path == MatmulPath::stream ? entries.stream[d]
                                                   : entries.block[d];
    if (plan.path == MatmulPath::small) {
        job.small = entries.small[d];
        job.last = into_batch(v, plan.mr);
        job.whole.m = plan.mr;
    }
    if (c.activation != Activation::identity) job.whole.epilogue.activate = entries.activate[d];

    const int64_t m = (job.whole.m + plan.tm - 1) / plan.tm;
    const int64_t n = std::min(job.whole.n, (job.whole.n + plan.tn - 1) / plan.tn + 2 * tile.lanes);
    const int64_t k = std::min(job.whole.k, (job.whole.k + plan.tk - 1) / plan.tk + 128);
    if (!job.small) job.work_each = lay_out_work(plan, tile, m, n, k, job.whole);
    const int64_t all = job.work_each * plan.threads;
    const int64_t partial = plan.tk > 1 ? plan.tk * job.whole.m * job.whole.n * tile.acc : 0;
    static thread_local Workspace workspace;
    if (all + partial > 0) job.work = workspace.get(size_t(all + partial));
    job.partial = job.work + all;

    run_on_cpu(
        "matmul", [&] { return concat("matmul_", tile.name, "_", tile.isa); }, static_cast<double>(plan.cycles),
        [&] { return to_string(plan, tile); }, [&] { run(job); });
    workspace.trim();
}

}  // namespace nk::cpu
