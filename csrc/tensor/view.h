// TensorView: what a kernel launch needs to know of a tensor, copied out of torch's object.
#pragma once

#include <cstdint>
#include <string>

#include "kernels/dtype.h"

namespace nk {

struct Device {
    enum Kind : int32_t { cpu, cuda } kind = cpu;
    int32_t index = 0;
    bool operator==(const Device&) const = default;
};

std::string to_string(Device device);

inline constexpr int kMaxDims = 64;  // as many as torch allows

struct TensorView {
    void* data = nullptr;  // address of element [0, 0, ...]; null only when the tensor is empty
    DType dtype = DType::f32;
    Device device;
    int ndim = 0;
    int64_t shape[kMaxDims];   // elements; only the first ndim are set
    int64_t stride[kMaxDims];  // elements, may be 0 (expanded)

    TensorView() {}  // the arrays stay unset on purpose: a view is built for every call

    int64_t numel() const {
        int64_t n = 1;
        for (int i = 0; i < ndim; ++i) n *= shape[i];
        return n;
    }
    int64_t size(int dim) const { return shape[dim < 0 ? dim + ndim : dim]; }
    int64_t step(int dim) const { return stride[dim < 0 ? dim + ndim : dim]; }
    bool same_shape(const TensorView& o) const {
        if (ndim != o.ndim) return false;
        for (int i = 0; i < ndim; ++i)
            if (shape[i] != o.shape[i]) return false;
        return true;
    }
    bool is_contiguous() const {
        int64_t expected = 1;
        for (int i = ndim - 1; i >= 0; --i) {
            if (shape[i] != 1 && stride[i] != expected) return false;
            expected *= shape[i];
        }
        return true;
    }
};

// Of numbers that kernels keep for a row, as the mean of a norm: float32 at least.
inline DType type_of_statistics(const TensorView& x) { return x.dtype == DType::f64 ? DType::f64 : DType::f32; }

std::string shape_string(const TensorView& t);  // "[2, 3]"
std::string shape_string(const int64_t* sizes, int ndim);

}  // namespace nk
