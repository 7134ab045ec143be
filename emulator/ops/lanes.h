// Running one function on the 32 lanes of a warp: loops over arrays, which the compiler turns into vector code.
#pragma once

#include <immintrin.h>

#include <bit>
#include <cfenv>
#include <cmath>
#include <cstring>

#include "../decode/builder.h"
#include "../exec/warp.h"

namespace emu {

// d[lane] = f(lane) for the lanes of the mask. d may be one of the arrays that f reads.
template <class D, class F>
[[gnu::always_inline]] inline void each_lane(const Warp& w, Ref d, F f) {
    D* out = w.at<D>(d);
    if (w.mask == kAll) {
#pragma GCC ivdep
        for (int l = 0; l < kLanes; ++l) out[l] = f(l);
        return;
    }
    alignas(64) D t[kLanes];
#pragma GCC ivdep
    for (int l = 0; l < kLanes; ++l) t[l] = f(l);
    const uint32_t mask = w.mask;
#pragma GCC ivdep
    for (int l = 0; l < kLanes; ++l) out[l] = mask >> l & 1 ? t[l] : out[l];
}

// A bit for each lane where f(lane).
template <class F>
[[gnu::always_inline]] inline uint32_t lanes_where(F f) {
    alignas(32) int8_t t[kLanes];
#pragma GCC ivdep
    for (int l = 0; l < kLanes; ++l) t[l] = f(l) ? -1 : 0;
    return static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_load_si256(reinterpret_cast<const __m256i*>(t))));
}

// Calls f(lane) for each lane of a mask, in order.
template <class F>
[[gnu::always_inline]] inline void for_lanes(uint32_t mask, F f) {
    for (; mask != 0; mask &= mask - 1) f(std::countr_zero(mask));
}

// ---- Runs from stateless functions of one, two or three numbers ----

template <class D, class A, class F>
Run map(F) {
    return [](Warp& w, const Inst& i) {
        const A* a = w.at<A>(i.a);
        each_lane<D>(w, i.d, [=](int l) { return static_cast<D>(F{}(a[l])); });
    };
}

template <class D, class A, class B, class F>
Run map(F) {
    return [](Warp& w, const Inst& i) {
        const A* a = w.at<A>(i.a);
        const B* b = w.at<B>(i.b);
        each_lane<D>(w, i.d, [=](int l) { return static_cast<D>(F{}(a[l], b[l])); });
    };
}

template <class D, class A, class B, class C, class F>
Run map(F) {
    return [](Warp& w, const Inst& i) {
        const A* a = w.at<A>(i.a);
        const B* b = w.at<B>(i.b);
        const C* c = w.at<C>(i.c);
        each_lane<D>(w, i.d, [=](int l) { return static_cast<D>(F{}(a[l], b[l], c[l])); });
    };
}

// Emits d, a [, b [, c]] of types that the operands have in this order.
inline Inst& emit_map(Builder& b, Run run, Class klass, Type d, std::initializer_list<Type> sources) {
    b.done();
    Ref refs[3] = {kNoRef, kNoRef, kNoRef};
    uint32_t n = 0;
    for (const Type t : sources) {
        refs[n] = b.source(b.operand(n + 1), t);
        ++n;
    }
    if (b.operands() != n + 1) b.unsupported("number of operands");
    const Ref to = b.destination(b.operand(0), d);
    Inst& i = b.emit(run, klass);
    i.d = to, i.a = refs[0], i.b = refs[1], i.c = refs[2];
    return i;
}

// f(a number of the C++ type) for an integer type of PTX.
template <class F>
auto with_integer(Builder& b, Type t, F f) {
    switch (t) {
        case Type::u16:
        case Type::b16:
            return f(uint16_t{});
        case Type::s16:
            return f(int16_t{});
        case Type::u32:
        case Type::b32:
            return f(uint32_t{});
        case Type::s32:
            return f(int32_t{});
        case Type::u64:
        case Type::b64:
            return f(uint64_t{});
        case Type::s64:
            return f(int64_t{});
        default:
            b.unsupported("type");
    }
}

// The same for types of bits alone, by their size.
template <class F>
auto with_bits(Builder& b, Type t, F f) {
    switch (bytes_of(t)) {
        case 2:
            return f(uint16_t{});
        case 4:
            return f(uint32_t{});
        case 8:
            return f(uint64_t{});
        default:
            b.unsupported("type");
    }
}

}  // namespace emu
