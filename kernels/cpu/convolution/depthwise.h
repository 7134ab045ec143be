// What csrc hands to the CPU's kernels for convolutions with few channels in a group.
//
// Each lane of a vector is a channel of what is made: the result, or the image in the data gradient. What such a
// channel reads is one channel of the source for each of `sources`, so that lanes never meet: weights, too, are vectors
// over channels. Rows of the source come through a ring of slots, as accumulators [column][lane] with their padding;
// only the way there and back knows dtypes, layouts and padding. Strides are in elements.
#pragma once

#include <cstdint>

#include "../../dtype.h"

namespace nk::cpu {

struct DepthwiseTensor {
    void* data = nullptr;
    int64_t image = 0, channel = 0, axis[3] = {};
};

// The rows of the source that each made row reads, with the tap that meets each: [start[i], start[i + 1]) of both.
struct DepthwiseAxis {
    int64_t made = 1, source = 1;
    int64_t slots = 1;  // of the source's rows that lie in the ring at once
    const int32_t *start = nullptr, *tap = nullptr, *at = nullptr;
};

// Columns first, first + step, ... of a made row: they share their taps, which read neighbours in the source.
struct DepthwisePhase {
    int32_t first, taps;
    int32_t weight;  // where its taps begin in a packed row of the weight
    int32_t from;    // place in a slot that its first tap reads for the first column
};

struct DepthwiseColumns {
    int64_t made = 0, source = 0;
    int64_t step = 1;                  // of a phase's columns
    int64_t stride = 1, dilation = 1;  // places in a slot from column to column, from tap to tap
    int64_t reach = 1;                 // places that the columns with one index in their phases read
    int64_t before = 0;                // places before the source's first column
    int64_t inner[2] = {0, 0};         // places that hold the source's columns in their order
    const int32_t* at = nullptr;       // the source's column at each place; -1: a zero
    const DepthwisePhase* phases = nullptr;
    int64_t phase_count = 0;
    const int32_t* order = nullptr;  // taps in the order of the packed weight
    // The made row has padding before and behind, which is added to the columns that it repeats; or null.
    const int32_t* fold = nullptr;
    int64_t fold_before = 0, folded = 0;  // columns before, columns of the tensor
};

struct DepthwiseShape {
    int64_t channels = 0;                // made
    int64_t per_group = 1, sources = 1;  // channel c reads (c / per_group) * sources + 0, 1, ...
    DepthwiseAxis axis[2];               // depth, height
    DepthwiseColumns columns;
    int64_t taps[3] = {1, 1, 1};

    int64_t all_taps() const { return taps[0] * taps[1] * taps[2]; }
};

// Vectors [v0, v1) of channels, rows [r0, r1) of all depths, columns whose index in their phase is in [j0, j1).
struct DepthwisePart {
    int64_t image = 0, v0 = 0, v1 = 0, r0 = 0, r1 = 0, j0 = 0, j1 = 0;
    int64_t band = 1;  // rows that are made together
    char* work = nullptr;
    int64_t work_tags = 0, work_reads = 0, work_made = 0, work_other = 0;  // offsets; slots come first
};

// made = act(source * weight + bias) + residual; preact receives what goes into act. Pointers may be null.
struct DepthwiseTask {
    DepthwiseShape shape;
    DepthwiseTensor made, source, preact, residual;
    const void* weight = nullptr;  // packed
    const void* bias = nullptr;
    int64_t bias_step = 1;
    void (*activate)(void* x, int64_t n, int activation, const double* p) = nullptr;
    int activation = 0;
    double p[2] = {0, 0};
    bool past = false;  // channels last: written past the caches
};

// The weight of vectors [v0, v1) as accumulators [vector][source][depth][height][place in order][lane].
struct DepthwisePack {
    const void* data;
    int64_t made, source;  // strides of the made channel's axis, of the other
    bool image_made;       // the made channels are the image's, the weight's second axis
    int64_t axis[3];
    void* to;
};

// The sums over images and rows [r0, r1) of all images, in the packed order with taps in theirs; made: the gradient.
struct DepthwiseWeightTask {
    DepthwiseShape shape;
    DepthwiseTensor made, source;
};

struct DepthwiseRead {
    int64_t x, w;
};

struct DepthwiseEntries {
    int lanes[kFloatTypes];  // channels in a vector
    void (*pack[kFloatTypes])(const DepthwiseShape&, const DepthwisePack&, int64_t v0, int64_t v1);
    void (*run[kFloatTypes])(const DepthwiseTask&, const DepthwisePart&);
    // sums[vector - v0][source][taps][lane] of a part, whose rows are counted over all images
    void (*weight[kFloatTypes])(const DepthwiseWeightTask&, const DepthwisePart&, void* sums);
    // gw of vectors [v0, v1): parts of sums `apart` accumulators from each other, each [vector][source][taps][lane].
    void (*weight_finish[kFloatTypes])(const DepthwiseShape&, const DepthwisePack&, int64_t v0, int64_t v1, void* sums,
                                       int64_t parts, int64_t apart);
    // Channels side by side in source and made: in place. Null where there are none; no activation, no residual.
    int last_lanes[kFloatTypes];
    bool (*last_serves[kFloatTypes])(int64_t taps, int64_t stride, int64_t channels);  // of one phase
    void (*last_pack[kFloatTypes])(const DepthwiseShape&, const DepthwisePack&, int64_t v0, int64_t v1);
    void (*last_run[kFloatTypes])(const DepthwiseTask&, const DepthwisePart&);
    bool (*last_weight_serves[kFloatTypes])(int64_t taps, int64_t stride, int64_t channels);
    // As `weight`, but sums are those of all channels, vectors `lanes` wide.
    void (*last_weight[kFloatTypes])(const DepthwiseWeightTask&, const DepthwisePart&, void* sums);
};

}  // namespace nk::cpu
