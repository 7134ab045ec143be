// CUDA plans of elementwise kernels: from index spaces and a device to grids and kernel parameters. Pure functions.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/cuda/elementwise/params.h"
#include "kernels/dtype.h"
#include "plan/arithmetic.h"
#include "tensor/index_space.h"

namespace nk::plan {

inline constexpr int64_t kMaxPoints = (int64_t{1} << 31) - 1;  // what a divided index may reach

inline int unit_of(DType t) { return 16 / size_of(t); }
inline int compute_size(DType t) { return t == DType::f64 ? 8 : 4; }

// What a plan needs to know of one tensor beside its strides.
struct Operand {
    uintptr_t address = 0;
    bool output = false;
};

inline Operand operand(const TensorView& t, bool output) { return {reinterpret_cast<uintptr_t>(t.data), output}; }

inline bool aligned(uintptr_t address) { return address % 16 == 0; }

// Whether every tensor can be moved in 16-byte units along dim 0: stride 1, aligned, the other strides (`extra` too)
// whole units; or, for inputs, stride 0, where a unit is one element repeated and no alignment is asked for. More
// than one dim, or `whole`, needs dim 0 to be whole units; a single dim may end in a partly filled one.
inline bool fits_units(const IndexSpace& s, const Operand* operands, DType type, bool whole = false,
                       const int64_t* extra = nullptr) {
    const int unit = unit_of(type);
    if ((whole || s.ndim > 1) && s.size[0] % unit != 0) return false;
    for (int t = 0; t < s.tensors; ++t) {
        if (s.stride[t][0] == 0 && !operands[t].output) continue;
        if (s.stride[t][0] != 1 || !aligned(operands[t].address)) return false;
        for (int d = 1; d < s.ndim; ++d)
            if (s.stride[t][d] % unit != 0) return false;
        if (extra && extra[t] % unit != 0) return false;
    }
    return true;
}

// Dim 0 counted in units (rounded up) instead of elements.
inline IndexSpace in_units(IndexSpace s, DType type) {
    const int unit = unit_of(type);
    s.size[0] = ceil_div(s.size[0], unit);
    for (int t = 0; t < s.tensors; ++t) s.stride[t][0] *= unit;
    return s;
}

// One launch's share of an index space: at most kLayoutDims dims, and kMaxPoints points unless there is one dim.
struct Chunk {
    IndexSpace space;
    int64_t offset[kMaxTensors] = {};  // elements from the views' first
};

inline void split_into(Chunk c, std::vector<Chunk>& out) {
    IndexSpace& s = c.space;
    if (s.ndim == 1 || (s.ndim <= cuda::kLayoutDims && s.numel() <= kMaxPoints)) {
        out.push_back(c);
        return;
    }
    const int last = s.ndim - 1;
    const int64_t size = s.size[last], inner = s.numel() / size;
    const auto move = [&](int64_t n) {
        for (int t = 0; t < s.tensors; ++t) c.offset[t] += n * s.stride[t][last];
    };
    if (s.ndim <= cuda::kLayoutDims && inner <= kMaxPoints) {  // pieces of the outermost dim
        const int64_t piece = kMaxPoints / inner;
        for (int64_t i = 0; i < size; i += piece, move(piece)) {
            s.size[last] = std::min(piece, size - i);
            out.push_back(c);
        }
        return;
    }
    --s.ndim;
    for (int64_t i = 0; i < size; ++i, move(1)) split_into(c, out);
}

inline std::vector<Chunk> split(const IndexSpace& s) {
    std::vector<Chunk> chunks;
    Chunk whole;
    whole.space = s;
    if (s.numel() == 0) whole.space.ndim = 1, whole.space.size[0] = 0;
    split_into(whole, chunks);
    return chunks;
}

template <int N>
void fill_layout(const IndexSpace& s, cuda::Layout<N>& l) {
    l.ndim = s.ndim;
    for (int d = 0; d < s.ndim; ++d) {
        if (s.ndim > 1) l.size[d] = cuda::make_divisor(static_cast<uint32_t>(s.size[d]));
        for (int t = 0; t < s.tensors; ++t) l.stride[t][d] = s.stride[t][d];
    }
}

struct ElementwiseLaunch {
    cuda::ElementwiseParams params;  // data still null
    int64_t offset[kMaxTensors] = {};
    int64_t grid = 0;
};

inline std::vector<ElementwiseLaunch> plan_elementwise(const IndexSpace& space, const Operand* operands, int inputs,
                                                       DType type, int multiprocessors) {
    const bool vector = fits_units(space, operands, type);
    const int64_t numel = space.numel();
    std::vector<ElementwiseLaunch> launches;
    if (numel == 0) return launches;
    for (const Chunk& chunk : split(vector ? in_units(space, type) : space)) {
        ElementwiseLaunch l;
        l.params.vector = vector;
        l.params.count = chunk.space.numel();
        l.params.numel = numel;  // looked at only where one dim, hence one chunk, is all there is
        std::copy(chunk.offset, chunk.offset + kMaxTensors, l.offset);
        fill_layout(chunk.space, l.params.layout);
        // Several steps per thread once the device has eight blocks per SM without them; smaller tensors spread out.
        const int64_t per_step = cuda::kElementwiseThreads * (vector ? 1 : unit_of(type));
        const int64_t blocks = ceil_div(l.params.count, per_step);
        l.params.steps =
            static_cast<int32_t>(std::clamp<int64_t>(blocks / (8 * multiprocessors), 1, cuda::units_ahead(inputs)));
        l.grid = ceil_div(blocks, l.params.steps);
        launches.push_back(l);
    }
    return launches;
}

inline std::string describe(const std::vector<ElementwiseLaunch>& launches) {
    if (launches.empty()) return "empty";
    const ElementwiseLaunch& l = launches.front();
    return (l.params.vector ? "units of 16 bytes" : "single elements") + std::string(", dims ") +
           std::to_string(l.params.layout.ndim) + ", steps " + std::to_string(l.params.steps) + ", grid " +
           std::to_string(l.grid) + " x " + std::to_string(cuda::kElementwiseThreads) +
           (launches.size() > 1 ? ", launches " + std::to_string(launches.size()) : "");
}

}  // namespace nk::plan
