// Element types that cross the wall between host and kernels.
#pragma once

namespace nk {

// Ids are part of the interface between csrc and the kernels; never renumber.
enum class DType : int { f32 = 0, f64 = 1, f16 = 2, bf16 = 3, i64 = 4, i32 = 5, i8 = 6, u8 = 7, b8 = 8 };

// The first kFloatTypes ids are the floating types; tables of kernels are indexed by them.
inline constexpr int kFloatTypes = 4;
inline constexpr int kTypes = 9;

constexpr int size_of(DType t) {
    switch (t) {
        case DType::f64:
        case DType::i64:
            return 8;
        case DType::f32:
        case DType::i32:
            return 4;
        case DType::f16:
        case DType::bf16:
            return 2;
        case DType::i8:
        case DType::u8:
        case DType::b8:
            return 1;
    }
    return 0;
}

constexpr bool is_floating(DType t) { return static_cast<int>(t) < kFloatTypes; }

constexpr const char* name_of(DType t) {
    constexpr const char* names[] = {"float32", "float64", "float16", "bfloat16", "int64",
                                     "int32",   "int8",    "uint8",   "bool"};
    return names[static_cast<int>(t)];
}

}  // namespace nk
