// atom and red: one lane after the other; in global memory as atomic operations of the host, because other blocks run
// on other threads.
#include <atomic>

#include "../memory/access.h"
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
Run atomic(F) {
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

// What an operation on numbers is made into: an instruction, or a step of a copy that reduces.
struct MakeRun {
    template <class T, class F>
    static Run of(F f) {
        return atomic<T>(f);
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

template <class Make, class U, class T, class F>
auto floating_atomic(F) {
    return Make::template of<U>(
        [](U o, U x, U) { return std::bit_cast<U>(canonical(F{}(std::bit_cast<T>(o), std::bit_cast<T>(x)))); });
}

template <class Make, class Format>
auto narrow_add(bool packed) {
    const auto add = [](uint16_t x, uint16_t y) { return Format::write(Format::read(x) + Format::read(y)); };
    using Add = decltype(add);
    if (!packed) return Make::template of<uint16_t>([](uint16_t o, uint16_t x, uint16_t) { return Add{}(o, x); });
    return Make::template of<uint32_t>([](uint32_t o, uint32_t x, uint32_t) {
        const auto half = [&](int s) -> uint32_t {
            return Add{}(static_cast<uint16_t>(o >> s), static_cast<uint16_t>(x >> s));
        };
        return half(0) | half(16) << 16;
    });
}

// The smaller or larger of two, the other where one is NaN.
template <class Format, bool Larger>
uint16_t narrow_extreme(uint16_t x, uint16_t y) {
    const auto a = Format::read(x), b = Format::read(y);
    return Format::write(Larger ? std::fmax(a, b) : std::fmin(a, b));
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
auto choose(Name op, Type t) -> decltype(choose_integer<Make, uint32_t>(op)) {
    if (op == "add") {
        if (t == Type::f32) return floating_atomic<Make, uint32_t, float>([](float x, float y) { return x + y; });
        if (t == Type::f64) return floating_atomic<Make, uint64_t, double>([](double x, double y) { return x + y; });
        if (t == Type::f16 || t == Type::f16x2) return narrow_add<Make, FormatHalf>(t == Type::f16x2);
        if (t == Type::bf16 || t == Type::bf16x2) return narrow_add<Make, FormatBfloat>(t == Type::bf16x2);
    }
    if constexpr (std::is_same_v<Make, MakeCombine>) {
        const auto extreme = [&]<class Format>() {
            if (op == "min")
                return Make::template of<uint16_t>(
                    [](uint16_t o, uint16_t x, uint16_t) { return narrow_extreme<Format, false>(o, x); });
            return op == "max" ? Make::template of<uint16_t>([](uint16_t o, uint16_t x, uint16_t) {
                return narrow_extreme<Format, true>(o, x);
            })
                               : nullptr;
        };
        if (t == Type::f16) return extreme.template operator()<FormatHalf>();
        if (t == Type::bf16) return extreme.template operator()<FormatBfloat>();
    }
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

void decode_atomic(Builder& b, bool returns) {
    const uint16_t strength = take_strength(b) | kStrongAccess;
    while (b.take("noftz") || b.take_prefix("L2::")) {
    }
    Space space = Space::generic;
    if (b.take("global"))
        space = Space::global;
    else if (b.take("shared") || b.take("shared::cta"))
        space = Space::shared;
    else if (b.take("shared::cluster"))
        space = Space::cluster;
    const Name op = b.take_any({"add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec"});
    const Type t = b.need_type();
    b.done();
    const Run run = choose<MakeRun>(op, t);
    if (run == nullptr) b.unsupported("operation or type");
    const uint32_t first = returns ? 1 : 0;
    Inst at;
    b.address(at, b.operand(first));
    const Ref x = b.source(b.operand(first + 1), t);
    const Ref y = op == "cas" ? b.source(b.operand(first + 2), t) : kNoRef;
    const Ref d = returns ? b.destination(b.operand(0), t) : kNoRef;
    Inst& i = b.emit(run, Class::memory);
    i.d = d, i.a = at.a, i.imm = at.imm, i.b = x, i.c = y;
    i.flags = static_cast<uint16_t>(at.flags | kStore | kAtomic | strength);
    i.space = space, i.bytes = static_cast<uint8_t>(bytes_of(t));
}

}  // namespace

Combine find_combine(Name op, Type t) { return choose<MakeCombine>(op, t); }

void atom(Builder& b) { decode_atomic(b, true); }
void red(Builder& b) { b.take("async") ? async_reduction(b) : decode_atomic(b, false); }

}  // namespace emu::ops
