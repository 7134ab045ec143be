// What every position of a product reads along each axis: the lists that the CPU's kernels gather by.
#pragma once

#include <vector>

#include "convolution/problem.h"
#include "kernels/cpu/convolution/entries.h"

namespace nk::convolution {

inline constexpr double kCost = 0.012;  // nanoseconds of a multiplication, at the best

// Where a kernel puts or finds a tensor of five dims; null: nowhere.
cpu::ConvTarget target_of(const TensorView* t);

// The pixel that a padded image has at place `at`, or -1: a zero.
int64_t pixel_at(int64_t at, int64_t size, PaddingMode mode);

// One axis as a kernel wants it, and the memory of its lists.
struct Axis {
    cpu::ConvAxis kernel;
    std::vector<int32_t> lists;
    cpu::ConvPlaces place{};
    std::vector<int32_t> pixels;
};

// Of a result that reads an image.
Axis forward_axis(const Geometry& g, int k, int64_t stride);

// Of an image that reads a result: pixels first, first + step, ... whose taps are the same.
struct Phase {
    Axis axis;
    int64_t first = 0, step = 1;
    std::vector<int64_t> taps;
};
Phase image_phase(const Geometry& g, int k, int64_t phase, int64_t stride);

// Of pixels that read themselves.
Axis plain_axis(int64_t pixels, int64_t stride);

}  // namespace nk::convolution
