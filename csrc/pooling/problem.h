// A checked call of a pooling op, in the form that its backends take: [N, C, D, H, W], with sizes of 1 for dims that
// are not there.
#pragma once

#include "kernels/cpu/pooling/entries.h"
#include "kernels/pooling.h"
#include "tensor/view.h"

namespace nk::pooling {

enum class Kind : int {
    max_pool1d,
    max_pool2d,
    max_pool3d,
    adaptive_max_pool1d,
    adaptive_max_pool2d,
    adaptive_max_pool3d,
    fractional_max_pool2d,
    fractional_max_pool3d,
    avg_pool1d,
    avg_pool2d,
    avg_pool3d,
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_avg_pool3d,
    lp_pool1d,
    lp_pool2d,
    lp_pool3d,
    max_unpool1d,
    max_unpool2d,
    max_unpool3d,
};  // clang-format off
inline constexpr int kKinds = 20;
inline constexpr const char* const kNames[kKinds] = {
    "max_pool1d", "max_pool2d", "max_pool3d",
    "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d",
    "fractional_max_pool2d", "fractional_max_pool3d",
    "avg_pool1d", "avg_pool2d", "avg_pool3d",
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d",
    "lp_pool1d", "lp_pool2d", "lp_pool3d",
    "max_unpool1d", "max_unpool2d", "max_unpool3d",
};  // clang-format on

inline const char* name_of(Kind k) { return kNames[static_cast<int>(k)]; }
inline int dims_of(Kind k) {
    const char* s = name_of(k);
    while (s[1] != 'd' || s[2] != 0) ++s;
    return *s - '0';
}

struct Windowed {
    Kind kind;
    PoolDim dim[3];  // of D, H, W
    bool include_pad = true;
    int64_t divisor = 0;                  // of an average; 0: what the window holds
    double norm = 0;                      // of lp_pool; 0: none
    const TensorView* samples = nullptr;  // of fractional windows: [N, C, dims]

    int64_t outputs() const { return dim[0].out * dim[1].out * dim[2].out; }
    int64_t inputs() const { return dim[0].in * dim[1].in * dim[2].in; }
};

// A tensor as [N, C, D, H, W].
struct Image {
    char* data = nullptr;
    DType dtype = DType::f32;
    int64_t size[5], stride[5];  // elements

    Image() {}
    Image(const TensorView& t, int dims) {
        data = static_cast<char*>(t.data), dtype = t.dtype;
        const int outer = t.ndim - dims;  // C, or N and C
        for (int i = 0; i < 5; ++i) size[i] = 1, stride[i] = 0;
        for (int i = 0; i < dims; ++i)
            size[5 - dims + i] = t.shape[outer + i], stride[5 - dims + i] = t.stride[outer + i];
        for (int i = 0; i < outer; ++i) size[2 - outer + i] = t.shape[i], stride[2 - outer + i] = t.stride[i];
    }
    int64_t planes() const { return size[0] * size[1]; }
    int64_t inner() const { return size[2] * size[3] * size[4]; }
    // dense, as planes or with the channels innermost
    bool is_dense(bool channels) const {
        const int order[2][5] = {{4, 3, 2, 1, 0}, {1, 4, 3, 2, 0}};
        int64_t expected = 1;
        for (const int d : order[channels]) {
            if (size[d] != 1 && stride[d] != expected) return false;
            expected *= size[d];
        }
        return true;
    }
};

// Outputs that nobody wants are null; `indices` of int32 or int64.
void max_cpu(const char* op, const Windowed& w, const TensorView& y, const TensorView* indices, const TensorView& x);
void max_cuda(const char* op, const Windowed& w, const TensorView& y, const TensorView* indices, const TensorView& x);
void max_backward_cpu(const char* op, const Windowed& w, const TensorView& gx, const TensorView& g,
                      const TensorView& indices);
void max_backward_cuda(const char* op, const Windowed& w, const TensorView& gx, const TensorView& g,
                       const TensorView& indices);

void average_cpu(const char* op, const Windowed& w, const TensorView& y, const TensorView& x);
void average_cuda(const char* op, const Windowed& w, const TensorView& y, const TensorView& x);
// x and y: of lp_pool alone
void average_backward_cpu(const char* op, const Windowed& w, const TensorView& gx, const TensorView& g,
                          const TensorView* x, const TensorView* y);
void average_backward_cuda(const char* op, const Windowed& w, const TensorView& gx, const TensorView& g,
                           const TensorView* x, const TensorView* y);

void unpool_cpu(const char* op, int dims, const TensorView& y, const TensorView& x, const TensorView& indices);
void unpool_cuda(const char* op, int dims, const TensorView& y, const TensorView& x, const TensorView& indices);
void unpool_backward_cpu(const char* op, int dims, const TensorView& gx, const TensorView& g,
                         const TensorView& indices);
void unpool_backward_cuda(const char* op, int dims, const TensorView& gx, const TensorView& g,
                          const TensorView& indices);

}  // namespace nk::pooling
