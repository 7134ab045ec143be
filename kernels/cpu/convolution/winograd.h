// F(2 x 2, 3 x 3): four outputs by 16 multiplications in the place of 36. Source: Lavin and Gray 2015.
//
// A tile of 4 x 4 source pixels becomes V = B' d B and a window U = G g G'; 16 products over the channels, one for each
// element of them, make M, and A' M A is a tile of 2 x 2 outputs. The products are those of product.h.
#pragma once

#include "entries.h"

namespace nk::cpu {

// 3 x 3 windows at stride 1 over images of one depth; zeros around them.
struct WinogradTask {
    const void* data;
    int64_t image, channel, row, column;  // strides of the source
    int64_t height, width;                // of the source
    int64_t top, left;                    // padding before it
    int64_t channels;
    ConvTarget out, preact, residual;
    int64_t out_height, out_width;
    const void* bias;
    int64_t bias_step;
    void (*activate)(void* x, int64_t n, int activation, const double* p);
    int activation;
    double p[2];
    bool channels_last;
    const void* weight;   // [16] as WinogradPack makes them
    int64_t weight_step;  // floats from one to the next
    int64_t r0, r1;       // channels of the result
    int64_t t0, t1;       // tiles of this task, counted over all images
    int64_t kc;
    char* work;
    int64_t work_m;  // offset
};

// Bytes of work that a task needs; sets work_m.
inline constexpr int64_t kWinogradTiles = 32;      // gathered at a time: a panel of columns
inline constexpr int64_t kWinogradTilesLast = 42;  // channels last: panels of rows
inline constexpr int64_t kWinogradRows = 14, kWinogradColumns = 32;

// U of the weight [rows, channels, 3, 3]: channels first, rows of ld floats; last, panels [channels][32] of rows.
struct WinogradPack {
    const void* data;
    int64_t row, channel;
    int64_t tap[9];
    int64_t rows, channels;
    bool channels_last;
    float* to;
    int64_t step;    // from one of the 16 to the next
    int64_t ld;      // channels first
    int64_t r0, r1;  // of this task: multiples of 16, 32 channels last
};

}  // namespace nk::cpu
