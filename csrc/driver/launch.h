// Launching a kernel by name: which fatbin it lies in, on which device and stream, and what to say when it fails.
#pragma once

#include <cstdint>
#include <string>

#include "driver/device.h"
#include "tensor/view.h"

namespace nk::driver {

// Whether tensors there are worked on by kernels launched here: on CUDA, and on the CPU within emulate().
inline bool launches_on(Device device) { return device.kind == Device::cuda || is_emulated(); }

// Throws RuntimeError where our kernels don't run there: an old device or driver, or one that is lost.
void check_device(const char* op, Device device);

// What messages call the op whose kernels are launched within the scope; null: as each launch says.
extern thread_local const char* title;
struct Titled {
    explicit Titled(const char* t) { title = t; }
    ~Titled() { title = nullptr; }
};

inline const char* titled(const char* op) { return title != nullptr ? title : op; }

struct Launch {
    const char* op;      // for messages
    const char* fatbin;  // file name without folder and ending, "matmul_plain"
    const char* kernel;  // extern "C" name
    unsigned grid[3] = {1, 1, 1};
    unsigned block[3] = {1, 1, 1};
    unsigned shared = 0;  // dynamic shared memory, bytes
    Device device = {};   // of the tensors; a CPU device means the emulator's
    Stream stream = nullptr;
    unsigned cluster[3] = {0, 0, 0};  // blocks of a cluster; 0: without clusters
    bool overlaps_former =
        false;  // may begin before the launch before it ends, and waits in the kernel (griddepcontrol)
};

// Says what the arguments were; called only when a launch fails.
using Describe = std::string (*)(const void* context);

// Launches with `arguments`, one pointer per kernel parameter. Throws RuntimeError with op, kernel, launch shape,
// CUDA error name and description; never ends the process.
void launch(const Launch& what, void** arguments, Describe describe = nullptr, const void* context = nullptr);

// The fatbin that has the kernels for this device: `fatbin`, or one for its architecture alone, if the build has it.
const char* variant(const char* fatbin, Device device);

// Loads it ahead of its first launch.
void load_kernel(const char* op, const char* fatbin, const char* kernel, Device device);

// The usual case: a kernel that takes one parameter struct.
template <class Params>
void launch(const Launch& what, const Params& params, Describe describe = nullptr, const void* context = nullptr) {
    void* arguments[] = {const_cast<Params*>(&params)};
    launch(what, arguments, describe, context);
}

}  // namespace nk::driver
