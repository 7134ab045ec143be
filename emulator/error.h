// What goes wrong in the emulator, with the code that the driver API has for it.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace emu {

enum Status : int {
    success = 0,
    invalid_value = 1,
    out_of_memory = 2,
    not_initialized = 3,
    no_device = 100,
    invalid_device = 101,
    invalid_image = 200,
    invalid_context = 201,
    no_binary_for_gpu = 209,
    invalid_ptx = 218,
    unsupported_ptx = 222,
    not_found = 500,
    illegal_address = 700,
    out_of_resources = 701,
    assertion = 710,
    misaligned_address = 716,
    launch_failed = 719,
    not_supported = 801,
    invalid_cluster_size = 912,
};

struct Error : std::runtime_error {
    Status code;
    Error(Status c, const std::string& text) : std::runtime_error(text), code(c) {}
};

template <class... Parts>
std::string concat(const Parts&... parts) {
    std::ostringstream s;
    (s << ... << parts);
    return s.str();
}

}  // namespace emu
