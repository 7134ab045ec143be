// Checks that throw. A message names the op, the argument, what it was and what it should be.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

#include "tensor/geometry.h"

namespace nk {

struct TypeError : std::runtime_error {  // becomes Python's TypeError
    using std::runtime_error::runtime_error;
};

template <class... Parts>
std::string concat(const Parts&... parts) {
    std::ostringstream s;
    (s << ... << parts);
    return s.str();
}

// std::runtime_error -> RuntimeError, std::out_of_range -> IndexError, std::invalid_argument -> ValueError.
template <class... Parts>
[[noreturn]] void fail_runtime(const char* op, const Parts&... parts) {
    throw std::runtime_error(concat("neurokern.", op, ": ", parts...));
}
template <class... Parts>
[[noreturn]] void fail_index(const char* op, const Parts&... parts) {
    throw std::out_of_range(concat("neurokern.", op, ": ", parts...));
}
template <class... Parts>
[[noreturn]] void fail_value(const char* op, const Parts&... parts) {
    throw std::invalid_argument(concat("neurokern.", op, ": ", parts...));
}
template <class... Parts>
[[noreturn]] void fail_type(const char* op, const Parts&... parts) {
    throw TypeError(concat("neurokern.", op, ": ", parts...));
}

inline void check_floating(const char* op, const char* arg, const TensorView& t) {
    if (!is_floating(t.dtype))
        fail_runtime(op, "argument ", arg, " has dtype ", name_of(t.dtype),
                     ", expected float32, float64, float16 or bfloat16");
}

inline void check_same_dtype(const char* op, const char* arg, const TensorView& t, const char* other,
                             const TensorView& o) {
    if (t.dtype != o.dtype)
        fail_runtime(op, "argument ", arg, " has dtype ", name_of(t.dtype), ", expected ", name_of(o.dtype),
                     " as argument ", other);
}

inline void check_same_device(const char* op, const char* arg, const TensorView& t, const char* other,
                              const TensorView& o) {
    if (!(t.device == o.device))
        fail_runtime(op, "argument ", arg, " is on ", to_string(t.device), ", expected ", to_string(o.device),
                     " as argument ", other);
}

inline void check_same_shape(const char* op, const char* arg, const TensorView& t, const char* other,
                             const TensorView& o) {
    if (!t.same_shape(o))
        fail_runtime(op, "argument ", arg, " has shape ", shape_string(t), ", expected ", shape_string(o),
                     " as argument ", other);
}

// dtype, device and shape at once: the common case of elementwise ops.
inline void check_like(const char* op, const char* arg, const TensorView& t, const char* other, const TensorView& o) {
    check_same_dtype(op, arg, t, other, o);
    check_same_device(op, arg, t, other, o);
    check_same_shape(op, arg, t, other, o);
}

inline void check_writable(const char* op, const char* arg, const TensorView& out) {
    if (overlaps_itself(out))
        fail_runtime(op, "argument ", arg, " of shape ", shape_string(out),
                     " has more than one element at one address (an expanded tensor?); expected memory of its own");
}

// An output may be the very same view as an input only where the op says so.
inline void check_no_overlap(const char* op, const char* arg, const TensorView& out, const char* other,
                             const TensorView& in, bool same_allowed) {
    const Overlap o = overlap(out, in);
    if (o == Overlap::partial || (o == Overlap::same && !same_allowed))
        fail_runtime(op, "argument ", arg, " overlaps argument ", other, " in memory; expected ",
                     same_allowed ? "the very same view or " : "", "separate memory");
}

}  // namespace nk
