#include "driver/launch.h"

#include <optional>

#include "driver/fail.h"
#include "driver/load.h"
#include "driver/stand_in.h"
#include "tensor/check.h"

namespace nk::driver {

namespace {

const DriverTable& need_table(const char* op) {
    const DriverTable* t = table();
    if (t == nullptr) fail_runtime(op, why_not());
    return *t;
}

int index_of(Device device) { return device.kind == Device::cuda ? device.index : 0; }

// Measures a launch for a trace that wants times: what the stream did before is waited for, and then the launch itself.
class TimedLaunch {
  public:
    TimedLaunch(const DriverTable& t, Stream stream) : table_(t), stream_(stream) {
        if (!trace::times()) return;
        wait();
        timed_.emplace(trace::last());
    }
    ~TimedLaunch() {
        if (timed_) wait();
    }
    TimedLaunch(const TimedLaunch&) = delete;
    TimedLaunch& operator=(const TimedLaunch&) = delete;

  private:
    void wait() const {
        if (table_.cuStreamSynchronize != nullptr) table_.cuStreamSynchronize(stream_);
    }
    const DriverTable& table_;
    Stream stream_;
    std::optional<trace::Timed> timed_;  // destroyed after the wait
};

std::string launch_text(const Launch& l, Describe describe, const void* context) {
    return concat("kernel ", l.kernel, " <<<(", l.grid[0], ", ", l.grid[1], ", ", l.grid[2], "), (", l.block[0], ", ",
                  l.block[1], ", ", l.block[2], "), ", l.shared, " bytes>>> on ", to_string(l.device),
                  describe ? " with " : "", describe ? describe(context) : "");
}

// What a kernel has to be allowed before it is launched like this, once.
void allow(const DriverTable& t, DeviceState& d, Kernel& k, const Launch& l, Describe describe, const void* context) {
    const unsigned blocks = l.cluster[0] * l.cluster[1] * l.cluster[2];
    const bool shared = l.shared > k.shared, cluster = blocks > 8 && !k.any_cluster;
    if (!shared && !cluster) return;
    const RelaxedCapture relaxed(t);
    if (shared) {
        NK_DEVICE_CALL(t, l.op, d, launch_text(l, describe, context),
                       t.cuKernelSetAttribute(kMaxDynamicShared, static_cast<int>(l.shared), k.function, d.id));
        k.shared = l.shared;
    }
    if (cluster) {
        NK_DEVICE_CALL(t, l.op, d, launch_text(l, describe, context),
                       t.cuKernelSetAttribute(kAnyClusterSize, 1, k.function, d.id));
        k.any_cluster = true;
    }
}

Result launch_extended(const DriverTable& t, const Launch& l, Function f, void** arguments) {
    LaunchAttribute attributes[2];
    unsigned count = 0;
    if (l.cluster[0] != 0) {
        attributes[count].id = LaunchAttribute::cluster;
        std::copy(l.cluster, l.cluster + 3, attributes[count++].value);
    }
    if (l.overlaps_former) {
        attributes[count].id = LaunchAttribute::overlaps_former;
        attributes[count++].value[0] = 1;
    }
    const LaunchConfig config{
        {l.grid[0], l.grid[1], l.grid[2]}, {l.block[0], l.block[1], l.block[2]}, l.shared, l.stream, attributes, count};
    return t.cuLaunchKernelEx(&config, f, arguments, nullptr);
}

// The streams that mean another one in each context: null, and CUDA's names for the legacy and the thread's own.
bool is_of_context(Stream stream) { return reinterpret_cast<uintptr_t>(stream) <= 2; }

}  // namespace

thread_local const char* title = nullptr;

void check_device(const char* op, Device on) { device(op, index_of(on)).check(op); }

const char* variant(const char* fatbin, Device on) {
    const DeviceState& d = device("cuda", index_of(on));
    return d.folder->variant(fatbin, d.info.capability());
}

void load_kernel(const char* op, const char* fatbin, const char* kernel, Device on) {
    DeviceState& d = device(op, index_of(on));
    d.check(op);
    find(need_table(op), op, d, fatbin, kernel);
}

void launch(const Launch& given, void** arguments, Describe describe, const void* context) {
    Launch what = given;
    what.op = titled(given.op);
    const DriverTable& t = need_table(what.op);
    DeviceState& d = device(what.op, index_of(what.device));
    d.check(what.op);
    const bool extended = what.cluster[0] != 0 || what.overlaps_former;
    if (extended && t.cuLaunchKernelEx == nullptr)
        fail_runtime(what.op, "the CUDA driver has no cuLaunchKernelEx, which launches clusters");
    Kernel& k = find(t, what.op, d, what.fatbin, what.kernel);
    allow(t, d, k, what, describe, context);
    // A library's kernel runs in the context of its stream, whichever is current.
    std::optional<ContextGuard> guard;
    if (is_of_context(what.stream)) guard.emplace(t, what.op, d);
    const EmulatedLaunch emulated;
    const TimedLaunch timed(t, what.stream);
    d.remember(k);
    const char* call = extended ? "cuLaunchKernelEx" : "cuLaunchKernel";
    const Result r = extended
                         ? launch_extended(t, what, k.function, arguments)
                         : t.cuLaunchKernel(k.function, what.grid[0], what.grid[1], what.grid[2], what.block[0],
                                            what.block[1], what.block[2], what.shared, what.stream, arguments, nullptr);
    if (r != 0) d.fail(t, what.op, launch_text(what, describe, context), call, r, __FILE__, __LINE__);
}

}  // namespace nk::driver
