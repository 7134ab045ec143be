// What a failed call of the driver becomes, and what a device that is lost to the process says.
#pragma once

#include <string>

#include "driver/table.h"

namespace nk::driver {

// "CUDA_ERROR_NOT_FOUND (named symbol not found)"
std::string error_text(const DriverTable& t, Result r);

// "cuLaunchKernel" of "t.cuLaunchKernel(...)".
std::string function_of(const char* call);

// RuntimeError: "neurokern.<op>: <what>: <function of call> says <error> [csrc/driver/<file>:<line>]".
[[noreturn]] void fail_call(const DriverTable& t, const char* op, const std::string& what, const char* call, Result r,
                            const char* file, int line);

#define NK_DRIVER_CALL(t, op, what, call)                                               \
    do {                                                                                \
        if (const ::nk::driver::Result nk_result = (call); nk_result != 0)              \
            ::nk::driver::fail_call(t, op, what, #call, nk_result, __FILE__, __LINE__); \
    } while (false)

// Whether every later call will fail as well: what a kernel did has ended the context, and only a new process has
// another.
bool is_sticky(Result r);

}  // namespace nk::driver
