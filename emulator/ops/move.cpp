// mov, with packing and unpacking; cvta, isspacep.
#include "../exec/cluster.h"
#include "../memory/spaces.h"
#include "families.h"
#include "lanes.h"

namespace emu::ops {

namespace {

template <class T>
Run copy() {
    return map<T, T>([](T x) { return x; });
}

// {pieces} = whole: the lowest bits first.
template <class Whole, class Piece>
Run split() {
    return [](Warp& w, const Inst& i) {
        const Whole* a = w.at<Whole>(i.a);
        const Ref* to = w.list(i);
        Whole kept[kLanes];
        std::memcpy(kept, a, sizeof kept);  // a piece may be stored over the whole
        for (uint32_t k = 0; k < sizeof(Whole) / sizeof(Piece); ++k)
            each_lane<Piece>(w, to[k], [&](int l) { return static_cast<Piece>(kept[l] >> (8 * sizeof(Piece) * k)); });
    };
}

template <class Whole, class Piece>
Run join() {
    return [](Warp& w, const Inst& i) {
        const Ref* from = w.list(i);
        Whole all[kLanes] = {};
        for (uint32_t k = 0; k < sizeof(Whole) / sizeof(Piece); ++k) {
            const Piece* p = w.at<Piece>(from[k]);
            for (int l = 0; l < kLanes; ++l) all[l] |= static_cast<Whole>(p[l]) << (8 * sizeof(Piece) * k);
        }
        each_lane<Whole>(w, i.d, [&](int l) { return all[l]; });
    };
}

void repack(Builder& b, Type t, const Operand& pieces, bool splits) {
    const auto items = b.items(pieces);
    const uint32_t whole = bytes_of(t), n = static_cast<uint32_t>(items.size());
    Run run = nullptr;
    Type piece = Type::none;
    if (whole == 4 && n == 2)
        piece = Type::b16, run = splits ? split<uint32_t, uint16_t>() : join<uint32_t, uint16_t>();
    if (whole == 8 && n == 2)
        piece = Type::b32, run = splits ? split<uint64_t, uint32_t>() : join<uint64_t, uint32_t>();
    if (whole == 8 && n == 4)
        piece = Type::b16, run = splits ? split<uint64_t, uint16_t>() : join<uint64_t, uint16_t>();
    if (run == nullptr) b.unsupported("number of pieces");
    std::vector<Ref> refs;
    for (const Operand& o : items) refs.push_back(splits ? b.destination(o, piece) : b.source(o, piece));
    const uint32_t list = b.add_list(refs);
    const Ref other = splits ? b.source(b.operand(1), t) : b.destination(b.operand(0), t);
    Inst& i = b.emit(run, Class::move);
    i.list = list;
    (splits ? i.a : i.d) = other;
}

// Time is counted in instructions of warps, those of the blocks that the same thread of the host ran before included.
template <class T, int Shift>
void read_clock(Warp& w, const Inst& i) {
    uint64_t now = 0;
    for (const uint64_t n : w.block->counters.instructions) now += n;
    each_lane<T>(w, i.d, [=](int) { return static_cast<T>(now >> Shift); });
}

// Special registers that change, or that have more or less than 32 bits.
bool moved_special(Builder& b, Type t) {
    const Name name = b.operand(1).name;
    const bool wide = bytes_of(t) == 8;
    Run run = nullptr;
    if (name == "%clock" || name == "%globaltimer_lo") run = wide ? nullptr : read_clock<uint32_t, 0>;
    if (name == "%clock_hi" || name == "%globaltimer_hi") run = wide ? nullptr : read_clock<uint32_t, 32>;
    if (name == "%clock64" || name == "%globaltimer") run = wide ? read_clock<uint64_t, 0> : nullptr;
    if (run != nullptr) {
        const Ref d = b.destination(b.operand(0), t);
        b.emit(run, Class::move).d = d;
        return true;
    }
    if (bytes_of(t) == 4) return false;
    const Type word = Type::u32;
    const Ref from = b.source(b.operand(1), word), d = b.destination(b.operand(0), t);
    Inst& i = b.emit(wide ? map<uint64_t, uint32_t>([](uint32_t x) { return x; })
                          : map<uint16_t, uint32_t>([](uint32_t x) { return static_cast<uint16_t>(x); }),
                     Class::move);
    i.d = d, i.a = from;
    return true;
}

uint64_t window(Builder& b, Name space) {
    if (space == "shared") return kSharedWindow;
    if (space == "local") return kLocalWindow;
    if (space.starts_with("param")) return kParamWindow;
    if (space == "const") return kConstWindow;
    if (space != "global") b.unsupported("address space");
    return 0;
}

}  // namespace

void mov(Builder& b) {
    const Type t = b.need_type();
    b.done();
    if (b.operand(0).kind == Operand::vector) return repack(b, t, b.operand(0), true);
    if (b.operand(1).kind == Operand::vector) return repack(b, t, b.operand(1), false);
    if (t == Type::pred) {
        const Ref x = b.truth(b.operand(1)), d = b.predicate_result(b.operand(0).name);
        Inst& i = b.emit([](Warp& w, const Inst& i) { w.set_predicate(i.d, w.predicate(i.a)); }, Class::move);
        i.d = d, i.a = x;
        return;
    }
    if (b.operand(1).kind == Operand::symbol && b.find(b.operand(1).name) == nullptr && moved_special(b, t)) return;
    emit_map(b, with_bits(b, t, [](auto z) { return copy<decltype(z)>(); }), Class::move, t, {t});
}

void cvta(Builder& b) {
    const bool to = b.take("to");
    const Name space =
        b.take_any({"global", "shared::cta", "shared::cluster", "shared", "local", "param", "param::entry", "const"});
    const uint64_t base = window(b, space.starts_with("shared") ? "shared" : space);
    const Type t = b.need_type();
    b.done();
    if (bytes_of(t) != 8) b.unsupported("generic addresses of 32 bits");
    const Ref x = b.source(b.operand(1), t), d = b.destination(b.operand(0), t);
    Inst& i = b.emit(
        [](Warp& w, const Inst& i) {
            const uint64_t* a = w.at<uint64_t>(i.a);
            const auto add = static_cast<uint64_t>(i.imm);
            each_lane<uint64_t>(w, i.d, [=](int l) { return a[l] + add; });
        },
        Class::move);
    i.d = d, i.a = x, i.imm = static_cast<int64_t>(to ? -base : base);
}

void isspacep(Builder& b) {
    const Name space =
        b.take_any({"global", "shared::cta", "shared::cluster", "shared", "local", "param", "param::entry", "const"});
    const uint64_t base = window(b, space.starts_with("shared") ? "shared" : space);
    b.done();
    const Ref x = b.source(b.operand(1), Type::b64), d = b.predicate_result(b.operand(0).name);
    Inst& i = b.emit(
        [](Warp& w, const Inst& i) {
            const uint64_t* a = w.at<uint64_t>(i.a);
            const auto base = static_cast<uint64_t>(i.imm);
            const uint64_t own = i.extra ? w.block->rank + 1 : 0;  // of shared::cta alone
            w.set_predicate(i.d, lanes_where([=](int l) {
                                const uint64_t rank = a[l] >> kClusterShift & 0xff;
                                return (a[l] & kWindowBits) == base && (own == 0 || rank == 0 || rank == own);
                            }));
        },
        Class::move);
    i.d = d, i.a = x, i.imm = static_cast<int64_t>(base), i.extra = space == "shared" || space == "shared::cta";
}

}  // namespace emu::ops
