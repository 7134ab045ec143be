// What launchers share: kernel names, addresses, the device, a launch of one parameter struct.
#pragma once

#include <string>

#include "driver/launch.h"
#include "tensor/read.h"

namespace nk::cuda {

inline const char* short_name(DType t) {
    constexpr const char* names[] = {"f32", "f64", "f16", "bf16"};
    return names[static_cast<int>(t)];
}

inline void* at(const TensorView& t, int64_t elements) {
    return static_cast<char*>(t.data) + elements * size_of(t.dtype);
}

inline int multiprocessors(Device device) {
    return driver::device_info(device.kind == Device::cuda ? device.index : 0).multiprocessors;
}

template <class Params>
void launch(const char* op, const char* fatbin, const std::string& kernel, int64_t grid_x, int64_t grid_y,
            unsigned threads, Device device, const Params& params) {
    driver::Launch l;
    l.op = op;
    l.fatbin = fatbin;
    l.kernel = kernel.c_str();
    l.grid[0] = static_cast<unsigned>(grid_x);
    l.grid[1] = static_cast<unsigned>(grid_y);
    l.block[0] = threads;
    l.device = device;
    l.stream = current_stream(driver::titled(op), device);
    driver::launch(l, params);
}

}  // namespace nk::cuda
