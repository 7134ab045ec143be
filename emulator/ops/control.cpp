// Branches, calls, exits and barriers.
#include "../exec/block.h"
#include "families.h"
#include "lanes.h"

namespace emu::ops {

namespace {

// The words of a call's arguments or results.
std::vector<Ref> words(Builder& b, const Operand& list) {
    std::vector<Ref> refs;
    for (const Operand& o : b.items(list)) {
        if (o.kind != Operand::symbol) b.unsupported("an argument that is no variable");
        const Symbol& s = b.symbol(o.name);
        if (s.kind != Symbol::call_parameter && !(s.kind == Symbol::reg && s.bytes == 4)) b.unsupported("argument");
        for (uint32_t k = 0; k < s.bytes; k += 4) refs.push_back(s.ref + k * kLanes);
    }
    return refs;
}

std::vector<std::pair<Ref, Ref>> pairs(Builder& b, const std::vector<Ref>& x, const std::vector<Ref>& y) {
    if (x.size() != y.size()) b.unsupported("a call whose arguments do not fit the function");
    std::vector<std::pair<Ref, Ref>> r;
    for (size_t k = 0; k < x.size(); ++k) r.emplace_back(x[k], y[k]);
    return r;
}

}  // namespace

void bra(Builder& b) {
    b.take("uni");
    b.done();
    const Name label = b.operand(0).name;
    b.emit(
        [](Warp& w, const Inst& i) {
            if (w.mask == w.active)
                jump(w, i.target);
            else
                branch(w, i.target, w.mask);
        },
        Class::control);
    b.branch_to(label);
}

void brx(Builder& b) {
    if (!b.take("idx")) b.unsupported("branch");
    b.take("uni");
    b.done();
    uint32_t count = 0;
    const uint32_t first = b.labels_list(b.operand(1).name, count);
    const Ref index = b.source(b.operand(0), Type::u32);
    Inst& i = b.emit(
        [](Warp& w, const Inst& i) {
            const uint32_t* index = w.at<uint32_t>(i.a);
            const Inst* const* table = w.code->tables.data() + i.list;
            if (w.mask != w.active) {  // the others go on behind
                w.others.push_back({w.pc, w.active & ~w.mask, false, w.turn, w.wait, w.frames});
                w.active = w.mask;
            }
            uint32_t left = w.mask;
            while (left != 0) {
                const uint32_t x = index[std::countr_zero(left)];
                if (x >= i.extra)
                    fail(w, i, launch_failed, std::countr_zero(left), concat("branch index ", x, " of ", i.extra));
                uint32_t same = 0;
                for_lanes(left, [&](int l) { same |= index[l] == x ? 1u << l : 0; });
                w.others.push_back({table[x], same, false, w.turn, w.wait, w.frames});
                left &= ~same;
            }
            pick_group(w);
        },
        Class::control);
    i.a = index, i.list = first, i.extra = count;
}

void call(Builder& b) {
    b.take("uni");
    b.done();
    uint32_t n = 0;
    std::vector<Ref> results, arguments;
    if (b.operand(0).kind == Operand::list) results = words(b, b.operand(n++));
    const Name name = b.operand(n++).name;
    const Symbol* s = b.find(name);
    if (s == nullptr || s->kind != Symbol::function) b.unsupported("a call to what is no function of the module");
    if (n < b.operands()) arguments = words(b, b.operand(n++));
    if (n < b.operands()) b.unsupported("an indirect call");
    const Code& callee = *s->function_code;
    Call c;
    c.callee = &callee;
    c.in = pairs(b, arguments, callee.parameters);
    c.out = pairs(b, results, callee.results);
    b.code().calls.push_back(std::move(c));
    Inst& i = b.emit([](Warp& w, const Inst& i) { enter(w, w.code->calls[static_cast<size_t>(i.imm)], w.pc); },
                     Class::control);
    i.imm = static_cast<int64_t>(b.code().calls.size() - 1);
}

void ret(Builder& b) {
    b.take("uni");
    b.done();
    b.emit([](Warp& w, const Inst&) { leave(w); }, Class::control);
}

void exit(Builder& b) {
    b.done();
    b.emit([](Warp& w, const Inst&) { exit_lanes(w, w.mask); }, Class::control);
}

void trap(Builder& b) {
    b.done();
    b.emit(
        [](Warp& w, const Inst& i) { fail(w, i, launch_failed, std::countr_zero(w.mask), "the kernel executes trap"); },
        Class::control);
}

void bar(Builder& b) {
    if (b.take("cluster")) return cluster_barrier(b);
    b.take("cta");
    if (b.take("warp")) {
        if (!b.take("sync")) b.unsupported("barrier");
        b.done();
        const Ref members = b.source(b.operand(0), Type::u32);
        Inst& i = b.emit(
            [](Warp& w, const Inst& i) {
                uint32_t all = 0;
                for_lanes(w.mask, [&](int l) { all |= w.at<uint32_t>(i.a)[l]; });
                together(w, i, all);
            },
            Class::barrier);
        i.a = members;
        return;
    }
    const bool waits = b.take("sync");
    if (!waits && !b.take("arrive")) b.unsupported("barrier");
    b.take("aligned");
    b.done();
    const Ref number = b.source(b.operand(0), Type::u32);
    const Ref count = b.operands() > 1 ? b.source(b.operand(1), Type::u32) : b.constant(0, 4);
    Inst& i = b.emit(
        [](Warp& w, const Inst& i) {
            if (!together(w, i, kAll)) return;
            const int l = std::countr_zero(w.mask);
            arrive(w, i, w.at<uint32_t>(i.a)[l], w.at<uint32_t>(i.b)[l], i.imm != 0);
        },
        Class::barrier);
    i.a = number, i.b = count, i.imm = waits;
}

// Fences order what is executed in order here anyway; hints change nothing that is modelled.
void nothing(Builder& b) {
    b.emit([](Warp&, const Inst&) {}, Class::control);
}

void activemask(Builder& b) {
    if (b.need_type() != Type::b32) b.unsupported("type");
    b.done();
    const Ref d = b.destination(b.operand(0), 4);
    Inst& i = b.emit(
        [](Warp& w, const Inst& i) {
            const uint32_t active = w.mask;
            each_lane<uint32_t>(w, i.d, [=](int) { return active; });
        },
        Class::shuffle);
    i.d = d;
}

}  // namespace emu::ops
