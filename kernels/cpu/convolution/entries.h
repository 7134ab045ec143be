// What csrc hands to the CPU's convolution kernels, the same for every instruction set.
//
// A convolution is a product of a weight and of pixels that are gathered from an image. One gathered operand serves all
// three products: for each pixel that is made (a position) and each place of the window (a tap), every axis has a list
// of the pixels that are read. Strides, dilation, padding of any mode and the phases of a strided data gradient are
// such lists, and the loops know of none of them.
#pragma once

#include <cstdint>

#include "../../convolution.h"
#include "../../dtype.h"
#include "depthwise.h"

namespace nk::cpu {

using convolution::kSpatial;

// Rows of a source that the weight gradient gathers at a time: whole tiles of at most so many, or the taps of a
// channel.
inline constexpr int64_t kConvRows = 64;

// Runs of memory that a window may consist of in a direct product.
inline constexpr int64_t kDirectRuns = 128;

// Positions whose sums it collects before it writes them, where the channels of a position lie apart.
inline constexpr int64_t kDirectAcross = 144;

struct ConvAxis {
    int64_t positions = 1, taps = 1;
    const int32_t* at = nullptr;  // [taps][positions]: the source's pixel; -1: a zero
    int64_t stride = 0;           // of the source, from a pixel to the next
    // For runs along the last axis: positions [first[t], last[t]) of tap t read pixels `step` apart.
    const int32_t *first = nullptr, *last = nullptr;
    int64_t step = 1;
    bool zeros = true;    // the other positions read zeros
    bool joined = false;  // tap t + 1 reads the pixel behind that of tap t
};

// A padded axis: what pixel each place of it has, or -1, a zero. Position p and tap t meet at place p * step +
// t * dilation.
struct ConvPlaces {
    const int32_t* pixel = nullptr;
    int64_t count = 0, step = 1, dilation = 1;
};

// The gathered operand: a row for each channel and tap, a column for each position of each image. Strides are in
// elements, here and below.
struct ConvSource {
    const void* data = nullptr;
    int64_t image = 0, channel = 0;
    int64_t channels = 0;
    ConvAxis axis[kSpatial];

    int64_t positions() const { return axis[0].positions * axis[1].positions * axis[2].positions; }
    int64_t taps() const { return axis[0].taps * axis[1].taps * axis[2].taps; }
    int64_t k() const { return channels * taps(); }
};

// Where positions of images lie; data may be null.
struct ConvTarget {
    void* data = nullptr;
    int64_t image = 0, channel = 0;
    int64_t axis[kSpatial] = {};
};

// A window of a direct product: `count` runs of so many elements side by side, in padded rows whose pixels lie `pixel`
// elements apart. A run is a row of the window, a tap of it, or a part of a tap's channels; `at_once` of them are
// summed in registers.
struct ConvRuns {
    int64_t count = 0, elements = 0, taps = 1, chunks = 1, at_once = 0;
    int64_t pixel = 0;
};

// A run of positions of one row (or, of a target that is dense, of one image) in a block.
struct ConvSegment {
    int32_t column, length;
    int32_t at[kSpatial];
    int64_t image;
};

// out[n, r, q] = act(sum over k of weight[r, k] * source[n, k, q] + bias[r]) + residual[n, r, q].
//
// Channels first: channels are the rows of the product, and k = (channel, tap). Channels last: positions are its rows,
// and k = (tap, channel). The gathered block is packed once and meets all channels.
struct ConvTask {
    ConvSource source;
    ConvTarget out, preact, residual;
    bool dense = false;  // positions of an image lie one after the other in all targets
    const void* bias = nullptr;
    int64_t bias_step = 1;
    void (*activate)(void* x, int64_t n, int activation, const double* p) = nullptr;
    int activation = 0;
    double p[2] = {0, 0};
    bool channels_last = false;
    const void* weight = nullptr;  // in units; channels first: rows of k; last: panels [k][nr]
    int64_t weight_ld = 0;         // channels first: units from row to row
    int64_t r0 = 0, r1 = 0;        // channels of this task
    int64_t q0 = 0, q1 = 0;        // its positions, counted over all images; whole rows of a direct product
    int64_t block = 0;             // positions gathered at a time
    ConvPlaces place[kSpatial];    // of a direct product, and so is
    ConvRuns run;
    int64_t kc = 0;  // depth whose sums stay in registers; even
    int mr = 0, nv = 0;
    char* work = nullptr;                                        // 64-byte aligned
    int64_t work_scratch = 0, work_sums = 0, work_segments = 0;  // offsets
};

// The weight [rows, channels, taps] in the units and the order of its product.
struct ConvPackTask {
    const void* data;
    int64_t row, channel;
    const int64_t* tap;  // offset of each
    int64_t rows, channels, taps;
    bool channels_last;
    void* to;
    int64_t ld;      // channels first: units
    int64_t panel;   // channels last: columns
    int64_t run;     // taps whose elements no unit of two shares with the next ones
    int64_t r0, r1;  // of this task; channels last: whole panels
    char* work;      // channels last: `panel` rows of k elements
};

// gw[o, c, t] = sum over all positions of g[n, o, q] * source[n, (c, t), q]: the rows of the product are those of the
// source, in the order of ConvTask.
struct ConvWeightTask {
    ConvSource source, g;  // g: one tap
    int64_t o, images;
    bool channels_last;  // of the source
    int64_t m0, m1;      // rows of this task
    int64_t block;       // positions that are summed in registers; even
    int mr, nv;
    void* gw;
    int64_t gw_row, gw_channel;
    const int64_t* gw_tap;
    char* work;
    int64_t work_packed, work_scratch, work_sums, work_segments;
};

// sums[c] = the sum over all images and positions of g[n, c, q].
struct ConvSumTask {
    ConvTarget g;
    int64_t images, pixels[kSpatial];
    int64_t c0, c1;
    void* sums;
    int64_t step;
};

// out[c, i] = bias[c] + the sum of padded[c, u] over all places u of a padded image that read pixel i.
struct ConvFoldTask {
    const void* padded;  // [channels, places], contiguous
    int64_t places[kSpatial];
    const int32_t* pixel[kSpatial];  // of each place
    ConvTarget out;                  // of the image at hand
    int64_t pixels[kSpatial];
    const void* bias;
    int64_t bias_step;
    int64_t c0, c1;
    char* work;  // sums of an image
};

struct WinogradTask;
struct WinogradPack;

struct ConvolutionEntries {
    // rows and vectors of the tile for many columns; 0: none
    int wide_mr[kFloatTypes], wide_nv[kFloatTypes];
    void (*product[kFloatTypes])(const ConvTask&);
    void (*direct[kFloatTypes])(const ConvTask&);  // windows in padded rows; null: none
    void (*pack[kFloatTypes])(const ConvPackTask&);
    void (*weight[kFloatTypes])(const ConvWeightTask&);
    void (*sums[kFloatTypes])(const ConvSumTask&);
    void (*fold[kFloatTypes])(const ConvFoldTask&);
    // f32, of AVX-512; null elsewhere
    void (*winograd)(const WinogradTask&);
    void (*pack_winograd)(const WinogradPack&);
    DepthwiseEntries depthwise;  // few channels in a group
};

}  // namespace nk::cpu
