// Where the elements of a view lie, and whether two views meet.
#pragma once

#include <utility>

#include "tensor/view.h"

namespace nk {

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

}  // namespace nk
