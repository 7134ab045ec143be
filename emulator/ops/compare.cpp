// setp, selp, slct: comparisons and choices.
#include "families.h"
#include "floating.h"

namespace emu::ops {

namespace {

enum class Combine : uint8_t { none, conj, disj, exclusive };

// p and q = two comparisons, combined with a predicate.
void store(const Warp& w, const Inst& i, uint32_t result, uint32_t other) {
    const auto combine = static_cast<Combine>(i.count);
    if (combine != Combine::none) {
        const uint32_t c = w.predicate(i.c) ^ (i.flags & kNegatedC ? kAll : 0);
        const auto join = [&](uint32_t x) {
            return combine == Combine::conj ? x & c : combine == Combine::disj ? x | c : x ^ c;
        };
        result = join(result), other = join(other);
    }
    w.set_predicate(i.d, result);
    if (i.extra != kNoRef) w.set_predicate(i.extra, other);
}

// q is the complement.
void store(const Warp& w, const Inst& i, uint32_t result) { store(w, i, result, result ^ kAll); }

template <class T, class F>
Run compare(F) {
    return [](Warp& w, const Inst& i) {
        const T *a = w.at<T>(i.a), *b = w.at<T>(i.b);
        store(w, i, lanes_where([=](int l) { return F{}(a[l], b[l]); }));
    };
}

template <class F>
Run compare_flushed(F) {
    return [](Warp& w, const Inst& i) {
        const float *a = w.at<float>(i.a), *b = w.at<float>(i.b);
        store(w, i, lanes_where([=](int l) { return F{}(flush(a[l]), flush(b[l])); }));
    };
}

template <class Format, class F>
Run compare_narrow(F) {
    return [](Warp& w, const Inst& i) {
        const uint16_t *a = w.at<uint16_t>(i.a), *b = w.at<uint16_t>(i.b);
        store(w, i, lanes_where([=](int l) { return F{}(Format::read(a[l]), Format::read(b[l])); }));
    };
}

// Pairs: p is of the lower halves, q of the upper ones.
template <class Format, class F>
Run compare_pairs(F) {
    return [](Warp& w, const Inst& i) {
        const uint32_t *a = w.at<uint32_t>(i.a), *b = w.at<uint32_t>(i.b);
        const auto half = [=](int s) {
            return lanes_where([=](int l) {
                return F{}(Format::read(static_cast<uint16_t>(a[l] >> s)),
                           Format::read(static_cast<uint16_t>(b[l] >> s)));
            });
        };
        store(w, i, half(0), half(16));
    };
}

// g(a function of two numbers) for the comparison's name; null if there is no such.
template <class G>
Run with_comparison(Name name, bool floating, G g) {
    if (name == "eq") return g([](auto x, auto y) { return x == y; });
    if (name == "ne")
        return floating ? g([](auto x, auto y) { return x < y || x > y; }) : g([](auto x, auto y) { return x != y; });
    if (name == "lt" || (!floating && name == "lo")) return g([](auto x, auto y) { return x < y; });
    if (name == "le" || (!floating && name == "ls")) return g([](auto x, auto y) { return x <= y; });
    if (name == "gt" || (!floating && name == "hi")) return g([](auto x, auto y) { return x > y; });
    if (name == "ge" || (!floating && name == "hs")) return g([](auto x, auto y) { return x >= y; });
    if (!floating) return nullptr;
    if (name == "equ") return g([](auto x, auto y) { return !(x < y || x > y); });
    if (name == "neu") return g([](auto x, auto y) { return x != y; });
    if (name == "ltu") return g([](auto x, auto y) { return !(x >= y); });
    if (name == "leu") return g([](auto x, auto y) { return !(x > y); });
    if (name == "gtu") return g([](auto x, auto y) { return !(x <= y); });
    if (name == "geu") return g([](auto x, auto y) { return !(x < y); });
    if (name == "num") return g([](auto x, auto y) { return x == x && y == y; });
    if (name == "nan") return g([](auto x, auto y) { return x != x || y != y; });
    return nullptr;
}

Run comparison(Builder& b, Name name, Type t, bool ftz) {
    if (t == Type::f32)
        return with_comparison(name, true, [=](auto f) { return ftz ? compare_flushed(f) : compare<float>(f); });
    if (ftz) b.unsupported("flushing of this type");
    if (t == Type::f64) return with_comparison(name, true, [](auto f) { return compare<double>(f); });
    if (t == Type::f16) return with_comparison(name, true, [](auto f) { return compare_narrow<FormatHalf>(f); });
    if (t == Type::bf16) return with_comparison(name, true, [](auto f) { return compare_narrow<FormatBfloat>(f); });
    if (t == Type::f16x2) return with_comparison(name, true, [](auto f) { return compare_pairs<FormatHalf>(f); });
    if (t == Type::bf16x2) return with_comparison(name, true, [](auto f) { return compare_pairs<FormatBfloat>(f); });
    return with_integer(
        b, t, [&](auto z) { return with_comparison(name, false, [](auto f) { return compare<decltype(z)>(f); }); });
}

template <class T>
Run select() {
    return [](Warp& w, const Inst& i) {
        const T *a = w.at<T>(i.a), *b = w.at<T>(i.b);
        const uint32_t p = w.predicate(i.c);
        each_lane<T>(w, i.d, [=](int l) { return p >> l & 1 ? a[l] : b[l]; });
    };
}

}  // namespace

void setp(Builder& b) {
    const Name name = b.take_any({"eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs", "equ", "neu", "ltu",
                                  "leu", "gtu", "geu", "num", "nan"});
    const Name combine = b.take_any({"and", "or", "xor"});
    const bool ftz = b.take("ftz");
    const Type t = b.need_type();
    b.done();
    const Run run = comparison(b, name, t, ftz);
    if (run == nullptr) b.unsupported("comparison");
    const Ref x = b.source(b.operand(1), t), y = b.source(b.operand(2), t);
    const Ref p = b.predicate_result(b.operand(0).name);
    const Ref q = b.operand(0).second.empty() ? kNoRef : b.predicate_result(b.operand(0).second);
    const Ref c = combine.empty() ? kNoRef : b.predicate(b.operand(3));
    const bool negated = !combine.empty() && b.operand(3).negated;
    Inst& i = b.emit(run, Class::integer);
    if (is_float(t)) i.klass = Class::floating;
    i.d = p, i.extra = q, i.a = x, i.b = y, i.c = c;
    i.count = static_cast<uint8_t>(combine.empty()    ? Combine::none
                                   : combine == "and" ? Combine::conj
                                   : combine == "or"  ? Combine::disj
                                                      : Combine::exclusive);
    if (negated) i.flags |= kNegatedC;
}

void selp(Builder& b) {
    const Type t = b.need_type();
    const Run run = with_bits(b, t, [](auto z) { return select<decltype(z)>(); });
    b.done();
    const Ref x = b.source(b.operand(1), t), y = b.source(b.operand(2), t), p = b.predicate(b.operand(3));
    const Ref d = b.destination(b.operand(0), t);
    Inst& i = b.emit(run, Class::move);
    i.d = d, i.a = x, i.b = y, i.c = p;
}

void slct(Builder& b) {
    if (b.take("ftz")) b.unsupported("flushing");
    const Type t = b.need_type(), by = b.need_type();
    const Run run = with_bits(b, t, [&](auto z) {
        using T = decltype(z);
        return by == Type::s32 ? map<T, T, T, int32_t>([](T x, T y, int32_t c) { return c >= 0 ? x : y; })
                               : map<T, T, T, float>([](T x, T y, float c) { return c >= 0 ? x : y; });
    });
    if (by != Type::s32 && by != Type::f32) b.unsupported("type");
    emit_map(b, run, Class::move, t, {t, t, by});
}

}  // namespace emu::ops
