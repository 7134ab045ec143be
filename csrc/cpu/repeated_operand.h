// Broadcast operands that repeat soon (a weight for each channel): repeated once into a buffer, they are contiguous.
#pragma once

#include <cstdint>
#include <memory>

#include "tensor/index_space.h"

namespace nk::cpu {

// Elements after which tensor t of the space begins anew, when that is soon enough to be worth a buffer and the tensors
// [0, dense) are contiguous in the order of the space; else 0.
int64_t period_of(const IndexSpace& s, int dense, int t);

// A whole number of periods, long enough that a kernel's start does not show, and ending on a cache line if it can.
int64_t stretch_of(int64_t period);

// `stretch` elements of tensor t, whose first lies at `from`.
std::unique_ptr<char[]> repeated(const IndexSpace& s, int t, const void* from, int size, int64_t period,
                                 int64_t stretch);

}  // namespace nk::cpu
