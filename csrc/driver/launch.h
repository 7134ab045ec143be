// Launching a kernel by name: which fatbin it lies in, on which device and stream, and what to say when it fails.
#pragma once

#include <cstdint>
#include <string>

#include "driver/table.h"
#include "tensor/view.h"

namespace nk::driver {

struct DeviceInfo {
    std::string name;
    int major = 0, minor = 0;  // compute capability
    int multiprocessors = 0;
    int shared_per_block = 0;  // bytes, the most that a kernel may ask for
    int shared_per_multiprocessor = 0;
    int l2_bytes = 0;
};

// Where the fatbins lie: <dir>/<fatbin>.fatbin.
void set_kernel_dir(std::string dir);
const std::string& kernel_dir();

// Number of devices that can be launched on; 0 with no driver.
int device_count();

// Throws RuntimeError when there is no such device. Read once per device.
const DeviceInfo& device_info(int index);

// Whether tensors there are worked on by kernels launched here: on CUDA, and on the CPU within emulate().
inline bool launches_on(Device device) { return device.kind == Device::cuda || is_emulated(); }

// What messages call the op whose kernels are launched within the scope; null: as each launch says.
extern thread_local const char* title;
struct Titled {
    explicit Titled(const char* t) { title = t; }
    ~Titled() { title = nullptr; }
};

struct Launch {
    const char* op;      // for messages
    const char* fatbin;  // file name without folder and ending, "matmul_plain"
    const char* kernel;  // extern "C" name
    unsigned grid[3] = {1, 1, 1};
    unsigned block[3] = {1, 1, 1};
    unsigned shared = 0;  // dynamic shared memory, bytes
    Device device = {};   // of the tensors; a CPU device means the emulator's
    Stream stream = nullptr;
};

// Says what the arguments were; called only when a launch fails.
using Describe = std::string (*)(const void* context);

// Launches with `arguments`, one pointer per kernel parameter. Throws RuntimeError with op, kernel, launch shape,
// CUDA error name and description; never ends the process.
void launch(const Launch& what, void** arguments, Describe describe = nullptr, const void* context = nullptr);

// The usual case: a kernel that takes one parameter struct.
template <class Params>
void launch(const Launch& what, const Params& params, Describe describe = nullptr, const void* context = nullptr) {
    void* arguments[] = {const_cast<Params*>(&params)};
    launch(what, arguments, describe, context);
}

}  // namespace nk::driver
