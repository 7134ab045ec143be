#include "driver/device.h"

#include <array>

#include "driver/fail.h"
#include "tensor/check.h"

namespace nk::driver {

namespace {

constexpr int kMostDevices = 128;

std::mutex mutex;
std::string dir;
std::shared_ptr<const KernelFolder> folder;  // of `dir`, once it is asked for
// CUDA's, and the emulator's. Former ones are kept: whoever launches holds no lock.
std::array<std::atomic<DeviceState*>, kMostDevices> slots[2];

// Why kernels of this folder don't run there, or nothing.
std::string why_missing(const DriverTable& t, const DeviceInfo& info, const KernelFolder& f, bool emulated) {
    const int capability = info.capability();
    if (!f.has_kernels) return "built without the CUDA kernels";
    if (!f.ptx.compiles_ptx(capability))
        return concat("it has compute capability ", info.major, ".", info.minor, ", the kernels need ",
                      f.ptx.number / 10, ".", f.ptx.number % 10, f.ptx.exact ? "" : " or later");
    int version = 0;
    if (emulated || f.toolkit == 0 || t.cuDriverGetVersion(&version) != 0 || version >= f.toolkit) return "";
    bool all_compiled = version / 1000 == f.toolkit / 1000;  // machine code runs on all drivers of a major version
    for (const auto& [name, fatbin] : f.fatbins)
        all_compiled = all_compiled && (fatbin.ptx.exact || fatbin.runs_machine_code(capability));
    if (all_compiled) return "";
    return concat("the driver is that of CUDA ", version_text(version), ", the kernels were compiled by nvcc ",
                  version_text(f.toolkit), " and need the driver of CUDA ", version_text(f.toolkit), " or later");
}

std::shared_ptr<const KernelFolder> current_folder() {  // needs the mutex
    if (folder == nullptr) folder = std::make_shared<KernelFolder>(dir);
    return folder;
}

}  // namespace

std::string DeviceState::text() const { return concat("cuda:", index, " (", info.name, ")"); }

Kernel* DeviceState::find(std::string_view fatbin, std::string_view name) {
    const std::lock_guard lock(mutex_);
    const auto it = kernels_.find({fatbin, name});
    return it == kernels_.end() ? nullptr : it->second.get();
}

Kernel& DeviceState::add(std::unique_ptr<Kernel> kernel) {
    const std::lock_guard lock(mutex_);
    const KernelName name{kernel->fatbin, kernel->name};  // its own strings
    return *(kernels_[name] = std::move(kernel));
}

Context DeviceState::primary(const DriverTable& t, const char* op) {
    Context made = nullptr;
    {
        const std::lock_guard lock(mutex_);
        if (primary_ != nullptr) return primary_;
    }
    NK_DEVICE_CALL(t, op, *this, text(), t.cuDevicePrimaryCtxRetain(&made, id));
    const std::lock_guard lock(mutex_);
    return primary_ = made;
}

bool DeviceState::mark_lost(const DriverTable& t, const char* call, Result r) {
    const std::lock_guard lock(mutex_);
    if (lost_) return false;
    std::string names;
    const unsigned count = launches_, most = static_cast<unsigned>(last_.size());
    for (unsigned back = 1; back <= std::min(count, most); ++back)
        if (const Kernel* k = last_[(count - back) % most]) names += (names.empty() ? "" : ", ") + k->name;
    why_lost_ = concat(text(), " is lost to this process: ", function_of(call), " says ", error_text(t, r),
                       ". A launch did that, ours or another library's; our last ones there, latest first: ",
                       names.empty() ? "none" : names,
                       ". Start the process again; with CUDA_LAUNCH_BLOCKING=1 the launch itself is named.");
    briefly_ = concat(text(), " is lost to this process since ", error_text(t, r));
    lost_ = true;
    return true;
}

void DeviceState::fail(const DriverTable& t, const char* op, const std::string& what, const char* call, Result r,
                       const char* file, int line) {
    if (!is_sticky(r) || emulated) fail_call(t, op, what, call, r, file, line);
    if (mark_lost(t, call, r)) fail_runtime(op, why_lost_);
    refuse(op);
}

std::string DeviceState::why_lost(const DriverTable& t) {
    if (!lost_ && launches_ > 0) {
        const ContextGuard guard(t, "cuda", *this);
        if (const Result r = t.cuCtxSynchronize(); is_sticky(r)) mark_lost(t, "cuCtxSynchronize", r);
    }
    return lost_ ? why_lost_ : "";
}

void DeviceState::refuse(const char* op) const {
    if (!missing.empty()) fail_runtime(op, "our CUDA kernels don't run on ", text(), ": ", missing);
    fail_runtime(op, briefly_);
}

void set_kernel_dir(std::string path) {
    {
        const std::lock_guard lock(mutex);
        if (dir == path) return;
        dir = std::move(path);
    }
    forget_devices();
}

const std::string& kernel_dir() { return dir; }

const KernelFolder& kernel_folder() {
    const std::lock_guard lock(mutex);
    return *current_folder();
}

void forget_devices() {
    const std::lock_guard lock(mutex);
    folder.reset();
    for (auto& of_table : slots)
        for (auto& slot : of_table) slot = nullptr;
}

int device_count() {
    const DriverTable* t = table();
    int count = 0;
    return t != nullptr && t->cuDeviceGetCount(&count) == 0 ? std::min(count, kMostDevices) : 0;
}

DeviceState& device(const char* op, int index) {
    const bool emulated = is_emulated();
    if (index < 0 || index >= kMostDevices) fail_runtime(op, "there is no device cuda:", index);
    std::atomic<DeviceState*>& slot = slots[emulated][static_cast<size_t>(index)];
    if (DeviceState* known = slot.load(std::memory_order_acquire)) return *known;
    const DriverTable* table_in_force = table();
    if (table_in_force == nullptr) fail_runtime(op, why_not());
    const DriverTable& t = *table_in_force;
    const std::lock_guard lock(mutex);
    if (DeviceState* known = slot) return *known;
    auto fresh = std::make_unique<DeviceState>(index, emulated);
    const std::string what = concat("device cuda:", index);
    NK_DRIVER_CALL(t, op, what, t.cuDeviceGet(&fresh->id, index));
    char name[256] = "";
    NK_DRIVER_CALL(t, op, what, t.cuDeviceGetName(name, sizeof name, fresh->id));
    fresh->info.name = name;
    const auto read = [&](DeviceAttribute attribute, int& value) {
        NK_DRIVER_CALL(t, op, what, t.cuDeviceGetAttribute(&value, attribute, fresh->id));
    };
    read(kMajor, fresh->info.major);
    read(kMinor, fresh->info.minor);
    read(kMultiprocessors, fresh->info.multiprocessors);
    read(kSharedPerBlockOptin, fresh->info.shared_per_block);
    read(kSharedPerMultiprocessor, fresh->info.shared_per_multiprocessor);
    read(kL2Bytes, fresh->info.l2_bytes);
    fresh->folder = current_folder();
    fresh->missing = why_missing(t, fresh->info, *fresh->folder, emulated);
    slot.store(fresh.get(), std::memory_order_release);
    return *fresh.release();
}

const DeviceInfo& device_info(int index) { return device("cuda", index).info; }

std::vector<DeviceState*> known_devices() {
    std::vector<DeviceState*> found;
    for (const auto& slot : slots[0])
        if (DeviceState* d = slot) found.push_back(d);
    return found;
}

ContextGuard::ContextGuard(const DriverTable& t, const char* op, DeviceState& d) : table_(t) {
    DeviceId current = 0;
    if (t.cuCtxGetDevice(&current) == 0 && current == d.id) return;
    NK_DEVICE_CALL(t, op, d, "current context", t.cuCtxGetCurrent(&former_));
    NK_DEVICE_CALL(t, op, d, "current context", t.cuCtxSetCurrent(d.primary(t, op)));
    switched_ = true;
}

ContextGuard::~ContextGuard() {
    if (switched_) table_.cuCtxSetCurrent(former_);
}

}  // namespace nk::driver
