// Counting, finding, extracting, inserting and permuting bits.
#include "families.h"
#include "lanes.h"

namespace emu::ops {

namespace {

template <class F32, class F64>
void count_like(Builder& b, F32 f32, F64 f64) {
    const Type t = b.need_type();
    if (bytes_of(t) != 4 && bytes_of(t) != 8) b.unsupported("type");
    emit_map(b, bytes_of(t) == 4 ? map<uint32_t, uint32_t>(f32) : map<uint32_t, uint64_t>(f64), Class::integer,
             Type::u32, {t});
}

template <class T>
uint32_t find_highest(T x, bool shifted) {
    if (x == 0) return ~0u;
    const auto zeros = static_cast<uint32_t>(std::countl_zero(x));
    return shifted ? zeros : static_cast<uint32_t>(8 * sizeof(T) - 1) - zeros;
}

template <class T>
T magnitude(T x) {
    return std::is_signed_v<T> && x < T(0) ? static_cast<T>(~x) : x;
}

uint64_t reverse(uint64_t x) {
    uint64_t r = 0;
    for (int k = 0; k < 64; ++k) r |= (x >> k & 1) << (63 - k);
    return r;
}

template <class U, bool Signed>
U extract(U a, uint32_t position, uint32_t length) {
    constexpr uint32_t top = 8 * sizeof(U) - 1;
    position &= 0xff, length &= 0xff;
    const bool sign = Signed && length != 0 && (a >> (position + length - 1 < top ? position + length - 1 : top) & 1);
    const U field = position > top ? 0 : a >> position;
    const U mask = length > top ? ~U(0) : (U(1) << length) - 1;
    // bits beyond the number's top are the sign
    const U present = position > top ? 0 : ~U(0) >> position;
    return sign ? (field & mask & present) | ~(mask & present) : field & mask;
}

template <class U>
U insert(U a, U into, uint32_t position, uint32_t length) {
    constexpr uint32_t width = 8 * sizeof(U);
    position &= 0xff, length &= 0xff;
    if (position >= width || length == 0) return into;
    const U mask = (length >= width ? ~U(0) : (U(1) << length) - 1) << position;
    return (into & ~mask) | ((a << position) & mask);
}

template <class U>
Run insert_run() {
    return [](Warp& w, const Inst& i) {
        const Ref* r = w.list(i);
        const U *a = w.at<U>(r[0]), *into = w.at<U>(r[1]);
        const uint32_t *position = w.at<uint32_t>(r[2]), *length = w.at<uint32_t>(r[3]);
        each_lane<U>(w, i.d, [=](int l) { return insert(a[l], into[l], position[l], length[l]); });
    };
}

uint32_t permute(uint64_t both, uint32_t selector) {
    uint32_t r = 0;
    for (int k = 0; k < 4; ++k) {
        const uint32_t s = selector >> (4 * k) & 0xf;
        uint32_t byte = static_cast<uint32_t>(both >> (8 * (s & 7))) & 0xff;
        if (s & 8) byte = byte & 0x80 ? 0xff : 0;
        r |= byte << (8 * k);
    }
    return r;
}

// The modes of prmt, as the selectors that they stand for.
uint32_t mode_selector(Name mode, uint32_t n) {
    n &= 3;
    if (mode == "f4e") return 0x3210 + 0x1111 * n;
    if (mode == "b4e") {
        constexpr uint32_t s[] = {0x5670, 0x6701, 0x7012, 0x0123};
        return s[n];
    }
    if (mode == "rc8") return 0x1111 * n;
    if (mode == "ecl") {
        constexpr uint32_t s[] = {0x3210, 0x3211, 0x3222, 0x3333};
        return s[n];
    }
    if (mode == "ecr") {
        constexpr uint32_t s[] = {0x0000, 0x1110, 0x2210, 0x3210};
        return s[n];
    }
    return n & 1 ? 0x3232 : 0x1010;  // rc16
}

uint32_t lookup(uint32_t a, uint32_t b, uint32_t c, uint32_t table) {
    uint32_t r = 0;
    for (uint32_t k = 0; k < 8; ++k)
        if (table >> k & 1) r |= (k & 4 ? a : ~a) & (k & 2 ? b : ~b) & (k & 1 ? c : ~c);
    return r;
}

}  // namespace

void popc(Builder& b) {
    count_like(b, [](uint32_t x) { return std::popcount(x); }, [](uint64_t x) { return std::popcount(x); });
}

void clz(Builder& b) {
    count_like(b, [](uint32_t x) { return std::countl_zero(x); }, [](uint64_t x) { return std::countl_zero(x); });
}

void bfind(Builder& b) {
    const bool shifted = b.take("shiftamt");
    const Type t = b.need_type();
    // of a negative number, the highest bit that is not the sign's
    Run run = with_integer(b, t, [&](auto z) -> Run {
        using T = decltype(z);
        if constexpr (sizeof(T) < 4)
            return nullptr;
        else {
            using U = std::make_unsigned_t<T>;
            return shifted ? map<uint32_t, T>([](T x) { return find_highest<U>(magnitude(x), true); })
                           : map<uint32_t, T>([](T x) { return find_highest<U>(magnitude(x), false); });
        }
    });
    if (run == nullptr) b.unsupported("type");
    emit_map(b, run, Class::integer, Type::u32, {t});
}

void brev(Builder& b) {
    const Type t = b.need_type();
    if (t != Type::b32 && t != Type::b64) b.unsupported("type");
    emit_map(b,
             t == Type::b32 ? map<uint32_t, uint32_t>([](uint32_t x) { return reverse(x) >> 32; })
                            : map<uint64_t, uint64_t>([](uint64_t x) { return reverse(x); }),
             Class::integer, t, {t});
}

void bfe(Builder& b) {
    const Type t = b.need_type();
    Run run = nullptr;
    using N = uint32_t;
    if (t == Type::u32) run = map<N, N, N, N>([](N x, N p, N n) { return extract<N, false>(x, p, n); });
    if (t == Type::s32) run = map<N, N, N, N>([](N x, N p, N n) { return extract<N, true>(x, p, n); });
    using W = uint64_t;
    if (t == Type::u64) run = map<W, W, N, N>([](W x, N p, N n) { return extract<W, false>(x, p, n); });
    if (t == Type::s64) run = map<W, W, N, N>([](W x, N p, N n) { return extract<W, true>(x, p, n); });
    if (run == nullptr) b.unsupported("type");
    emit_map(b, run, Class::integer, t, {t, Type::u32, Type::u32});
}

void bfi(Builder& b) {
    const Type t = b.need_type();
    b.done();
    if (t != Type::b32 && t != Type::b64) b.unsupported("type");
    const Ref refs[] = {b.source(b.operand(1), t), b.source(b.operand(2), t), b.source(b.operand(3), Type::u32),
                        b.source(b.operand(4), Type::u32)};
    const Ref d = b.destination(b.operand(0), t);
    const uint32_t list = b.add_list(refs);
    Inst& i = b.emit(t == Type::b32 ? insert_run<uint32_t>() : insert_run<uint64_t>(), Class::integer);
    i.d = d, i.list = list;
}

void prmt(Builder& b) {
    const Name mode = b.take_any({"f4e", "b4e", "rc8", "ecl", "ecr", "rc16"});
    const Type t = b.need_type();
    if (t != Type::b32) b.unsupported("type");
    using U = uint32_t;
    static constexpr auto both = [](U x, U y) { return uint64_t{y} << 32 | x; };
    Run run = map<U, U, U, U>([](U x, U y, U s) { return permute(both(x, y), s); });
#define EMU_MODE(name) \
    if (mode == name) run = map<U, U, U, U>([](U x, U y, U s) { return permute(both(x, y), mode_selector(name, s)); })
    EMU_MODE("f4e");
    EMU_MODE("b4e");
    EMU_MODE("rc8");
    EMU_MODE("ecl");
    EMU_MODE("ecr");
    EMU_MODE("rc16");
#undef EMU_MODE
    emit_map(b, run, Class::integer, t, {t, t, Type::u32});
}

namespace {

// d|p: p = (d != 0) combined with a predicate.
void lop3_predicate(Builder& b, Name combine, std::array<Ref, 4> refs, uint32_t table) {
    const Operand& given = b.operand(5);
    if (b.operand(0).second.empty()) b.unsupported("lop3 without a predicate to set");
    const Ref list[] = {b.predicate_result(b.operand(0).second), b.predicate(given)};
    const uint32_t at = b.add_list(list);
    Inst& i = b.emit(
        [](Warp& w, const Inst& i) {
            const uint32_t *a = w.at<uint32_t>(i.a), *b = w.at<uint32_t>(i.b), *c = w.at<uint32_t>(i.c);
            const Ref* predicates = w.list(i);
            const uint32_t table = i.extra, q = w.predicate(predicates[1]) ^ (i.flags & kNegatedC ? kAll : 0);
            const uint32_t set = lanes_where([=](int l) { return lookup(a[l], b[l], c[l], table) != 0; });
            each_lane<uint32_t>(w, i.d, [=](int l) { return lookup(a[l], b[l], c[l], table); });
            w.set_predicate(predicates[0], i.count == 0 ? set & q : set | q);
        },
        Class::integer);
    i.d = refs[0], i.a = refs[1], i.b = refs[2], i.c = refs[3], i.extra = table, i.list = at;
    i.count = combine == "and" ? 0 : 1;
    if (given.negated) i.flags |= kNegatedC;
}

}  // namespace

void lop3(Builder& b) {
    const Name combine = b.take_any({"and", "or"});
    const Type t = b.need_type();
    b.done();
    if (t != Type::b32) b.unsupported("type");
    const Ref x = b.source(b.operand(1), t), y = b.source(b.operand(2), t), z = b.source(b.operand(3), t);
    if (b.operand(4).kind != Operand::integer) b.unsupported("a table that is no number");
    const uint64_t table = b.operand(4).bits;
    const Ref d = b.destination(b.operand(0), t);
    if (!combine.empty()) return lop3_predicate(b, combine, {d, x, y, z}, static_cast<uint32_t>(table));
    if (b.operands() != 5) b.unsupported("number of operands");
    Inst& i = b.emit(
        [](Warp& w, const Inst& i) {
            const uint32_t *a = w.at<uint32_t>(i.a), *b = w.at<uint32_t>(i.b), *c = w.at<uint32_t>(i.c);
            const auto table = static_cast<uint32_t>(i.imm);
            each_lane<uint32_t>(w, i.d, [=](int l) { return lookup(a[l], b[l], c[l], table); });
        },
        Class::integer);
    i.d = d, i.a = x, i.b = y, i.c = z, i.imm = static_cast<int64_t>(table);
}

void bmsk(Builder& b) {
    const bool wraps = b.take("wrap");
    if (!wraps) b.take("clamp");
    const Type t = b.need_type();
    if (t != Type::b32) b.unsupported("type");
    using U = uint32_t;
    static constexpr auto mask = [](U from, U n) {
        return from >= 32 || n == 0 ? 0u : static_cast<U>((n >= 32 ? ~0u : (1u << n) - 1) << from);
    };
    emit_map(b, wraps ? map<U, U, U>([](U p, U n) { return mask(p & 31, n & 31); }) : map<U, U, U>([](U p, U n) {
                 return mask(p, n);
             }),
             Class::integer, t, {Type::u32, Type::u32});
}

}  // namespace emu::ops
