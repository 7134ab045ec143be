// atom and red: one lane after the other; in global memory as atomic operations of the host, because other blocks run
// on other threads.
#include <atomic>

#include "../memory/access.h"
#include "../memory/spaces.h"
#include "combine.h"
#include "families.h"
#include "floating.h"

namespace emu::ops {

namespace {

// old = *p; *p = f(old, b, c), atomically. Shared memory belongs to one thread of the host.
template <class T, class F>
T exchange(T* p, F f) {
    std::atomic_ref<T> cell(*p);
    T old = cell.load(std::memory_order_relaxed);
    while (!cell.compare_exchange_weak(old, f(old), std::memory_order_seq_cst)) {
    }
    return old;
}

template <class T, class F>
constexpr Run atomic(F) {
    return [](Warp& w, const Inst& i) {
        Pointers p;
        resolve(w, i, p);
        const T *b = w.at<T>(i.b), *c = i.c == kNoRef ? b : w.at<T>(i.c);
        T* d = i.d == kNoRef ? nullptr : w.at<T>(i.d);
        for_lanes(w.mask, [&](int l) {
            const T x = b[l], y = c[l];
            const T old = exchange(reinterpret_cast<T*>(p.at[l]), [=](T o) -> T { return F{}(o, x, y); });
            if (d != nullptr) d[l] = old;
        });
        acquire_global(w, i, p);
    };
}

// Element by element, each atomic by itself. i.list: what goes in and, where old values are asked for, where they go.
template <class T, class F>
void vector_atomic(Warp& w, const Inst& i) {
    Pointers p;
    resolve(w, i, p);
    const Ref* list = w.list(i);
    const bool returns = i.extra != 0;
    for_lanes(w.mask, [&](int l) {
        T x[8];
        for (int k = 0; k < i.count; ++k) x[k] = w.at<T>(list[k])[l];  // before any old value takes a register's place
        for (int k = 0; k < i.count; ++k) {
            const T old = exchange(reinterpret_cast<T*>(p.at[l]) + k, [&](T o) -> T { return F{}(o, x[k], x[k]); });
            if (const Ref d = returns ? list[i.count + k] : kNoRef; d != kNoRef) w.at<T>(d)[l] = old;
        }
    });
    acquire_global(w, i, p);
}

// What an operation on numbers is made into: an instruction, on one number or on a vector, or a step of a copy that
// reduces.
struct MakeRun {
    template <class T, class F>
    static constexpr Run of(F f) {
        return atomic<T>(f);
    }
};
struct MakeVector {
    template <class T, class F>
    static Run of(F) {
        return vector_atomic<T, F>;
    }
};
struct MakeCombine {
    template <class T, class F>
    static Combine of(F) {
        return [](char* to, const char* from, uint32_t bytes) {
            for (uint32_t k = 0; k < bytes; k += sizeof(T)) {
                T x;
                std::memcpy(&x, from + k, sizeof x);
                exchange(reinterpret_cast<T*>(to + k), [=](T o) -> T { return F{}(o, x, x); });
            }
        };
    }
};

template <class Make, class U, class T, bool Flushes = false>
constexpr auto floating_add() {
    return Make::template of<U>([](U o, U x, U) {
        const auto number = [](U bits) { return Flushes ? flush(std::bit_cast<T>(bits)) : std::bit_cast<T>(bits); };
        const T sum = canonical(number(o) + number(x));
        return std::bit_cast<U>(Flushes ? flush(sum) : sum);
    });
}

// The units of global memory take subnormal numbers of f32 for zero, those of shared memory keep them (PTX ISA, atom).
void add_f32_anywhere(Warp& w, const Inst& i) {
    uint64_t address[kLanes];
    addresses(w, i.a, (i.flags & kWideAddress) != 0, i.imm, address);
    const uint32_t all = w.mask;
    uint32_t global = 0;
    for_lanes(all, [&](int l) { global |= uint32_t{(address[l] & kWindowBits) == 0} << l; });
    if ((w.mask = global) != 0) floating_add<MakeRun, uint32_t, float, true>()(w, i);
    if ((w.mask = all & ~global) != 0) floating_add<MakeRun, uint32_t, float>()(w, i);
    w.mask = all;
}

// The smaller or larger of two, the other where one is NaN.
template <class Format, bool Larger>
uint16_t narrow_extreme(uint16_t x, uint16_t y) {
    const auto a = Format::read(x), b = Format::read(y);
    return Format::write(Larger ? std::fmax(a, b) : std::fmin(a, b));
}

// f on 16 bits, or on both halves of 32.
template <class Make, class F>
auto narrow(bool packed, F) {
    if (!packed) return Make::template of<uint16_t>([](uint16_t o, uint16_t x, uint16_t) { return F{}(o, x); });
    return Make::template of<uint32_t>([](uint32_t o, uint32_t x, uint32_t) {
        const auto half = [&](int s) -> uint32_t {
            return F{}(static_cast<uint16_t>(o >> s), static_cast<uint16_t>(x >> s));
        };
        return half(0) | half(16) << 16;
    });
}

template <class Make, class Format>
auto choose_narrow(Name op, bool packed)
    -> decltype(Make::template of<uint32_t>([](uint32_t, uint32_t x, uint32_t) { return x; })) {
    if (op == "add")
        return narrow<Make>(packed,
                            [](uint16_t x, uint16_t y) { return Format::write(Format::read(x) + Format::read(y)); });
    if constexpr (!std::is_same_v<Make, MakeRun>) {  // atom and red of single numbers have no others
        if (op == "min")
            return narrow<Make>(packed, [](uint16_t x, uint16_t y) { return narrow_extreme<Format, false>(x, y); });
        if (op == "max")
            return narrow<Make>(packed, [](uint16_t x, uint16_t y) { return narrow_extreme<Format, true>(x, y); });
    }
    return nullptr;
}

template <class Make, class T>
auto choose_integer(Name op) -> decltype(Make::template of<T>([](T, T x, T) { return x; })) {
    using U = std::make_unsigned_t<T>;
    if (op == "exch") return Make::template of<T>([](T, T x, T) { return x; });
    if (op == "cas") return Make::template of<T>([](T o, T x, T y) { return o == x ? y : o; });
    if constexpr (sizeof(T) >= 4) {
        if (op == "add")
            return Make::template of<T>(
                [](T o, T x, T) { return static_cast<T>(static_cast<U>(o) + static_cast<U>(x)); });
        if (op == "min") return Make::template of<T>([](T o, T x, T) { return o < x ? o : x; });
        if (op == "max") return Make::template of<T>([](T o, T x, T) { return o < x ? x : o; });
        if (op == "and") return Make::template of<T>([](T o, T x, T) { return static_cast<T>(o & x); });
        if (op == "or") return Make::template of<T>([](T o, T x, T) { return static_cast<T>(o | x); });
        if (op == "xor") return Make::template of<T>([](T o, T x, T) { return static_cast<T>(o ^ x); });
        if (op == "inc")
            return Make::template of<T>(
                [](T o, T x, T) { return static_cast<U>(o) >= static_cast<U>(x) ? T(0) : static_cast<T>(o + 1); });
        if (op == "dec")
            return Make::template of<T>([](T o, T x, T) {
                return o == 0 || static_cast<U>(o) > static_cast<U>(x) ? x : static_cast<T>(o - 1);
            });
    }
    return nullptr;
}

template <class Make>
auto choose(Name op, Type t, bool in_shared) -> decltype(choose_integer<Make, uint32_t>(op)) {
    if (op == "add") {
        if (t == Type::f32)
            return in_shared ? floating_add<Make, uint32_t, float>() : floating_add<Make, uint32_t, float, true>();
        if (t == Type::f64) return floating_add<Make, uint64_t, double>();
    }
    if (t == Type::f16 || t == Type::f16x2) return choose_narrow<Make, FormatHalf>(op, t == Type::f16x2);
    if (t == Type::bf16 || t == Type::bf16x2) return choose_narrow<Make, FormatBfloat>(op, t == Type::bf16x2);
    switch (t) {
        case Type::b16:
        case Type::u16:
            return choose_integer<Make, uint16_t>(op);
        case Type::s16:
            return choose_integer<Make, int16_t>(op);
        case Type::b32:
        case Type::u32:
            return choose_integer<Make, uint32_t>(op);
        case Type::s32:
            return choose_integer<Make, int32_t>(op);
        case Type::b64:
        case Type::u64:
            return choose_integer<Make, uint64_t>(op);
        case Type::s64:
            return choose_integer<Make, int64_t>(op);
        default:
            return nullptr;
    }
}

std::span<const Operand> elements(Builder& b, uint32_t at, uint32_t count) {
    const std::span<const Operand> found = b.items(b.operand(at));
    if (found.size() != count) b.unsupported("number of elements");
    return found;
}

void decode_atomic(Builder& b, bool returns) {
    const uint16_t strength = take_strength(b) | kStrongAccess;
    Space space = Space::generic;
    if (b.take("global"))
        space = Space::global;
    else if (b.take("shared") || b.take("shared::cta"))
        space = Space::shared;
    else if (b.take("shared::cluster"))
        space = Space::cluster;
    const Name op = b.take_any({"add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec"});
    b.take("noftz");
    while (b.take_prefix("L2::")) {
    }
    const uint32_t vector = b.take("v2") ? 2 : b.take("v4") ? 4 : b.take("v8") ? 8 : 1;
    const Type t = b.need_type();
    b.done();
    const uint32_t bytes = bytes_of(t) * vector;
    const bool has_vectors = is_float(t) && t != Type::f64 && (space == Space::global || space == Space::generic);
    Run run = nullptr;
    if (vector == 1)
        run = choose<MakeRun>(op, t, space == Space::shared || space == Space::cluster);
    else if (has_vectors && bytes <= 16)
        run = choose<MakeVector>(op, t, false);
    if (run != nullptr && vector == 1 && op == "add" && t == Type::f32 && space == Space::generic)
        run = add_f32_anywhere;
    if (run == nullptr) b.unsupported("operation or type");
    const uint32_t first = returns ? 1 : 0;
    b.policy(first + (op == "cas" ? 3 : 2));
    Inst at;
    b.address(at, b.operand(first));
    Inst made;
    if (vector == 1) {
        made.b = b.source(b.operand(first + 1), t);
        made.c = op == "cas" ? b.source(b.operand(first + 2), t) : kNoRef;
        made.d = returns ? b.destination(b.operand(0), t) : kNoRef;
    } else {
        std::vector<Ref> refs;
        for (const Operand& o : elements(b, first + 1, vector)) refs.push_back(b.source(o, t));
        if (returns)
            for (const Operand& o : elements(b, 0, vector)) refs.push_back(b.destination(o, t));
        made.list = b.add_list(refs);
    }
    Inst& i = b.emit(run, Class::memory);
    i.d = made.d, i.a = at.a, i.imm = at.imm, i.b = made.b, i.c = made.c, i.list = made.list;
    i.flags = static_cast<uint16_t>(at.flags | kStore | kAtomic | strength);
    i.space = space, i.bytes = static_cast<uint8_t>(bytes), i.count = static_cast<uint8_t>(vector), i.extra = returns;
}

}  // namespace

Combine find_combine(Name op, Type t) { return choose<MakeCombine>(op, t, false); }

void atom(Builder& b) { decode_atomic(b, true); }
void red(Builder& b) { b.take("async") ? async_reduction(b) : decode_atomic(b, false); }

}  // namespace emu::ops
