// What this process knows of a device: what it is, whether our kernels run there, which of them are loaded, and whether
// it is lost.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "driver/folder.h"
#include "driver/table.h"

namespace nk::driver {

struct DeviceInfo {
    std::string name;
    int major = 0, minor = 0;  // compute capability
    int multiprocessors = 0;
    int shared_per_block = 0;  // bytes, the most that a kernel may ask for
    int shared_per_multiprocessor = 0;
    int l2_bytes = 0;

    int capability() const { return 10 * major + minor; }
};

// A kernel on one device, there for good.
struct Kernel {
    std::string fatbin, name;
    Function function = nullptr;
    std::atomic<unsigned> shared = 48 * 1024;  // the dynamic shared memory that the driver allows without being asked
    std::atomic<bool> any_cluster = false;     // of more than eight blocks, likewise
};

struct KernelName {
    std::string_view fatbin, name;
    bool operator==(const KernelName&) const = default;
};
struct KernelHash {
    size_t operator()(const KernelName& k) const {
        return std::hash<std::string_view>()(k.name) * 31 + std::hash<std::string_view>()(k.fatbin);
    }
};

class DeviceState {
  public:
    const int index;
    const bool emulated;
    DeviceId id = 0;
    DeviceInfo info;
    std::shared_ptr<const KernelFolder> folder;
    std::string missing;  // why our kernels don't run there; empty where they do

    // Held while kernels are loaded, which takes as long as a compilation: waited for without the interpreter lock.
    std::mutex loading;
    std::unordered_map<std::string, Library> libraries;  // needs `loading`

    DeviceState(int i, bool of_emulator) : index(i), emulated(of_emulator) {}
    std::string text() const;  // "cuda:0 (its name)"

    // Null until it is loaded.
    Kernel* find(std::string_view fatbin, std::string_view name);
    Kernel& add(std::unique_ptr<Kernel> kernel);
    // The one that torch uses, made where it is not there yet.
    Context primary(const DriverTable& t, const char* op);

    // The last launches, for the message of a device that is lost.
    void remember(const Kernel& kernel) { last_[launches_++ % last_.size()] = &kernel; }
    // A call failed: RuntimeError, as of `fail_call`. One that ends all use of the device says so at length the first
    // time, and from then on `check` does, briefly.
    [[noreturn]] void fail(const DriverTable& t, const char* op, const std::string& what, const char* call, Result r,
                           const char* file, int line);
    // Throws where our kernels don't run there, or it is lost.
    void check(const char* op) const {
        if (!missing.empty() || lost_.load(std::memory_order_relaxed)) refuse(op);
    }
    // At length; nothing where it is not. Waits for what was launched.
    std::string why_lost(const DriverTable& t);

  private:
    [[noreturn]] void refuse(const char* op) const;
    bool mark_lost(const DriverTable& t, const char* call, Result r);  // whether it was not known

    std::mutex mutex_;
    std::unordered_map<KernelName, std::unique_ptr<Kernel>, KernelHash> kernels_;
    Context primary_ = nullptr;
    std::array<std::atomic<const Kernel*>, 8> last_ = {};
    std::atomic<unsigned> launches_ = 0;
    std::atomic<bool> lost_ = false;
    std::string why_lost_, briefly_;  // set before `lost_`, and for good
};

// A call of the driver that works on a device.
#define NK_DEVICE_CALL(t, op, device, what, call)                             \
    do {                                                                      \
        if (const ::nk::driver::Result nk_result = (call); nk_result != 0)    \
            (device).fail(t, op, what, #call, nk_result, __FILE__, __LINE__); \
    } while (false)

// Where the fatbins lie: <dir>/<fatbin>.fatbin.
void set_kernel_dir(std::string dir);
const std::string& kernel_dir();
const KernelFolder& kernel_folder();

// Number of devices that can be launched on; 0 with no driver.
int device_count();

// Of the driver in force. Throws RuntimeError when there is no such device. Read once per device.
DeviceState& device(const char* op, int index);
const DeviceInfo& device_info(int index);

// Those known so far of CUDA's driver.
std::vector<DeviceState*> known_devices();

// What was read of devices and folders is read anew.
void forget_devices();

// Makes a context of the device current, if none is, and puts the former one back; another one of that device, such as
// a green context, stays.
class ContextGuard {
  public:
    ContextGuard(const DriverTable& t, const char* op, DeviceState& d);
    ~ContextGuard();
    ContextGuard(const ContextGuard&) = delete;
    ContextGuard& operator=(const ContextGuard&) = delete;

  private:
    const DriverTable& table_;
    Context former_ = nullptr;
    bool switched_ = false;
};

}  // namespace nk::driver
