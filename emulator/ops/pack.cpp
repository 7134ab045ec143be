// cvt to and from pairs, tf32 and the formats of 8 bits, and with .relu or .satfinite.
#include "elements.h"
#include "families.h"
#include "lanes.h"

namespace emu::ops {

namespace {

constexpr uint16_t kFinite = 1024;  // of Inst::flags: the largest number instead of infinity

float limited(float x, uint16_t flags) { return (flags & kRelu) && x <= 0 ? 0.f : x; }

// The largest finite number in the place of infinity.
uint16_t finite(uint16_t bits, uint16_t infinity, uint16_t flags) {
    return (flags & kFinite) && (bits & 0x7fff) == infinity ? static_cast<uint16_t>(bits - 1) : bits;
}

struct ToHalf {
    using Result = uint16_t;
    static Result of(float x, uint16_t flags) {
        return finite(to_half(limited(x, flags), flags & kRoundMask), 0x7c00, flags);
    }
};
struct ToBfloat {
    using Result = uint16_t;
    static Result of(float x, uint16_t flags) {
        return finite(to_bfloat(limited(x, flags), flags & kRoundMask), 0x7f80, flags);
    }
};

// To nearest even; what is too large becomes the largest number.
template <int Fraction, int Bias, uint8_t Largest>
struct ToByte {
    using Result = uint8_t;
    static Result of(float x, uint16_t flags) {
        if (x != x) return 0x7f;
        x = limited(x, flags);
        const uint8_t sign = std::signbit(x) ? 0x80 : 0;
        const double m = std::fabs(static_cast<double>(x));
        const double most =
            std::ldexp((Largest & ((1 << Fraction) - 1)) + (1 << Fraction), (Largest >> Fraction) - Bias - Fraction);
        if (m >= most) return sign | Largest;
        const int exponent = m == 0 ? 1 - Bias : std::max(std::ilogb(m), 1 - Bias);
        const int whole = static_cast<int>(std::nearbyint(std::ldexp(m, Fraction - exponent)));
        return static_cast<uint8_t>(sign | (((exponent + Bias) << Fraction) + whole - (1 << Fraction)));
    }
};
using ToE4m3 = ToByte<3, 7, 0x7e>;
using ToE5m2 = ToByte<2, 15, 0x7b>;

// One number, or two of them: a in the upper half.
template <class F, class R = typename F::Result>
void one(Warp& w, const Inst& i) {
    const float* a = w.at<float>(i.a);
    const uint16_t flags = i.flags;
    each_lane<R>(w, i.d, [=](int l) { return F::of(a[l], flags); });
}
template <class F>
void two(Warp& w, const Inst& i) {
    using Pair = std::conditional_t<sizeof(typename F::Result) == 1, uint16_t, uint32_t>;
    constexpr int bits = 8 * sizeof(typename F::Result);
    const float *a = w.at<float>(i.a), *b = w.at<float>(i.b);
    const uint16_t flags = i.flags;
    each_lane<Pair>(w, i.d,
                    [=](int l) { return static_cast<Pair>(Pair{F::of(a[l], flags)} << bits | F::of(b[l], flags)); });
}
template <class F>
void bytes_from_halves(Warp& w, const Inst& i) {
    const uint32_t* a = w.at<uint32_t>(i.a);
    const uint16_t flags = i.flags;
    each_lane<uint16_t>(w, i.d, [=](int l) {
        const auto half = [&](int shift) { return F::of(from_half(static_cast<uint16_t>(a[l] >> shift)), flags); };
        return static_cast<uint16_t>(half(16) << 8 | half(0));
    });
}
template <float (*From)(uint8_t)>
void halves_from_bytes(Warp& w, const Inst& i) {
    const uint16_t* a = w.at<uint16_t>(i.a);
    const uint16_t flags = i.flags;
    each_lane<uint32_t>(w, i.d, [=](int l) {
        const auto byte = [&](int shift) -> uint32_t {
            return ToHalf::of(From(static_cast<uint8_t>(a[l] >> shift)), flags);
        };
        return byte(8) << 16 | byte(0);
    });
}

// Inst::extra: ties away from zero.
void to_tf32_lanes(Warp& w, const Inst& i) {
    const float* a = w.at<float>(i.a);
    const uint16_t flags = i.flags;
    const bool away = i.extra;
    each_lane<uint32_t>(w, i.d, [=](int l) {
        const float x = limited(a[l], flags);
        uint32_t r = (flags & kRoundMask) == 1 && x == x ? std::bit_cast<uint32_t>(x) & 0xffffe000 : to_tf32(x, away);
        if ((flags & kFinite) && (r & 0x7fffffff) == 0x7f800000) r = (r & 0x80000000) | 0x7f7fe000;
        return r;
    });
}

int32_t clamped(int32_t x, int32_t low, int32_t high) { return std::min(std::max(x, low), high); }

// cvt.pack: d = c << 2 n | saturated a << n | saturated b, in n bits each; Inst::extra: n, Inst::imm: signed.
void pack_integers(Warp& w, const Inst& i) {
    const int32_t *a = w.at<int32_t>(i.a), *b = w.at<int32_t>(i.b);
    const uint32_t* c = i.c == kNoRef ? nullptr : w.at<uint32_t>(i.c);
    const uint32_t bits = i.extra, mask = (1u << bits) - 1;
    const int32_t high = static_cast<int32_t>(i.imm ? mask >> 1 : mask), low = i.imm ? -high - 1 : 0;
    uint32_t r[kLanes];
    for (int l = 0; l < kLanes; ++l) {
        const auto one = [&](int32_t x) { return static_cast<uint32_t>(clamped(x, low, high)) & mask; };
        r[l] = one(a[l]) << bits | one(b[l]) | (c != nullptr ? c[l] << 2 * bits : 0);
    }
    each_lane<uint32_t>(w, i.d, [&](int l) { return r[l]; });
}

void cvt_pack(Builder& b) {
    if (!b.take("sat")) b.unsupported("cvt.pack without .sat");
    const Name to = b.take_next();
    if (b.take_next() != "s32") b.unsupported("type");
    const bool three = b.operands() == 4;
    if (three && b.take_next() != "b32") b.unsupported("type");
    b.done();
    uint32_t bits = 0;
    for (const uint32_t n : {2u, 4u, 8u, 16u})
        if (to.substr(1) == std::to_string(n) && (to[0] == 'u' || to[0] == 's')) bits = n;
    if (bits == 0 || (bits < 16) != three) b.unsupported("type");
    Inst& i = three ? emit_map(b, pack_integers, Class::convert, Type::b32, {Type::s32, Type::s32, Type::b32})
                    : emit_map(b, pack_integers, Class::convert, Type::b32, {Type::s32, Type::s32});
    i.extra = bits, i.imm = to[0] == 's';
}

void emit_cvt(Builder& b, Run run, uint16_t flags, Type to, std::initializer_list<Type> from, bool away = false) {
    Inst& i = emit_map(b, run, Class::convert, to, from);
    i.flags = flags, i.extra = away;
}

}  // namespace

bool is_packed_cvt(Name opcode) {
    constexpr Name marks[] = {".pack", "f16x2", ".e4m3", ".e5m2", ".tf32", ".relu", ".satfinite"};
    return std::ranges::any_of(marks, [&](Name m) { return opcode.find(m) != Name::npos; });
}

void packed_cvt(Builder& b) {
    if (b.take("pack")) return cvt_pack(b);
    uint16_t flags = 0;
    if (b.take("relu")) flags |= kRelu;
    if (b.take("satfinite")) flags |= kFinite;
    const bool away = b.take("rna"), to_zero = b.take("rz");
    if (to_zero) flags |= 1;
    if (!away && !to_zero && !b.take("rn")) b.unsupported("rounding");
    const Name to = b.take_next(), from = b.take_next();
    if (away != (to == "tf32" && away)) b.unsupported("rounding");
    if (to == "f16x2" && (from == "e4m3x2" || from == "e5m2x2"))
        return emit_cvt(b, from == "e4m3x2" ? halves_from_bytes<from_e4m3> : halves_from_bytes<from_e5m2>, flags,
                        Type::b32, {Type::b16});
    const bool bytes = to == "e4m3x2" || to == "e5m2x2";
    if (bytes && (!(flags & kFinite) || to_zero)) b.unsupported("8 bits without .rn.satfinite");
    if (bytes && from == "f16x2")
        return emit_cvt(b, to == "e4m3x2" ? bytes_from_halves<ToE4m3> : bytes_from_halves<ToE5m2>, flags, Type::b16,
                        {Type::b32});
    if (from != "f32") b.unsupported("type");
    if (to == "e4m3x2") return emit_cvt(b, two<ToE4m3>, flags, Type::b16, {Type::f32, Type::f32});
    if (to == "e5m2x2") return emit_cvt(b, two<ToE5m2>, flags, Type::b16, {Type::f32, Type::f32});
    if (to == "f16x2") return emit_cvt(b, two<ToHalf>, flags, Type::b32, {Type::f32, Type::f32});
    if (to == "bf16x2") return emit_cvt(b, two<ToBfloat>, flags, Type::b32, {Type::f32, Type::f32});
    if (to == "f16") return emit_cvt(b, one<ToHalf>, flags, Type::b16, {Type::f32});
    if (to == "bf16") return emit_cvt(b, one<ToBfloat>, flags, Type::b16, {Type::f32});
    if (to == "tf32") return emit_cvt(b, to_tf32_lanes, flags, Type::b32, {Type::f32}, away);
    b.unsupported("type");
}

}  // namespace emu::ops
