// Runs the launches of csrc/activation, csrc/softmax and the bias gradient on kernels compiled for the CPU. It takes
// the place of csrc/driver, so that what is tested is everything from the views to the last store.
#include <dlfcn.h>
#include <ucontext.h>

#include <cstdlib>
#include <stdexcept>
#include <vector>

#include "activation/cuda.h"
#include "call/trace.h"
#include "cuda.h"
#include "driver/launch.h"
#include "kernels/cuda/activation/params.h"
#include "kernels/cuda/softmax/params.h"
#include "matmul/call.h"
#include "softmax/call.h"
#include "tensor/scratch.h"

Uint3 threadIdx, blockIdx, blockDim, gridDim;

namespace {

constexpr int kMaxThreads = 1024, kWarp = 32;
constexpr size_t kStackBytes = 96 * 1024;

enum class Waits { no, at_barrier, in_warp, done };

struct Fiber {
    ucontext_t context;
    Waits waits;
};

ucontext_t scheduler;
Fiber fibers[kMaxThreads];
std::vector<char> stacks(kMaxThreads* kStackBytes);
char lanes[kMaxThreads][16];
int running = 0, threads = 0;
void (*body)(const void*) = nullptr;
const void* argument = nullptr;

void leave(Waits waits) {
    const int me = running;
    fibers[me].waits = waits;
    swapcontext(&fibers[me].context, &scheduler);
}

void run_fiber() {
    body(argument);
    leave(Waits::done);
}

// Lets `first .. last - 1` go on once all wait for the same thing. A thread that has ended never comes: a bug.
bool release(int first, int last, Waits what) {
    int waiting = 0, done = 0;
    for (int i = first; i < last; ++i) waiting += fibers[i].waits == what, done += fibers[i].waits == Waits::done;
    if (waiting == 0 || waiting + done < last - first) return false;
    if (done > 0) throw std::runtime_error("some threads wait for others that have ended");
    for (int i = first; i < last; ++i) fibers[i].waits = Waits::no;
    return true;
}

void run_block() {
    for (int i = 0; i < threads; ++i) {
        getcontext(&fibers[i].context);
        fibers[i].context.uc_stack.ss_sp = &stacks[i * kStackBytes];
        fibers[i].context.uc_stack.ss_size = kStackBytes;
        makecontext(&fibers[i].context, run_fiber, 0);
        fibers[i].waits = Waits::no;
    }
    for (bool alive = true; alive;) {
        bool moved = false;
        alive = false;
        for (int i = 0; i < threads; ++i) {
            if (fibers[i].waits == Waits::done) continue;
            alive = true;
            if (fibers[i].waits != Waits::no) continue;
            moved = true;
            running = i;
            threadIdx = {static_cast<unsigned>(i), 0, 0};
            swapcontext(&scheduler, &fibers[i].context);
        }
        for (int w = 0; w < threads; w += kWarp) moved |= release(w, w + kWarp, Waits::in_warp);
        moved |= release(0, threads, Waits::at_barrier);
        if (alive && !moved) throw std::runtime_error("the block waits for ever");
    }
}

int multiprocessors = 1;
std::string report;

template <class Params>
void set_body(void* kernel, void* params) {
    static void (*typed)(Params) = nullptr;
    typed = reinterpret_cast<void (*)(Params)>(kernel);
    body = [](const void* p) { typed(*static_cast<const Params*>(p)); };
    argument = params;
}

}  // namespace

void __syncthreads() { leave(Waits::at_barrier); }

void exchange_in_warp(const void* mine, void* theirs, int lane_xor, size_t size) {
    memcpy(lanes[running], mine, size);
    leave(Waits::in_warp);
    memcpy(theirs, lanes[running ^ lane_xor], size);
    leave(Waits::in_warp);
}

namespace nk {

void* current_stream(Device) { return nullptr; }
std::string shape_string(const TensorView&) { return "?"; }

Scratch allocate_scratch(const TensorView&, int64_t bytes) {
    Scratch s;
    s.bytes = (bytes + 63) / 64 * 64;
    s.owner = {aligned_alloc(64, s.bytes), free};
    s.data = memset(s.owner.get(), 0xff, s.bytes);  // NaN, whatever the type
    return s;
}

namespace trace {
bool enabled = true;
void record(Launch l) { report += l.kernel + ": " + l.plan + "\n"; }
}  // namespace trace

namespace driver {

const DeviceInfo& device_info(int) {
    static DeviceInfo info;
    info.multiprocessors = multiprocessors;
    return info;
}

void launch(const Launch& l, void** arguments, Describe, const void*) {
    const std::string name = l.kernel;
    void* kernel = dlsym(RTLD_DEFAULT, l.kernel);
    if (kernel == nullptr) throw std::runtime_error("there is no kernel " + name);
    const auto is = [&](const char* begin) { return name.rfind(begin, 0) == 0; };
    if (is("softmax_"))
        set_body<cuda::SoftmaxParams>(kernel, arguments[0]);
    else if (is("elementwise_finish"))
        set_body<cuda::FinishParams>(kernel, arguments[0]);
    else if (is("activation_prelu_rows"))
        set_body<cuda::PreluRowsParams>(kernel, arguments[0]);
    else if (is("activation_prelu_columns") || is("matmul_bias_backward") || is("matmul_column_sum"))
        set_body<cuda::ColumnParams>(kernel, arguments[0]);
    else
        set_body<cuda::ElementwiseParams>(kernel, arguments[0]);
    threads = static_cast<int>(l.block[0]);
    if (threads % kWarp != 0 || threads < kWarp || threads > kMaxThreads || l.grid[0] == 0 || l.grid[1] == 0 ||
        l.grid[1] > 65535)
        throw std::runtime_error("no device takes this launch of " + name);
    blockDim = {l.block[0], 1, 1};
    gridDim = {l.grid[0], l.grid[1], 1};
    for (unsigned y = 0; y < l.grid[1]; ++y)
        for (unsigned x = 0; x < l.grid[0]; ++x) {
            blockIdx = {x, y, 0};
            run_block();
        }
}

}  // namespace driver
}  // namespace nk

extern "C" {

struct FlatView {
    void* data;
    int32_t dtype, ndim;
    int64_t shape[12], stride[12];
};

// The launches since the last call, one "kernel: plan" a line; an error's text behind the last.
const char* take_report() {
    static std::string taken;
    taken.swap(report);
    report.clear();
    return taken.c_str();
}

// Runs `op` on views in the order of its C++ function; null for None. 0, or -1 with the reason in the report.
int run_op(const char* op, const FlatView* const* flat, int count, int id, double p0, double p1, int dim, int sms) {
    nk::TensorView views[6];
    const nk::TensorView* v[6] = {};
    for (int i = 0; i < count; ++i) {
        if (flat[i] == nullptr) continue;
        nk::TensorView& t = views[i];
        t.data = flat[i]->data, t.dtype = static_cast<nk::DType>(flat[i]->dtype), t.ndim = flat[i]->ndim;
        for (int d = 0; d < t.ndim; ++d) t.shape[d] = flat[i]->shape[d], t.stride[d] = flat[i]->stride[d];
        v[i] = &t;
    }
    multiprocessors = sms;
    const nk::cuda::ElementwiseArguments act{id, {p0, p1}};
    const std::string name = op;
    using namespace nk::cuda;
    try {
        if (name == "unary")
            unary(*v[0], *v[1], act);
        else if (name == "unary_backward")
            unary_backward(*v[0], *v[1], *v[2], act);
        else if (name == "unary_backward2")
            unary_backward2(*v[0], *v[1], *v[2], *v[3], act);
        else if (name == "gated")
            gated(*v[0], *v[1], *v[2], act);
        else if (name == "gated_backward")
            gated_backward(*v[0], *v[1], *v[2], *v[3], *v[4], act);
        else if (name == "prelu")
            prelu(*v[0], *v[1], *v[2]);
        else if (name == "prelu_backward")
            prelu_backward(*v[0], v[1], *v[2], *v[3], *v[4]);
        else if (name == "activation_bias_backward")
            activation_bias_backward({v[0], v[1], *v[2], v[3], id, {p0, p1}});
        else if (name == "softmax")
            softmax(*v[0], *v[1], dim, id);
        else if (name == "softmax_backward")
            softmax_backward(*v[0], *v[1], *v[2], dim, id);
        else
            throw std::runtime_error("there is no op " + name);
    } catch (const std::exception& e) {
        report += e.what();
        return -1;
    }
    return 0;
}

}  // extern "C"
