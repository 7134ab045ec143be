// Arithmetic with the carry flag: add.cc, addc, sub.cc, subc, mad.cc, madc. The flag is a predicate of the function. As
// in the machine code of ptxas, a difference is a sum with the complement: it leaves 1 where nothing is borrowed, and
// takes the flag so. That shows where sums and differences mix, as in nvcc's division of 128 bits.
#include "families.h"
#include "lanes.h"

namespace emu::ops {

namespace {

enum class Op { add, sub, mad_low, mad_high };

template <class U>
U high_half(U a, U b) {
    if constexpr (sizeof(U) == 4)
        return static_cast<U>(uint64_t{a} * b >> 32);
    else
        return static_cast<U>((static_cast<unsigned __int128>(a) * b) >> 64);
}

// The upper half of a product of signed numbers, from that of unsigned ones.
template <class U>
U high_half_signed(U a, U b) {
    constexpr int top = 8 * sizeof(U) - 1;
    return high_half(a, b) - (a >> top ? b : U(0)) - (b >> top ? a : U(0));
}

// Inst::extra: the flag, Inst::imm: bit 0 takes it, bit 1 leaves it.
template <class U, Op O, bool Signed>
void with_carry(Warp& w, const Inst& i) {
    const U *a = w.at<U>(i.a), *b = w.at<U>(i.b), *c = i.c == kNoRef ? a : w.at<U>(i.c);
    const uint32_t in = i.imm & 1 ? w.predicate(i.extra) : 0;
    uint32_t out = 0;
    U r[kLanes];
    for (int l = 0; l < kLanes; ++l) {
        const U flag = in >> l & 1;
        U x = a[l], y = b[l];
        if constexpr (O == Op::mad_low) x = a[l] * b[l], y = c[l];
        if constexpr (O == Op::mad_high) x = Signed ? high_half_signed(a[l], b[l]) : high_half(a[l], b[l]), y = c[l];
        bool over;
        if constexpr (O == Op::sub) {
            const U borrow = i.imm & 1 ? 1 - flag : 0;
            over = x > y || (x == y && !borrow);
            r[l] = x - y - borrow;
        } else {
            r[l] = x + y + flag;
            over = r[l] < x || (flag && r[l] == x);
        }
        out |= over ? 1u << l : 0;
    }
    each_lane<U>(w, i.d, [&](int l) { return r[l]; });
    if (i.imm & 2) w.set_predicate(i.extra, out);
}

template <class U>
Run run_of(Op op, bool is_signed) {
    switch (op) {
        case Op::add:
            return with_carry<U, Op::add, false>;
        case Op::sub:
            return with_carry<U, Op::sub, false>;
        case Op::mad_low:
            return with_carry<U, Op::mad_low, false>;
        default:
            return is_signed ? with_carry<U, Op::mad_high, true> : with_carry<U, Op::mad_high, false>;
    }
}

void emit_carry(Builder& b, Op op, bool takes) {
    const bool leaves = b.take("cc");
    const Type t = b.need_type();
    if (!(is_signed(t) || is_unsigned(t)) || bytes_of(t) < 4) b.unsupported("type");
    const bool three = op == Op::mad_low || op == Op::mad_high;
    const Run run = bytes_of(t) == 4 ? run_of<uint32_t>(op, is_signed(t)) : run_of<uint64_t>(op, is_signed(t));
    Inst& i = three ? emit_map(b, run, Class::integer, t, {t, t, t}) : emit_map(b, run, Class::integer, t, {t, t});
    i.extra = b.carry(), i.imm = takes | leaves << 1;
}

Op mad_of(Builder& b) {
    if (b.take("hi")) return Op::mad_high;
    if (!b.take("lo")) b.unsupported("product without .lo or .hi");
    return Op::mad_low;
}

}  // namespace

void add_carry(Builder& b, bool takes) { emit_carry(b, Op::add, takes); }
void sub_carry(Builder& b, bool takes) { emit_carry(b, Op::sub, takes); }
void mad_carry(Builder& b, bool takes) { emit_carry(b, mad_of(b), takes); }

}  // namespace emu::ops
