// This family on CUDA: a thread for each element that is written, shuffles by the elementwise kernel that copies.
#include "context/context.h"
#include "cuda/elementwise.h"
#include "driver/kernel.h"
#include "kernels/cuda/rearrangement/params.h"
#include "plan/arithmetic.h"
#include "rearrangement/plan_pad.h"

namespace nk::rearrangement {

namespace {

constexpr int64_t kBlocksPerProcessor = 32;  // further elements are a thread's next ones
constexpr int64_t kMostNarrow = (int64_t{1} << 31) - 1;

// Of kernels whose numbers are below that of the elements or of these sizes.
template <class Params>
void launch(const char* op, const char* fatbin, const char* kernel, const TensorView& out, int64_t largest, Params& p) {
    p.count = out.numel();
    p.wide = std::max(p.count, largest) > kMostNarrow;
    const int64_t blocks = std::min(plan::ceil_div(p.count, cuda::kRearrangementThreads),
                                    kBlocksPerProcessor * cuda::multiprocessors(out.device));
    const std::string name = std::string(kernel) + "_" + cuda::short_name(out.dtype);
    if (trace::active())
        trace::record({op, "cuda", name,
                       concat(p.wide ? "64 bits, " : "32 bits, ", "grid ", blocks, " x ", cuda::kRearrangementThreads),
                       ""});
    cuda::launch(op, fatbin, name, blocks, 1, cuda::kRearrangementThreads, out.device, p);
}

void set_window(cuda::WindowParams& p, const Window& w) {
    for (int i = 0; i < 2; ++i) {
        p.kernel[i] = w.kernel[i], p.dilation[i] = w.dilation[i], p.padding[i] = w.padding[i],
        p.stride[i] = w.stride[i];
        p.image[i] = w.image[i], p.places[i] = w.places[i];
    }
}

}  // namespace

void run_cuda(const Copy& p) {
    cuda::elementwise({p.op, "rearrangement_copy", "rearrangement_copy"}, 1, {}, p.out, p.in);
}

void run_cuda(const Pad& p) {
    const std::vector<PadDim> dims = pad_dims(p.out, p.in, p.lo, false);
    cuda::PadParams a;
    a.out = p.out.data, a.in = p.in.data;
    a.ndim = static_cast<int32_t>(dims.size());
    a.mode = static_cast<int32_t>(p.mode);
    a.value = p.value;
    for (size_t d = 0; d < dims.size(); ++d) {
        a.size[d] = dims[d].size, a.n[d] = dims[d].n, a.lo[d] = dims[d].lo;
        a.to[d] = dims[d].to, a.from[d] = dims[d].from;
    }
    launch(p.op, "rearrangement_pad", "rearrangement_pad", p.out, 0, a);
}

void run_cuda(const PadBackward& p) {
    const std::vector<PadDim> dims = pad_dims(p.gx, p.g, p.lo, true);
    cuda::PadSumsParams a;
    a.out = p.gx.data, a.g = p.g.data;
    a.ndim = static_cast<int32_t>(dims.size());
    a.mode = static_cast<int32_t>(p.mode);
    int64_t before = 1;
    int padded = 0;
    for (size_t d = 0; d < dims.size(); ++d) {
        a.n[d] = dims[d].n, a.to[d] = dims[d].to;
        if (dims[d].padded()) {  // at most three in the modes that sum
            a.before[padded] = before;
            a.padded_n[padded] = dims[d].n, a.padded_size[padded] = dims[d].size, a.padded_lo[padded] = dims[d].lo;
            a.padded_from[padded++] = dims[d].from;
        } else {
            a.from[d] = dims[d].from;
        }
        before *= dims[d].n;
    }
    launch(p.op, "rearrangement_pad", "rearrangement_pad_sums", p.gx, 0, a);
}

void run_cuda(const Unfold& p) {
    cuda::WindowParams a;
    a.out = p.columns.data, a.in = p.image.data;
    a.channels = p.image.shape[1];
    set_window(a, p.window);
    std::copy_n(p.image.stride, 4, a.from);
    launch(p.op, "rearrangement_windows", "rearrangement_unfold", p.columns, 0, a);
}

void run_cuda(const Fold& p) {
    cuda::WindowParams a;
    a.out = p.image.data, a.in = p.columns.data;
    a.channels = p.image.shape[1];
    set_window(a, p.window);
    std::copy_n(p.columns.stride, 3, a.from);
    // what is divided by the stride is a pixel and the padding in front of it
    int64_t largest = 0;
    for (int i = 0; i < 2; ++i)
        largest = std::max({largest, p.window.image[i] + p.window.padding[i], p.window.stride[i]});
    launch(p.op, "rearrangement_windows", "rearrangement_fold", p.image, largest, a);
}

}  // namespace nk::rearrangement
