// What the kernels of convolutions are told: plain data, written by csrc/convolution/cuda*.cpp.
#pragma once

#include <stdint.h>

#include "../../convolution.h"
#include "../product/params.h"
#include "../tile/index.h"

namespace nk::cuda {

inline constexpr int kConvolutionThreads = 128;  // of the plain kernels
inline constexpr int kSpatial = convolution::kSpatial;

// What a padded convolution reads beside its image, in the order of csrc/convolution/problem.h.
enum PaddingMode : int32_t { kZeros, kReflect, kReplicate, kCircular };

// Images, or a weight as [o, c / groups, taps]; steps are in elements and may be anything.
struct ImagesRef {
    void* data = nullptr;  // may be null
    int64_t image = 0, channel = 0, pixel[kSpatial] = {};
};

// The plain kernels' whole problem, whatever its sizes, strides and groups. `n` of the epilogue: all channels.
struct PlainConvolutionParams : EpilogueParams {
    ImagesRef image, result, weight, preact, residual;
    int64_t images = 0, groups = 1;
    int64_t image_channels = 0, result_channels = 0;  // of a group
    int64_t in[kSpatial] = {}, out[kSpatial] = {}, kernel[kSpatial] = {};
    int64_t stride[kSpatial] = {}, dilation[kSpatial] = {}, pad[kSpatial] = {};
    int64_t padded[kSpatial] = {};  // pixels of the image with what the window sees before and behind it
    int32_t mode = kZeros;
    int32_t channels_inner = 0;  // neighbouring threads take neighbouring channels, else pixels
};

// sums[c] of all t[n, c, pixel], a part of the images and pixels a block.
struct ChannelSumsParams {
    ImagesRef t;
    void *sums = nullptr, *partial = nullptr;  // partial: [part][channel] of the compute type, or null
    int64_t sums_step = 0, channels = 0, images = 0, pixels[kSpatial] = {};
    int64_t count = 0, per_part = 0;  // images times pixels
};

// Where each channel of the image has its own window, and makes `times` of the result.
struct DepthwiseParams : EpilogueParams {
    ImagesRef image, result, weight, preact, residual;
    int32_t channels = 0, times = 1;  // of what is made: result, or image of a data gradient
    int64_t pixels = 0;               // of all images: what is made, or what a weight's gradient adds up
    Divisor size[kSpatial];           // of those of one image
    int32_t in[kSpatial] = {}, out[kSpatial] = {}, kernel[kSpatial] = {};
    int32_t stride[kSpatial] = {}, dilation[kSpatial] = {}, pad[kSpatial] = {};
    Divisor strides[kSpatial];
    int32_t mode = kZeros;
    int32_t lanes_log2 = 0;   // 2^this threads of a block lie along the channels, the others along pixels
    void* partial = nullptr;  // of a weight's gradient: [part][o, tap] of the compute type
    int32_t parts = 1;
    int64_t per_part = 0;  // pixels
};
inline constexpr int kDepthwiseThreads = 256, kDepthwiseWeights = 4096;

// ---- products by tiles ----
//
// All three are one product of matrices for each group. A window's side, pixels by (tap, channel), is read where the
// images lie, by the walks of window.h; the other is a matrix:
//
//   forward          results [pixel, o] = image [pixel, (tap, c)] * weight [o, (tap, c)]
//   data gradient    image [pixel, c] = result [pixel, (tap, o)] * weight [c, (tap, o)], for each phase: with a stride,
//                    pixels as many apart see the same taps, and no others
//   weight gradient  weight [o, (tap, c)] = result [pixel, o] * image [pixel, (tap, c)], where k is the pixels

// One dim of a window: pixel j of the rows and tap u meet at place begin + j * step + u * tap_step of the source.
struct WindowDim {
    Divisor pixels, taps;  // how many
    int32_t size = 1;      // pixels of the source
    int32_t begin = 0, step = 1, tap_step = 1;
    int32_t source = 0;  // units of memory from one pixel of the source to the next
};

// Where a pixel's window begins, in units, and at which taps it lies outside of the source.
struct alignas(8) WindowRow {
    int32_t offset;
    uint32_t outside;  // a bit for each tap of each dim, the last dim's first
};
inline constexpr int kMostTaps = 29;                              // of all dims together
inline constexpr uint32_t kExists = 1u << 30, kNever = 1u << 31;  // outside: of rows that don't exist, of all

// Where results lie; steps in elements.
struct ResultsRef {
    void* data = nullptr;
    int64_t image = 0, channel = 0, pixel[kSpatial] = {};
    int64_t row = 0;  // where all pixels of all images lie evenly
};

enum ResultsOrder : int32_t { kPixelsDown, kChannelsDown, kWeights };  // what the rows of a tile of results are

// m and n of the epilogue are the results' rows and columns of one group.
struct WindowParams : EpilogueParams {
    int64_t k = 0, k_per_split = 0;
    int64_t pixels = 0, channels = 0;  // of the results, or of what a weight's gradient adds up
    int32_t tiles_m = 0, tiles_n = 0, group = 1;
    // the window's side
    const void* source = nullptr;
    int64_t source_group = 0, source_image = 0;  // bytes; units
    WindowDim dim[kSpatial];                     // depth, height, width
    int32_t unit = 16;  // bytes: a number that is not known to the compiler leaves an address one instruction
    Divisor depth;      // channels of a tap, as they lie in memory
    int32_t carry[kSpatial] = {};  // units from a tap's end to the next tap, by the dim that moves on
    int32_t mode = kZeros;
    const WindowRow* table = nullptr;  // of a weight's gradient: [pixels, some more that don't exist]
    int64_t table_rows = 0;            // with a padding mode there is one for each tap, with the tap's offsets
    // the other side: [channels, k], or [pixels, channels] of a weight's gradient
    const void* matrix = nullptr;
    int64_t matrix_row = 0, matrix_group = 0;  // bytes
    int32_t matrix_access = 0;                 // bytes of neighbours that may be taken at once (tile/walk.h)
    // results
    ResultsRef out, preact, residual;
    int32_t order = kPixelsDown;
    int32_t keeps_sums = 0;   // results stay in the workspace, for another kernel
    int32_t even_rows = 0;    // the pixels of all images lie evenly
    int32_t even_pieces = 0;  // neighbouring columns lie side by side also where those are pixels
    int32_t real_depth = 0;   // channels of a weight's tap; `depth` may have some more
};

// From the gradient of a padded image, in the workspace of a product whose rows are its places, to that of the image.
struct FoldParams : EpilogueParams {
    ImagesRef image, none;
    int64_t images = 0, groups = 1, channels = 0;  // of a group
    int64_t in[kSpatial] = {}, padded[kSpatial] = {}, pad[kSpatial] = {};
    int32_t mode = kZeros;
};

// Copies [blocks, pixels, groups of channels] from anywhere to where channels lie side by side, with zeros behind each
// group's. Blocks are [outer, inner]; what blocks and pixels are is the host's to say: it sees to it that neighbouring
// pixels or channels are neighbours in memory.
struct PackParams {
    const void* from = nullptr;
    void* to = nullptr;
    int64_t inner[kSpatial] = {1, 1, 1}, pixel[kSpatial + 1] = {1, 1, 1, 1};                             // sizes
    int64_t from_outer = 0, from_inner[kSpatial] = {}, from_pixel[kSpatial + 1] = {}, from_channel = 0;  // steps
    int64_t to_outer = 0, to_inner = 0, to_pixel = 0;
    int64_t outers = 0, inners = 1, pixels = 0, channels = 0, padded = 0, groups = 1;
};
inline constexpr int kPackTile = 32, kPackThreads = 256;

}  // namespace nk::cuda
