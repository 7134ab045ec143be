// The CUDA driver API as a table of function pointers. Nothing here needs CUDA's headers or a driver to build:
// the few types are declared below, and the table is filled from libcuda.so.1 when it is first asked for.
// The whole table can be replaced, so that an emulator can stand in for the driver.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace nk::driver {

using Result = int;      // CUresult; 0 is success
using DeviceId = int;    // CUdevice
using Context = void*;   // CUcontext
using Module = void*;    // CUmodule
using Function = void*;  // CUfunction
using Stream = void*;    // CUstream

// CUdevice_attribute and CUfunction_attribute, with the numbers that the driver gives them.
enum DeviceAttribute : int {
    kWarpSize = 10,
    kMultiprocessors = 16,
    kL2Bytes = 38,
    kMajor = 75,
    kMinor = 76,
    kSharedPerMultiprocessor = 81,
    kSharedPerBlockOptin = 97,
};
enum FunctionAttribute : int { kMaxDynamicShared = 8 };

// X(name, arguments): every driver function in use, in the order of the table.
#define NK_DRIVER_FUNCTIONS(X)                                                                                   \
    X(cuInit, (unsigned flags))                                                                                  \
    X(cuDriverGetVersion, (int* version))                                                                        \
    X(cuGetErrorName, (Result error, const char** name))                                                         \
    X(cuGetErrorString, (Result error, const char** text))                                                       \
    X(cuDeviceGetCount, (int* count))                                                                            \
    X(cuDeviceGet, (DeviceId * device, int ordinal))                                                             \
    X(cuDeviceGetName, (char* name, int length, DeviceId device))                                                \
    X(cuDeviceGetAttribute, (int* value, DeviceAttribute attribute, DeviceId device))                            \
    X(cuDevicePrimaryCtxRetain, (Context * context, DeviceId device))                                            \
    X(cuCtxGetCurrent, (Context * context))                                                                      \
    X(cuCtxSetCurrent, (Context context))                                                                        \
    X(cuModuleLoadData, (Module * module, const void* image))                                                    \
    X(cuModuleGetFunction, (Function * function, Module module, const char* name))                               \
    X(cuFuncSetAttribute, (Function function, FunctionAttribute attribute, int value))                           \
    X(cuLaunchKernel,                                                                                            \
      (Function function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y, \
       unsigned block_z, unsigned shared, Stream stream, void** params, void** extra))                           \
    X(cuMemHostRegister_v2, (void* memory, size_t bytes, unsigned flags))                                        \
    X(cuMemHostUnregister, (void* memory))

// Those that a driver may lack (this one came with CUDA 13); null then.
#define NK_DRIVER_OPTIONAL(X) \
    X(cuMemDiscardBatchAsync, \
      (uint64_t* addresses, size_t* bytes, size_t count, unsigned long long flags, Stream stream))

struct DriverTable {
#define NK_MEMBER(name, arguments) Result(*name) arguments = nullptr;
    NK_DRIVER_FUNCTIONS(NK_MEMBER)
    NK_DRIVER_OPTIONAL(NK_MEMBER)
#undef NK_MEMBER
};

// The table in force, initialised; null when there is no driver, and then `why_not()` says why.
const DriverTable* table();
const std::string& why_not();

// Puts another table in the place of the driver's, of which nothing is loaded yet; null: the driver's again.
void replace_table(const DriverTable* table);

// The same with the functions of a library that exports them, as libcuda.so.1 does. Throws when it can't be loaded.
void replace_library(const std::string& path);

// Whether another table is in force: kernels then work on the host's memory.
bool replaced();

// How often the table was replaced: caches of what came from an older table compare it.
unsigned generation();

}  // namespace nk::driver
