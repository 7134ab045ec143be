// PTX's types and the C++ types that hold them.
#pragma once

#include <cstdint>

#include "../ptx/module.h"

namespace emu {

enum class Type : uint8_t {
    none,
    pred,
    b8,
    b16,
    b32,
    b64,
    b128,
    u8,
    u16,
    u32,
    u64,
    s8,
    s16,
    s32,
    s64,
    f16,
    bf16,
    f32,
    f64,
    f16x2,
    bf16x2,
    tf32
};

struct Half {
    uint16_t bits;
};
struct Bfloat {
    uint16_t bits;
};
struct Half2 {
    uint32_t bits;
};
struct Bfloat2 {
    uint32_t bits;
};

constexpr uint32_t bytes_of(Type t) {
    switch (t) {
        case Type::b8:
        case Type::u8:
        case Type::s8:
            return 1;
        case Type::b16:
        case Type::u16:
        case Type::s16:
        case Type::f16:
        case Type::bf16:
            return 2;
        case Type::b64:
        case Type::u64:
        case Type::s64:
        case Type::f64:
            return 8;
        case Type::b128:
            return 16;
        case Type::none:
        case Type::pred:
            return 0;
        default:
            return 4;
    }
}

constexpr bool is_signed(Type t) { return t == Type::s8 || t == Type::s16 || t == Type::s32 || t == Type::s64; }
constexpr bool is_unsigned(Type t) { return t == Type::u8 || t == Type::u16 || t == Type::u32 || t == Type::u64; }
constexpr bool is_bits(Type t) { return t >= Type::b8 && t <= Type::b128; }
constexpr bool is_float(Type t) { return t >= Type::f16; }

// "f32", without the point; none for anything else.
Type type_of(ptx::Name name);

}  // namespace emu
