#include "driver/fail.h"

#include <algorithm>
#include <iterator>

#include "tensor/check.h"

namespace nk::driver {

std::string error_text(const DriverTable& t, Result r) {
    const char *name = nullptr, *text = nullptr;
    t.cuGetErrorName(r, &name), t.cuGetErrorString(r, &text);
    return concat(name ? name : "CUDA error ", name ? "" : std::to_string(r), " (", text ? text : "no description",
                  ")");
}

std::string function_of(const char* call) {
    std::string function(call);
    function = function.substr(0, function.find('('));
    if (const size_t arrow = function.find_last_of(".>"); arrow != std::string::npos)
        function = function.substr(arrow + 1);
    return function;
}

void fail_call(const DriverTable& t, const char* op, const std::string& what, const char* call, Result r,
               const char* file, int line) {
    std::string source(file);
    source = source.substr(source.find_last_of('/') + 1);
    fail_runtime(op, what, ": ", function_of(call), " says ", error_text(t, r), " [csrc/driver/", source, ":", line,
                 "]");
}

bool is_sticky(Result r) {
    // illegal address, launch timeout, context destroyed, assert, hardware stack error, illegal instruction, misaligned
    // address, invalid address space, invalid pc, launch failed
    constexpr Result sticky[] = {700, 702, 709, 710, 714, 715, 716, 717, 718, 719};
    return std::find(std::begin(sticky), std::end(sticky), r) != std::end(sticky);
}

}  // namespace nk::driver
