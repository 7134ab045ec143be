// The ops of this family as checked arguments: what the CPU and CUDA launchers take.
#pragma once

#include "kernels/rearrangement.h"
#include "tensor/view.h"

namespace nk::rearrangement {

// Elements of `in` in the places of `out`: two views of one shape.
struct Copy {
    const char* op;
    TensorView out, in;
};

// out[o] = in[pad_source(o)] in every dim, or `value` where there is none.
struct Pad {
    const char* op;
    const TensorView &out, &in;
    PadMode mode;
    const int64_t* lo;  // of each dim of the tensors
    double value;
};

// gx = the sum of the elements of g that come from each of its own.
struct PadBackward {
    const char* op;
    const TensorView &gx, &g;
    PadMode mode;
    const int64_t* lo;
};

// A window that slides over the last two dims.
struct Window {
    int64_t kernel[2], dilation[2], padding[2], stride[2];
    int64_t image[2], places[2];  // sizes of the image, and how many places the window has along each
};

// columns[n, (c, kh, kw), (oh, ow)] = image[n, c, oh * stride + kh * dilation - padding, ...] or 0.
struct Unfold {
    const char* op;
    const TensorView &columns, &image;  // [N, C * kh * kw, L] and [N, C, H, W]
    Window window;
};

// image = the sum of the columns that lie over each of its pixels.
struct Fold {
    const char* op;
    const TensorView &image, &columns;
    Window window;
};

void run_cpu(const Copy& p);
void run_cpu(const Pad& p);
void run_cpu(const PadBackward& p);
void run_cpu(const Unfold& p);
void run_cpu(const Fold& p);
void run_cuda(const Copy& p);
void run_cuda(const Pad& p);
void run_cuda(const PadBackward& p);
void run_cuda(const Unfold& p);
void run_cuda(const Fold& p);

}  // namespace nk::rearrangement
