// The CUDA driver API as a table of function pointers. Nothing here needs CUDA's headers or a driver to build:
// the few types are declared below, and the table is filled from libcuda.so.1 when it is first asked for.
// A second table, an emulator's, stands in for it within `emulate()`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "context/context.h"

namespace nk::driver {

using Result = int;      // CUresult; 0 is success
using DeviceId = int;    // CUdevice
using Context = void*;   // CUcontext
using Library = void*;   // CUlibrary
using Function = void*;  // CUkernel, which is launched as a CUfunction is, on the context of the launch's stream
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
enum FunctionAttribute : int { kMaxDynamicShared = 8, kAnyClusterSize = 14 };
enum CaptureMode : int { kCaptureRelaxed = 2 };

// CUlaunchConfig, and the CUlaunchAttributes in use.
struct alignas(8) LaunchAttribute {
    enum Id : int { cluster = 4, overlaps_former = 6 } id;
    int unused = 0;
    unsigned value[16] = {};
};
struct LaunchConfig {
    unsigned grid[3], block[3];
    unsigned shared;
    Stream stream;
    const LaunchAttribute* attributes;
    unsigned attribute_count;
};

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
    X(cuCtxGetDevice, (DeviceId * device))                                                                       \
    X(cuCtxSynchronize, ())                                                                                      \
    X(cuThreadExchangeStreamCaptureMode, (CaptureMode * mode))                                                   \
    X(cuLibraryLoadData, (Library * library, const void* image, void* jit_options, void* jit_values,             \
                          unsigned jit_count, void* options, void* values, unsigned count))                      \
    X(cuLibraryGetKernel, (Function * kernel, Library library, const char* name))                                \
    X(cuKernelGetFunction, (Function * in_context, Function kernel))                                             \
    X(cuKernelSetAttribute, (FunctionAttribute attribute, int value, Function kernel, DeviceId device))          \
    X(cuLaunchKernel,                                                                                            \
      (Function function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y, \
       unsigned block_z, unsigned shared, Stream stream, void** params, void** extra))                           \
    X(cuMemHostRegister_v2, (void* memory, size_t bytes, unsigned flags))                                        \
    X(cuMemHostUnregister, (void* memory))

// Those that a driver may lack (the first came with CUDA 13, the second with 12.4); null then.
#define NK_DRIVER_OPTIONAL(X)                                                                                         \
    X(cuMemDiscardBatchAsync,                                                                                         \
      (uint64_t* addresses, size_t* bytes, size_t count, unsigned long long flags, Stream stream))                    \
    X(cuFuncLoad, (Function in_context))                                                                              \
    X(cuLaunchKernelEx, (const LaunchConfig* config, Function function, void** params, void** extra))                 \
    X(cuStreamSynchronize, (Stream stream))                                                                           \
    X(cuTensorMapEncodeTiled,                                                                                         \
      (void* map, int element, unsigned dims, void* data, const uint64_t* sizes, const uint64_t* strides,             \
       const unsigned* box, const unsigned* steps, int interleave, int swizzle, int promotion, int fill))             \
    X(cuTensorMapEncodeIm2col,                                                                                        \
      (void* map, int element, unsigned dims, void* data, const uint64_t* sizes, const uint64_t* strides,             \
       const int* lower, const int* upper, unsigned channels, unsigned pixels, const unsigned* steps, int interleave, \
       int swizzle, int promotion, int fill))

struct DriverTable {
#define NK_MEMBER(name, arguments) Result(*name) arguments = nullptr;
    NK_DRIVER_FUNCTIONS(NK_MEMBER)
    NK_DRIVER_OPTIONAL(NK_MEMBER)
#undef NK_MEMBER
};

// The table in force in the running context, initialised; null when there is no driver, and then `why_not()` says why.
// Needs the interpreter lock.
const DriverTable* table();
const std::string& why_not();

// Whether the emulator's is in force: kernels then work on the host's memory.
inline bool is_emulated() { return context::settings().emulates(); }

// Fills a table from a library that exports CUDA's functions; says what is missing, or nothing.
std::string resolve(void* library, DriverTable& to);

// "13.0" of 13000, as cuDriverGetVersion says it.
std::string version_text(int version);

// Takes this library for CUDA's driver from the next call on, instead of libcuda.so.1 ("").
void use_driver(std::string path);

}  // namespace nk::driver
