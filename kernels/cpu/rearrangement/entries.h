// What the host calls of the rearrangement family. Kernels that only move elements know their size, of 2, 4 or 8 bytes.
#pragma once

#include <cstdint>

#include "../../dtype.h"

namespace nk::cpu {

inline constexpr int kMostSmall = 16;

// `rows` times a small matrix: n elements along its long side, `small` (at most kMostSmall) along the other, which is
// dense on one side; on the other, row j of the long side lies at offset[j]. Strides and offsets in elements.
//   interleave:    to[i * small + j] = from[offset[j] + i]
//   deinterleave:  to[offset[j] + i] = from[i * small + j]
struct Interleave {
    void* to;
    const void* from;
    int64_t n, rows;
    int64_t to_apart, from_apart;  // from row to row
    const int64_t* offset;
    int small;
};

// Rows that lie contiguous on both sides.
struct CopyRows {
    void* to;
    const void* from;
    int64_t n, rows;
    int64_t to_apart, from_apart;
};

// Padded rows, of units of `unit` elements that stay together. A row is front units, `middle` units that lie side by
// side as the input's do (from unit `first` on, `from_step` elements apart), and those behind.
struct PadRows {
    void* to;
    const void* from;         // null: rows of filler
    const int64_t* row;       // for each row where its input begins, in elements; -1: a row of filler
    int64_t rows;             //
    int64_t to_apart;         // from row to row
    int64_t unit, from_step;  //
    int64_t size;             // units of a row
    int64_t front, middle;    //
    int64_t first;            // unit of the input that the middle begins with
    const int64_t* edge;      // for each unit of front, then of those behind, the input's unit or -1; null: filler
    uint64_t filler;          // an element's bits
};

// The gradient of padded rows. Row r of the output is the sum of the rows of g at plane[p] + source[s] for each p and
// for s of start[r] .. start[r + 1]; of each of these the units first, first + 1, ... make units front, front + 1, ...
// of the output, and unit at[k] of the output instead the units among[of[k]] .. among[of[k + 1]].
struct PadSums {
    void* to;
    const void* g;
    const int64_t* plane;
    int64_t planes;
    const int64_t *start, *source;
    int64_t rows, to_apart;
    int64_t unit, step, inner;  // of g: elements from unit to unit, and from element to element of a unit
    int64_t size;               // units of a row of the output
    int64_t front, middle;
    int64_t first;
    const int64_t *at, *of, *among;
    int64_t edges;
};

// One channel's pixels under a window at each of its places, or back.
struct WindowPlane {
    void* to;
    const void* from;
    int64_t kernel[2], dilation[2], padding[2], stride[2], image[2], places[2];
    int64_t apart;  // elements from row to row of an image (unfold), from one place in the window to the next (fold)
};

struct RearrangementEntries {
    void (*interleave[3])(const Interleave&);
    void (*deinterleave[3])(const Interleave&);
    void (*copy_rows[3])(const CopyRows&);
    void (*pad[3])(const PadRows&);
    void (*pad_sums[kFloatTypes])(const PadSums&);
    void (*unfold[3])(const WindowPlane&);
    void (*fold[kFloatTypes])(const WindowPlane&);
};

}  // namespace nk::cpu
