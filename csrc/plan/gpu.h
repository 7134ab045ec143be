// The numbers of a GPU that plans go by.
#pragma once

namespace nk::plan {

// What a plan needs to know of a GPU; the defaults are an H200's.
struct Gpu {
    int multiprocessors = 132;
    int shared_per_block = 227 * 1024;
    int shared_per_multiprocessor = 228 * 1024;
    int major = 9;
    bool operator==(const Gpu&) const = default;
};

}  // namespace nk::plan
