// Lanes that exchange numbers: shfl, vote, match, redux, elect.
#include "../exec/block.h"
#include "families.h"
#include "lanes.h"

namespace emu::ops {

namespace {

// Waits until all lanes that the masks of these lanes name are here.
bool gathered(Warp& w, const Inst& i, Ref masks) {
    const uint32_t* m = w.at<uint32_t>(masks);
    uint32_t all = 0;
    for_lanes(w.mask, [&](int l) { all |= m[l]; });
    for_lanes(w.mask, [&](int l) {
        if (!(m[l] >> l & 1)) fail(w, i, launch_failed, l, "is not in its own member mask");
    });
    return together(w, i, all);
}

enum Mode : uint32_t { up, down, bfly, idx };

void shuffle(Warp& w, const Inst& i) {
    const Ref* refs = w.list(i);  // masks
    if (!gathered(w, i, refs[0])) return;
    const uint32_t *a = w.at<uint32_t>(i.a), *by = w.at<uint32_t>(i.b), *c = w.at<uint32_t>(i.c);
    uint32_t result[kLanes] = {}, valid = 0;
    for_lanes(w.mask, [&](int lane) {
        const auto l = static_cast<uint32_t>(lane);
        const uint32_t clamp = c[l] & 31, segment = c[l] >> 8 & 31, b = by[l] & 31;
        const uint32_t least = l & segment, most = (l & segment) | (clamp & ~segment);
        uint32_t from = 0;
        bool inside = false;
        switch (static_cast<Mode>(i.extra)) {
            case up:
                from = l - b, inside = static_cast<int32_t>(from) >= static_cast<int32_t>(most);
                break;
            case down:
                from = l + b, inside = from <= most;
                break;
            case bfly:
                from = l ^ b, inside = from <= most;
                break;
            case idx:
                from = least | (b & ~segment), inside = from <= most;
                break;
        }
        if (!inside) from = l;
        if (inside) valid |= 1u << l;
        if (!(w.mask >> from & 1))
            fail(w, i, launch_failed, lane, concat("shuffles from lane ", from, ", which does not take part"));
        result[l] = a[from];
    });
    each_lane<uint32_t>(w, i.d, [&](int l) { return result[l]; });
    if (i.imm) w.set_predicate(refs[1], valid);
}

template <class T, class F>
Run reduce(F) {
    return [](Warp& w, const Inst& i) {
        if (!gathered(w, i, i.b)) return;
        const T* a = w.at<T>(i.a);
        const uint32_t* members = w.at<uint32_t>(i.b);
        T result[kLanes] = {};
        for_lanes(w.mask, [&](int l) {
            bool first = true;
            T r{};
            for_lanes(members[l] & w.mask, [&](int k) {
                r = first ? a[k] : F{}(r, a[k]);
                first = false;
            });
            result[l] = r;
        });
        each_lane<T>(w, i.d, [&](int l) { return result[l]; });
    };
}

}  // namespace

void shfl(Builder& b) {
    if (!b.take("sync")) b.unsupported("shuffle without .sync");
    const Name mode = b.take_any({"up", "down", "bfly", "idx"});
    const Type t = b.need_type();
    b.done();
    if (t != Type::b32 || mode.empty()) b.unsupported("shuffle");
    const Operand& to = b.operand(0);
    const Ref a = b.source(b.operand(1), t), by = b.source(b.operand(2), Type::u32),
              c = b.source(b.operand(3), Type::u32);
    const Ref refs[] = {b.source(b.operand(4), Type::u32), to.second.empty() ? kNoRef : b.predicate_result(to.second)};
    const Ref d = b.destination(to, t);
    const uint32_t list = b.add_list(refs);
    Inst& i = b.emit(shuffle, Class::shuffle);
    i.d = d, i.a = a, i.b = by, i.c = c, i.list = list, i.imm = !to.second.empty();
    i.extra = mode == "up" ? up : mode == "down" ? down : mode == "bfly" ? bfly : idx;
}

void vote(Builder& b) {
    if (!b.take("sync")) b.unsupported("vote without .sync");
    const Name mode = b.take_any({"all", "any", "uni", "ballot"});
    const Type t = b.need_type();
    b.done();
    const Ref members = b.source(b.operand(2), Type::u32), p = b.predicate(b.operand(1));
    const bool ballot = mode == "ballot", negated = b.operand(1).negated;
    if (mode.empty() || (t == Type::b32) != ballot) b.unsupported("vote");
    const Ref d = ballot ? b.destination(b.operand(0), 4) : b.predicate_result(b.operand(0).name);
    Inst& i = b.emit(
        [](Warp& w, const Inst& i) {
            if (!gathered(w, i, i.b)) return;
            const uint32_t p = w.predicate(i.a) ^ (i.flags & kNegatedC ? kAll : 0), *members = w.at<uint32_t>(i.b);
            if (i.extra == 3) {
                const uint32_t mask = w.mask;
                each_lane<uint32_t>(w, i.d, [=](int l) { return p & members[l] & mask; });
                return;
            }
            uint32_t result = 0;
            for_lanes(w.mask, [&](int l) {
                const uint32_t all = members[l] & w.mask, yes = p & all;
                const bool r = i.extra == 0 ? yes == all : i.extra == 1 ? yes != 0 : yes == all || yes == 0;
                result |= r ? 1u << l : 0;
            });
            w.set_predicate(i.d, result);
        },
        Class::shuffle);
    i.d = d, i.a = p, i.b = members, i.extra = mode == "all" ? 0 : mode == "any" ? 1 : mode == "uni" ? 2 : 3;
    if (negated) i.flags |= kNegatedC;
}

void match(Builder& b) {
    const bool all = b.take("all");
    if ((!all && !b.take("any")) || !b.take("sync")) b.unsupported("match");
    const Type t = b.need_type();
    b.done();
    const Operand& to = b.operand(0);
    const Ref a = b.source(b.operand(1), t), members = b.source(b.operand(2), Type::u32);
    const Ref d = b.destination(to, 4), p = to.second.empty() ? kNoRef : b.predicate_result(to.second);
    const Run run = with_bits(b, t, [](auto z) -> Run {
        return [](Warp& w, const Inst& i) {
            using T = decltype(z);
            if (!gathered(w, i, i.b)) return;
            const T* a = w.at<T>(i.a);
            const uint32_t* members = w.at<uint32_t>(i.b);
            uint32_t same[kLanes] = {}, alike = 0;
            for_lanes(w.mask, [&](int l) {
                for_lanes(members[l] & w.mask, [&](int k) { same[l] |= a[k] == a[l] ? 1u << k : 0; });
                if (same[l] == (members[l] & w.mask)) alike |= 1u << l;
                if (i.imm && !(alike >> l & 1)) same[l] = 0;
            });
            each_lane<uint32_t>(w, i.d, [&](int l) { return same[l]; });
            if (i.extra != kNoRef) w.set_predicate(i.extra, alike);
        };
    });
    Inst& i = b.emit(run, Class::shuffle);
    i.d = d, i.a = a, i.b = members, i.extra = p, i.imm = all;
}

void redux(Builder& b) {
    if (!b.take("sync")) b.unsupported("redux");
    const Name op = b.take_any({"add", "min", "max", "and", "or", "xor"});
    const Type t = b.need_type();
    using U = uint32_t;
    using S = int32_t;
    Run run = nullptr;
    if (op == "add" && (t == Type::u32 || t == Type::s32)) run = reduce<U>([](U x, U y) { return x + y; });
    if (op == "min" && t == Type::u32) run = reduce<U>([](U x, U y) { return x < y ? x : y; });
    if (op == "max" && t == Type::u32) run = reduce<U>([](U x, U y) { return x < y ? y : x; });
    if (op == "min" && t == Type::s32) run = reduce<S>([](S x, S y) { return x < y ? x : y; });
    if (op == "max" && t == Type::s32) run = reduce<S>([](S x, S y) { return x < y ? y : x; });
    if (op == "and" && t == Type::b32) run = reduce<U>([](U x, U y) { return x & y; });
    if (op == "or" && t == Type::b32) run = reduce<U>([](U x, U y) { return x | y; });
    if (op == "xor" && t == Type::b32) run = reduce<U>([](U x, U y) { return x ^ y; });
    if (run == nullptr) b.unsupported("reduction");
    emit_map(b, run, Class::shuffle, t, {t, Type::u32});
}

void elect(Builder& b) {
    if (!b.take("sync")) b.unsupported("elect");
    b.done();
    const Operand& to = b.operand(0);
    const Ref members = b.source(b.operand(1), Type::u32);
    const Ref d = b.destination(to, 4), p = b.predicate_result(to.second);
    Inst& i = b.emit(
        [](Warp& w, const Inst& i) {
            if (!gathered(w, i, i.b)) return;
            const auto leader = static_cast<uint32_t>(std::countr_zero(w.mask));
            each_lane<uint32_t>(w, i.d, [=](int) { return leader; });
            w.set_predicate(i.extra, 1u << leader);
        },
        Class::shuffle);
    i.d = d, i.b = members, i.extra = p;
}

}  // namespace emu::ops
