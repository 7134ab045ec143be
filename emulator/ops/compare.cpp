// setp, selp, slct: comparisons and choices.
#include "families.h"
#include "floating.h"

namespace emu::ops {

namespace {

enum class Combine : uint8_t { none, conj, disj, exclusive };

Combine combine_of(Name name) {
    return name.empty()    ? Combine::none
           : name == "and" ? Combine::conj
           : name == "or"  ? Combine::disj
                           : Combine::exclusive;
}

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

// Subnormal numbers of f16 compare as zeros.
struct FlushedHalf {
    static float read(uint16_t x) {
        const float v = FormatHalf::read(x);
        return std::fabs(v) < FormatHalf::least ? 0.f : v;
    }
};

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
    if (ftz && t == Type::f16)
        return with_comparison(name, true, [](auto f) { return compare_narrow<FlushedHalf>(f); });
    if (ftz && t == Type::f16x2)
        return with_comparison(name, true, [](auto f) { return compare_pairs<FlushedHalf>(f); });
    if (ftz) b.unsupported("flushing of this type");
    if (t == Type::f64) return with_comparison(name, true, [](auto f) { return compare<double>(f); });
    if (t == Type::f16) return with_comparison(name, true, [](auto f) { return compare_narrow<FormatHalf>(f); });
    if (t == Type::bf16) return with_comparison(name, true, [](auto f) { return compare_narrow<FormatBfloat>(f); });
    if (t == Type::f16x2) return with_comparison(name, true, [](auto f) { return compare_pairs<FormatHalf>(f); });
    if (t == Type::bf16x2) return with_comparison(name, true, [](auto f) { return compare_pairs<FormatBfloat>(f); });
    return with_integer(
        b, t, [&](auto z) { return with_comparison(name, false, [](auto f) { return compare<decltype(z)>(f); }); });
}

struct Comparison {
    Name name, combine;
    bool ftz;
};

// The modifiers of setp and set, up to their types.
Comparison take_comparison(Builder& b) {
    const Name name = b.take_any({"eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs", "equ", "neu", "ltu",
                                  "leu", "gtu", "geu", "num", "nan"});
    const Name combine = b.take_any({"and", "or", "xor"});
    return {name, combine, b.take("ftz")};
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
    const auto [name, combine, ftz] = take_comparison(b);
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
    i.count = static_cast<uint8_t>(combine_of(combine));
    if (negated) i.flags |= kNegatedC;
}

namespace {

// The comparison sets two predicates of its own (list: p, q, the result); Inst::bytes: how the result is made.
enum Answer : uint8_t { ones2, ones4, float4, half2, bfloat2, halves4, bfloats4, pair_of_ones };

void set_number(Warp& w, const Inst& i) {
    const Ref* refs = w.list(i);
    Inst c = i;
    c.d = refs[0], c.extra = refs[1];
    reinterpret_cast<Run>(i.imm)(w, c);
    const uint32_t p = w.predicate(refs[0]), q = w.predicate(refs[1]);
    const auto word = [&](uint32_t yes) {
        each_lane<uint32_t>(w, refs[2], [=](int l) { return p >> l & 1 ? yes : 0; });
    };
    const auto short_word = [&](uint16_t yes) {
        each_lane<uint16_t>(w, refs[2], [=](int l) { return p >> l & 1 ? yes : uint16_t{0}; });
    };
    const auto pair = [&](uint32_t yes) {
        each_lane<uint32_t>(w, refs[2], [=](int l) { return (p >> l & 1 ? yes : 0) | (q >> l & 1 ? yes << 16 : 0); });
    };
    switch (static_cast<Answer>(i.bytes)) {
        case ones2:
            return short_word(0xffff);
        case ones4:
            return word(~0u);
        case float4:
            return word(std::bit_cast<uint32_t>(1.f));
        case half2:
            return short_word(0x3c00);
        case bfloat2:
            return short_word(0x3f80);
        case halves4:
            return pair(0x3c00);
        case bfloats4:
            return pair(0x3f80);
        case pair_of_ones:
            return pair(0xffff);
    }
}

Answer answer(Builder& b, Type t) {
    switch (t) {
        case Type::u16:
        case Type::s16:
            return ones2;
        case Type::u32:
        case Type::s32:
            return ones4;
        case Type::f32:
            return float4;
        case Type::f16:
            return half2;
        case Type::bf16:
            return bfloat2;
        case Type::f16x2:
            return halves4;
        case Type::bf16x2:
            return bfloats4;
        default:
            b.unsupported("type");
    }
}

}  // namespace

void set(Builder& b) {
    const auto [name, combine, ftz] = take_comparison(b);
    const Type to = type_of(b.take_next()), t = type_of(b.take_next());
    b.done();
    const bool pairs = t == Type::f16x2 || t == Type::bf16x2;
    const bool to_word = to == Type::u32 || to == Type::s32;
    if (pairs ? to != t && !to_word : to == Type::f16x2 || to == Type::bf16x2) b.unsupported("types");
    if (to == Type::f32 && (t == Type::f16 || t == Type::bf16)) b.unsupported("types");
    const Answer how = pairs && to_word ? pair_of_ones : answer(b, to);
    const Run run = comparison(b, name, t, ftz);
    if (run == nullptr) b.unsupported("comparison");
    const Ref x = b.source(b.operand(1), t), y = b.source(b.operand(2), t);
    const Ref c = combine.empty() ? kNoRef : b.predicate(b.operand(3));
    const bool negated = !combine.empty() && b.operand(3).negated;
    const Ref refs[] = {b.predicate_result("_"), b.predicate_result("_"), b.destination(b.operand(0), to)};
    const uint32_t list = b.add_list(refs);
    Inst& i = b.emit(set_number, is_float(t) ? Class::floating : Class::integer);
    i.a = x, i.b = y, i.c = c, i.list = list, i.bytes = how, i.count = static_cast<uint8_t>(combine_of(combine));
    i.imm = reinterpret_cast<int64_t>(run);
    if (negated) i.flags |= kNegatedC;
}

namespace {

template <class T, class F>
Run test(F) {
    return [](Warp& w, const Inst& i) {
        const T* a = w.at<T>(i.a);
        w.set_predicate(i.d, lanes_where([=](int l) { return F{}(a[l]); }));
    };
}

template <class T>
Run test_run(Name name) {
    constexpr T least = std::numeric_limits<T>::min(), most = std::numeric_limits<T>::max();
    if (name == "finite") return test<T>([](T x) { return std::fabs(x) <= most; });
    if (name == "infinite") return test<T>([](T x) { return std::fabs(x) > most; });
    if (name == "number") return test<T>([](T x) { return x == x; });
    if (name == "notanumber") return test<T>([](T x) { return x != x; });
    if (name == "normal") return test<T>([](T x) { return std::fabs(x) >= least && std::fabs(x) <= most; });
    return test<T>([](T x) { return std::fabs(x) < least && x != 0; });
}

}  // namespace

void testp(Builder& b) {
    const Name name = b.take_any({"finite", "infinite", "number", "notanumber", "normal", "subnormal"});
    const Type t = b.need_type();
    b.done();
    if (name.empty() || (t != Type::f32 && t != Type::f64)) b.unsupported("test");
    const Ref x = b.source(b.operand(1), t), p = b.predicate_result(b.operand(0).name);
    Inst& i = b.emit(t == Type::f32 ? test_run<float>(name) : test_run<double>(name), Class::floating);
    i.d = p, i.a = x;
}

void selp(Builder& b) {
    const Type t = b.need_type();
    const Run run = with_bits(b, t, [](auto z) { return select<decltype(z)>(); });
    b.done();
    const Ref x = b.source(b.operand(1), t), y = b.source(b.operand(2), t), p = b.truth(b.operand(3));
    const Ref d = b.destination(b.operand(0), t);
    Inst& i = b.emit(run, Class::move);
    i.d = d, i.a = x, i.b = y, i.c = p;
}

void slct(Builder& b) {
    const bool ftz = b.take("ftz");
    const Type t = b.need_type(), by = b.need_type();
    const Run run = with_bits(b, t, [&](auto z) {
        using T = decltype(z);
        if (ftz) return map<T, T, T, float>([](T x, T y, float c) { return flush(c) >= 0 ? x : y; });
        return by == Type::s32 ? map<T, T, T, int32_t>([](T x, T y, int32_t c) { return c >= 0 ? x : y; })
                               : map<T, T, T, float>([](T x, T y, float c) { return c >= 0 ? x : y; });
    });
    if ((by != Type::s32 || ftz) && by != Type::f32) b.unsupported("type");
    emit_map(b, run, Class::move, t, {t, t, by});
}

}  // namespace emu::ops
