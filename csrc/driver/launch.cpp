#include "driver/launch.h"

#include <fstream>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <vector>

#include "driver/stand_in.h"
#include "tensor/check.h"

namespace nk::driver {

namespace {

struct LoadedModule {
    std::vector<char> image;  // kept: the driver may read it again when it compiles PTX lazily
    Module module = nullptr;
};

struct LoadedFunction {
    Function function = nullptr;
    unsigned shared = 48 * 1024;  // the dynamic shared memory that the driver allows it without asking
};

// What this process has loaded on one device, in its primary context (the one that torch uses).
struct DeviceState {
    DeviceInfo info;
    Context context = nullptr;
    std::unordered_map<std::string, LoadedModule> modules;
    std::unordered_map<std::string, LoadedFunction> functions;
};

std::mutex mutex;
std::string dir;
// By table: CUDA's own and the emulator's.
std::map<std::pair<const DriverTable*, int>, std::unique_ptr<DeviceState>> devices;

#define NK_DRIVER_CALL(op, what, call)                                                                   \
    do {                                                                                                 \
        if (const Result nk_result = (call); nk_result != 0) fail(op, what, #call, nk_result, __LINE__); \
    } while (false)

[[noreturn]] void fail(const char* op, const std::string& what, const char* call, Result r, int line) {
    const char *name = nullptr, *text = nullptr;
    if (const DriverTable* t = table()) t->cuGetErrorName(r, &name), t->cuGetErrorString(r, &text);
    std::string function(call);
    function = function.substr(0, function.find('('));
    if (const size_t arrow = function.find("->"); arrow != std::string::npos) function = function.substr(arrow + 2);
    fail_runtime(op, what, ": ", function, " says ", name ? name : "CUDA error ", name ? "" : std::to_string(r), " (",
                 text ? text : "no description", ") [csrc/driver/launch.cpp:", line, "]");
}

const DriverTable& need_table(const char* op) {
    const DriverTable* t = table();
    if (t == nullptr) fail_runtime(op, why_not());
    return *t;
}

// Needs the mutex.
DeviceState& state(const char* op, int index) {
    const DriverTable& t = need_table(op);
    std::unique_ptr<DeviceState>& s = devices[{&t, index}];
    if (s != nullptr) return *s;
    auto fresh = std::make_unique<DeviceState>();
    const std::string what = concat("device cuda:", index);
    DeviceId id = 0;
    NK_DRIVER_CALL(op, what, t.cuDeviceGet(&id, index));
    char name[256] = "";
    NK_DRIVER_CALL(op, what, t.cuDeviceGetName(name, sizeof name, id));
    fresh->info.name = name;
    auto read = [&](DeviceAttribute attribute, int& value) {
        NK_DRIVER_CALL(op, what, t.cuDeviceGetAttribute(&value, attribute, id));
    };
    read(kMajor, fresh->info.major);
    read(kMinor, fresh->info.minor);
    read(kMultiprocessors, fresh->info.multiprocessors);
    read(kSharedPerBlockOptin, fresh->info.shared_per_block);
    read(kSharedPerMultiprocessor, fresh->info.shared_per_multiprocessor);
    read(kL2Bytes, fresh->info.l2_bytes);
    NK_DRIVER_CALL(op, what, t.cuDevicePrimaryCtxRetain(&fresh->context, id));
    s = std::move(fresh);
    return *s;
}

// Makes a context current and puts the former one back.
class ContextGuard {
  public:
    ContextGuard(const DriverTable& t, const char* op, Context wanted) : table_(t) {
        NK_DRIVER_CALL(op, "current context", t.cuCtxGetCurrent(&former_));
        if (former_ == wanted) return;
        NK_DRIVER_CALL(op, "current context", t.cuCtxSetCurrent(wanted));
        switched_ = true;
    }
    ~ContextGuard() {
        if (switched_) table_.cuCtxSetCurrent(former_);
    }
    ContextGuard(const ContextGuard&) = delete;
    ContextGuard& operator=(const ContextGuard&) = delete;

  private:
    const DriverTable& table_;
    Context former_ = nullptr;
    bool switched_ = false;
};

std::vector<char> read_fatbin(const char* op, const std::string& path) {
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    if (!file)
        fail_runtime(op, "there is no ", path, ": this build of neurokern has no CUDA kernels (see `neurokern info`)");
    std::vector<char> bytes(static_cast<size_t>(file.tellg()));
    file.seekg(0);
    file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    if (!file) fail_runtime(op, "can't read ", path);
    return bytes;
}

// Needs the mutex and the device's context.
LoadedFunction& find_function(const DriverTable& t, DeviceState& s, const Launch& what) {
    LoadedFunction& f = s.functions[what.kernel];
    if (f.function != nullptr) return f;
    const std::string fatbin = concat("kernel ", what.kernel, " of ", what.fatbin, ".fatbin on ", s.info.name);
    LoadedModule& m = s.modules[what.fatbin];
    if (m.module == nullptr) {
        m.image = read_fatbin(what.op, concat(dir, "/", what.fatbin, ".fatbin"));
        NK_DRIVER_CALL(what.op, fatbin, t.cuModuleLoadData(&m.module, m.image.data()));
    }
    NK_DRIVER_CALL(what.op, fatbin, t.cuModuleGetFunction(&f.function, m.module, what.kernel));
    return f;
}

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

}  // namespace

void set_kernel_dir(std::string path) {
    const std::lock_guard lock(mutex);
    if (dir != path) devices.clear();  // their modules came from the other one
    dir = std::move(path);
}

const std::string& kernel_dir() { return dir; }

int device_count() {
    const DriverTable* t = table();
    int count = 0;
    return t != nullptr && t->cuDeviceGetCount(&count) == 0 ? count : 0;
}

const DeviceInfo& device_info(int index) {
    const std::lock_guard lock(mutex);
    return state("cuda", index).info;
}

thread_local const char* title = nullptr;

void launch(const Launch& given, void** arguments, Describe describe, const void* context) {
    Launch what = given;
    if (title != nullptr) what.op = title;
    const DriverTable& t = need_table(what.op);
    const std::lock_guard lock(mutex);
    DeviceState& s = state(what.op, what.device.kind == Device::cuda ? what.device.index : 0);
    const ContextGuard guard(t, what.op, s.context);
    LoadedFunction& f = find_function(t, s, what);
    if (what.shared > f.shared) {
        NK_DRIVER_CALL(what.op, launch_text(what, describe, context),
                       t.cuFuncSetAttribute(f.function, kMaxDynamicShared, static_cast<int>(what.shared)));
        f.shared = what.shared;
    }
    const EmulatedLaunch emulated;
    const TimedLaunch timed(t, what.stream);
    const Result r = t.cuLaunchKernel(f.function, what.grid[0], what.grid[1], what.grid[2], what.block[0],
                                      what.block[1], what.block[2], what.shared, what.stream, arguments, nullptr);
    if (r != 0) fail(what.op, launch_text(what, describe, context), "cuLaunchKernel", r, __LINE__);
}

}  // namespace nk::driver
