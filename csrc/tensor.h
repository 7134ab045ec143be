// TensorView: what a kernel launch needs to know of a tensor, copied out of the framework's object.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <utility>

#include "../kernels/dtype.h"

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

std::string shape_string(const TensorView& t);  // "[2, 3]"
std::string shape_string(const int64_t* sizes, int ndim);

// Whether two index spaces share no byte, are the very same view, or may overlap in part.
enum class Overlap { none, same, partial };
Overlap overlap(const TensorView& a, const TensorView& b);

// Half-open range of bytes that a non-empty view can touch.
std::pair<const char*, const char*> extent(const TensorView& t);

// True when two index tuples address one element (an expanded or as_strided output).
bool overlaps_itself(const TensorView& t);

// The view repeated to a larger shape, as broadcasting does it; false, and t without meaning, where a size does not
// fit.
bool expand(TensorView& t, const int64_t* shape, int ndim);

// Reads a framework tensor (a PyObject*) through its DLPack C exchange API; throws TypeError when it is none,
// RuntimeError when it has no storage to read (fake or meta tensors) or a dtype or device we do not know.
void read_tensor(void* object, const char* op, const char* argument, TensorView& out);

// A new contiguous tensor of the framework's own, of `like`'s dtype and device, unset: a new reference to a PyObject.
void* new_tensor(const TensorView& like, const int64_t* shape, int ndim);
void* new_tensor(const TensorView& like, DType dtype, const int64_t* shape, int ndim);  // of another dtype

// A new tensor as the framework's empty_like(object) makes it: any dense layout is kept. `like` is object's view.
void* new_like(void* object, const TensorView& like);

// The framework's functions that new tensors come from: empty_strided(shape, stride, dtype) on the CPU (may be null),
// empty_like, and its dtypes in DType's order. All are kept for good.
void set_allocator(void* empty_strided, void* empty_like, void* const* dtypes);

// When set, new tensors on the CPU start as NaN, so that an element which a kernel forgets shows.
extern bool poison_new_tensors;

// The stream that the framework is launching on (a CUstream for CUDA devices).
void* current_stream(Device device);

}  // namespace nk
