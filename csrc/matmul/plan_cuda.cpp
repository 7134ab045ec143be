#include "matmul/plan_cuda.h"

#include <algorithm>
#include <cmath>
#include <sstream>

#include "plan/arithmetic.h"

namespace nk::plan {

namespace {

constexpr int ring_bytes(int m, int n, int k_bytes, int stages) { return (m + n) * k_bytes * stages; }
constexpr int element_ring_bytes(int m, int n, int k, int element, int stages) {
    return (m + 4 + n + 4) * k * element * stages;
}

// Kernels that bring operands with any strides as [K][Outer] (tile/element_copy.h) and so have no layouts.
bool turns_operands(const MatmulKernel& kernel) {
    return kernel.kind == MatmulKind::simt || kernel.dtype == DType::f64;
}
bool is_tf32(const MatmulKernel& kernel) { return kernel.kind == MatmulKind::mma && kernel.dtype == DType::f32; }

bool serves(const MatmulKernel& kernel, const MatmulProblem& p) {
    return kernel.dtype == p.dtype && (!is_tf32(kernel) || p.tf32) && (!kernel.only_k_major_a || p.a.k_major);
}

// Bytes that a kernel may load at once. Those that turn operands know single elements, and 16 bytes along the outer
// index.
int access_of(const MatmulKernel& kernel, const MatrixOperand& o) {
    if (kernel.kind == MatmulKind::plain) return 0;
    if (turns_operands(kernel)) return !o.k_major && o.access == 16 ? 16 : 0;
    return o.access;
}

// How much longer loads of `access` bytes take than those of 16.
double access_cost(const MatmulKernel& kernel, int access) {
    if (kernel.kind != MatmulKind::mma || turns_operands(kernel)) return 1;
    return access == 16 ? 1 : access == 8 ? 1.3 : access == 4 ? 1.8 : 3;
}

double estimate(const MatmulKernel& kernel, const MatmulProblem& p, const Gpu& gpu, const MatmulPlan& plan) {
    const bool hopper = gpu.major >= 9;
    const double sms = gpu.multiprocessors;
    const double rate = kernel.rate * (hopper ? kernel.kind == MatmulKind::mma ? 1.6 : 2.0 : 1.0);
    const double dram = hopper ? 18 : 10;  // bytes per clock and multiprocessor
    const double l2 = hopper ? 32 : 48;
    const double element = size_of(p.dtype);

    const double resident =
        std::max(1, std::min(kernel.blocks, gpu.shared_per_multiprocessor / (kernel.shared + 1024)));
    const double blocks =
        static_cast<double>(plan.tiles_m) * plan.tiles_n * plan.splits * static_cast<double>(p.batches);
    const double steps = static_cast<double>(ceil_div(std::max<int64_t>(plan.k_per_split, 1), kernel.k));

    // One block alone reaches about half of what a full multiprocessor does; never less than the latency of its steps.
    const double slow = std::max(access_cost(kernel, plan.a_access), access_cost(kernel, plan.b_access));
    const double work = static_cast<double>(kernel.m) * kernel.n * kernel.k / rate * steps;
    const double traffic = static_cast<double>(kernel.m + kernel.n) * kernel.k * element / l2 * steps;
    auto wave = [&](double per_sm) {
        const double full = std::max(work, traffic) * per_sm;
        const double alone = std::max(std::max(work, traffic) * (resident > 1 ? 1.7 : 1.0), kernel.step * steps);
        return std::max(full, alone) * slow;
    };
    const double slots = sms * resident;
    const double full_waves = std::floor(blocks / slots);
    const double rest = blocks - full_waves * slots;
    const double edges = 1500 + kernel.m * kernel.n * element / 32;  // filling the ring, writing the tile
    double clocks = full_waves * (wave(resident) + edges) + (rest > 0 ? wave(std::ceil(rest / sms)) + edges : 0);

    const double bytes =
        static_cast<double>(p.batches) *
        (static_cast<double>(p.m) * p.k + static_cast<double>(p.k) * p.n + static_cast<double>(p.m) * p.n) * element;
    const double streaming = bytes / (dram * sms) + 1500;
    clocks = std::max(clocks, streaming) + 0.1 * std::min(clocks, streaming);  // the two never overlap wholly
    if (plan.splits > 1)  // written once, read once, and one more launch
        clocks += 3000 + 2.0 * static_cast<double>(plan.workspace_bytes) / (0.5 * l2 * sms);
    return clocks;
}

std::string kernel_name(const MatmulKernel& kernel, bool a_k_major, bool b_k_major) {
    constexpr const char* kinds[] = {"mma_", "simt_", "plain_"};
    std::string name = std::string("matmul_") + kinds[static_cast<int>(kernel.kind)] + kernel.element;
    if (kernel.kind == MatmulKind::plain) return name;
    if (!turns_operands(kernel)) name += std::string("_") + (a_k_major ? 'n' : 't') + (b_k_major ? 't' : 'n');
    return name + '_' + std::to_string(kernel.m) + 'x' + std::to_string(kernel.n);
}

std::string fatbin_name(const MatmulKernel& kernel) {
    if (kernel.kind == MatmulKind::plain) return "matmul_plain";
    return std::string(kernel.kind == MatmulKind::mma ? "matmul_mma_" : "matmul_simt_") + kernel.element;
}

}  // namespace

const std::vector<MatmulKernel>& matmul_kernels() {
    using K = MatmulKind;
    static const std::vector<MatmulKernel> kernels = [] {
        std::vector<MatmulKernel> list;
        for (const DType t : {DType::bf16, DType::f16}) {
            const char* e = t == DType::bf16 ? "bf16" : "f16";
            list.push_back({K::mma, t, e, 128, 256, 64, 256, 3, ring_bytes(128, 256, 128, 3), 1, false, 900, 700});
            list.push_back({K::mma, t, e, 128, 128, 32, 128, 4, ring_bytes(128, 128, 64, 4), 2, false, 820, 420});
            list.push_back({K::mma, t, e, 64, 64, 64, 128, 3, ring_bytes(64, 64, 128, 3), 4, false, 560, 360});
            list.push_back({K::mma, t, e, 16, 128, 64, 128, 4, ring_bytes(16, 128, 128, 4), 3, true, 300, 300});
        }
        constexpr DType f32 = DType::f32, f64 = DType::f64;
        list.push_back({K::mma, f32, "tf32", 128, 128, 16, 256, 4, ring_bytes(128, 128, 64, 4), 1, false, 380, 420});
        list.push_back({K::mma, f32, "tf32", 64, 64, 32, 128, 3, ring_bytes(64, 64, 128, 3), 3, false, 260, 400});
        list.push_back(
            {K::simt, f32, "f32", 128, 128, 16, 256, 4, element_ring_bytes(128, 128, 16, 4, 4), 2, false, 54, 1200});
        list.push_back(
            {K::simt, f32, "f32", 64, 64, 16, 128, 4, element_ring_bytes(64, 64, 16, 4, 4), 3, false, 46, 800});
        list.push_back(
            {K::mma, f64, "f64", 64, 64, 16, 128, 3, element_ring_bytes(64, 64, 16, 8, 3), 3, false, 50, 900});
        list.push_back({K::plain, f32, "f32", 32, 32, 32, 256, 1, 0, 3, false, 24, 1300});
        list.push_back({K::plain, f64, "f64", 32, 32, 32, 256, 1, 0, 2, false, 12, 1500});
        list.push_back({K::plain, DType::f16, "f16", 32, 32, 32, 256, 1, 0, 3, false, 24, 1300});
        list.push_back({K::plain, DType::bf16, "bf16", 32, 32, 32, 256, 1, 0, 3, false, 24, 1300});
        return list;
    }();
    return kernels;
}

std::vector<std::pair<std::string, std::string>> matmul_kernel_names() {
    std::vector<std::pair<std::string, std::string>> names;
    for (const MatmulKernel& kernel : matmul_kernels())
        for (int layout = 0; layout < 4; ++layout) {
            const bool a = layout < 2, b = layout % 2 == 0;
            if (kernel.only_k_major_a && !a) continue;
            const std::pair<std::string, std::string> name(kernel_name(kernel, a, b), fatbin_name(kernel));
            if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
        }
    for (const char* element : {"f32", "f64", "f16", "bf16"})
        names.emplace_back(std::string("matmul_reduce_") + element, "matmul_reduce");
    return names;
}

std::vector<MatmulPlan> enumerate_matmul(const MatmulProblem& p, const Gpu& gpu) {
    constexpr int kSplits[] = {1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64};
    constexpr int64_t kMostWorkspace = int64_t{256} << 20;
    constexpr int64_t kMostTiles = (int64_t{1} << 31) - 1;
    std::vector<MatmulPlan> plans;
    for (const MatmulKernel& kernel : matmul_kernels()) {
        if (!serves(kernel, p) || kernel.shared > gpu.shared_per_block) continue;
        if (!p.only.empty() && kernel_name(kernel, p.a.k_major, p.b.k_major).find(p.only) == std::string::npos)
            continue;
        const int64_t tiles_m = ceil_div(p.m, kernel.m), tiles_n = ceil_div(p.n, kernel.n);
        if (tiles_m > kMostTiles || tiles_n > kMostTiles / std::max<int64_t>(tiles_m, 1)) continue;
        int64_t last_per_split = -1;
        for (const int wanted : kSplits) {
            MatmulPlan plan;
            // Splits end at whole tiles of k, and each has at least four of them.
            plan.k_per_split = wanted == 1 ? p.k : ceil_div(ceil_div(p.k, wanted), kernel.k) * kernel.k;
            if (wanted > 1) {
                if (!p.may_split || plan.k_per_split < 4 * kernel.k || plan.k_per_split == last_per_split) continue;
                plan.splits = static_cast<int>(ceil_div(p.k, plan.k_per_split));
                if (plan.splits < 2) continue;
                const int64_t number = p.dtype == DType::f64 ? 8 : 4;
                plan.workspace_pitch = ceil_div(p.n, 4) * 4;
                const double bytes = static_cast<double>(plan.splits) * static_cast<double>(p.batches) *
                                     static_cast<double>(p.m) * static_cast<double>(plan.workspace_pitch * number);
                if (bytes > static_cast<double>(kMostWorkspace)) continue;
                plan.workspace_bytes = plan.splits * p.batches * p.m * plan.workspace_pitch * number;
            }
            last_per_split = plan.k_per_split;
            plan.kernel = &kernel;
            plan.tiles_m = static_cast<int>(tiles_m), plan.tiles_n = static_cast<int>(tiles_n);
            // Blocks that run together should cover a square of the output.
            const int wave = gpu.multiprocessors * kernel.blocks;
            const int rows = static_cast<int>(std::lround(std::sqrt(static_cast<double>(wave) * kernel.n / kernel.m)));
            plan.group = static_cast<int>(std::clamp<int64_t>(rows, 1, std::max<int64_t>(tiles_m, 1)));
            plan.group = std::min(plan.group, 16);
            plan.a_k_major = p.a.k_major, plan.b_k_major = p.b.k_major;
            plan.a_access = access_of(kernel, p.a), plan.b_access = access_of(kernel, p.b);
            plan.clocks = estimate(kernel, p, gpu, plan);
            plans.push_back(std::move(plan));
        }
    }
    return plans;
}

MatmulPlan plan_matmul(const MatmulProblem& problem, const Gpu& gpu) {
    std::vector<MatmulPlan> plans = enumerate_matmul(problem, gpu);
    if (plans.empty()) return {};
    return *std::min_element(plans.begin(), plans.end(),
                             [](const MatmulPlan& x, const MatmulPlan& y) { return x.clocks < y.clocks; });
}

std::string MatmulPlan::name() const { return kernel_name(*kernel, a_k_major, b_k_major); }
std::string MatmulPlan::fatbin() const { return fatbin_name(*kernel); }

std::string MatmulPlan::describe() const {
    if (kernel == nullptr) return "none";
    std::ostringstream s;
    s << name() << " tile " << kernel->m << 'x' << kernel->n << 'x' << kernel->k << ", " << kernel->threads / 32
      << " warps, " << kernel->stages << (kernel->stages == 1 ? " stage, " : " stages, ") << kernel->shared
      << " bytes shared, grid " << static_cast<int64_t>(tiles_m) * tiles_n << " in groups of " << group << ", split "
      << splits << " (k " << k_per_split << "), loads of ";
    auto access = [&](int bytes) { bytes == 0 ? s << "single elements" : s << bytes << " bytes"; };
    access(a_access);
    s << " and ";
    access(b_access);
    if (workspace_bytes > 0) s << ", workspace " << workspace_bytes << " bytes";
    s << ", about " << static_cast<int64_t>(clocks) << " clocks";
    return s.str();
}

}  // namespace nk::plan
