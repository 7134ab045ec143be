// Branches, calls, exits and barriers.
#include "../exec/block.h"
#include "families.h"
#include "lanes.h"

namespace emu::ops {

namespace {

// The words of a call's arguments or results.
std::vector<Ref> words(Builder& b, const Operand& list, bool results) {
    std::vector<Ref> refs;
    for (const Operand& o : b.items(list)) {
        if (o.kind != Operand::symbol && !results) {
            refs.push_back(b.source(o, Type::b32));
            continue;
        }
        const Symbol& s = b.symbol(o.name);
        if (s.kind != Symbol::call_parameter && !(s.kind == Symbol::reg && s.bytes == 4)) b.unsupported("argument");
        for (uint32_t k = 0; k < s.bytes; k += 4) refs.push_back(s.ref + k * kLanes);
    }
    return refs;
}

// Words of a prototype's parameters; those in registers are not counted.
size_t words(const std::vector<ptx::Variable>& list) {
    size_t n = 0;
    for (const ptx::Variable& v : list) n += (v.bytes + 3) / 4;
    return n;
}

void call_by_address(Builder& b, Call c, const Operand& address, const Operand& who) {
    const auto& prototypes = b.function().prototypes;
    if (const auto it = prototypes.find(who.name); it != prototypes.end()) {
        if (words(it->second.parameters) != c.in.size() || words(it->second.results) != c.out.size())
            b.unsupported("a call whose arguments do not fit its prototype");
    } else if (!b.function().targets.contains(who.name)) {
        b.unsupported("no such .callprototype or .calltargets");
    }
    const Ref at = b.source(address, Type::u64);
    b.code().calls.push_back(std::move(c));
    Inst& i = b.emit(
        [](Warp& w, const Inst& i) {
            uint64_t address[kLanes];  // the caller's registers are not at hand behind it
            std::memcpy(address, w.at<uint64_t>(i.a), sizeof address);
            enter_by_address(w, i, w.code->calls[static_cast<size_t>(i.imm)], address);
        },
        Class::control);
    i.a = at, i.imm = static_cast<int64_t>(b.code().calls.size() - 1);
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
                w.others.push_back({w.pc, w.active & ~w.mask, false, w.turn, w.wait, w.frame});
                w.active = w.mask;
            }
            uint32_t left = w.mask;
            while (left != 0) {
                const uint32_t x = index[std::countr_zero(left)];
                if (x >= i.extra)
                    fail(w, i, launch_failed, std::countr_zero(left), concat("branch index ", x, " of ", i.extra));
                uint32_t same = 0;
                for_lanes(left, [&](int l) { same |= index[l] == x ? 1u << l : 0; });
                w.others.push_back({table[x], same, false, w.turn, w.wait, w.frame});
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
    Call c;
    bool dropped = false;
    if (b.operand(0).kind == Operand::list) {
        const auto results = b.items(b.operand(n++));
        dropped = results.size() == 1 && results[0].name == "_";
        if (!dropped) c.out = words(b, b.operand(0), true);
    }
    const Operand& who = b.operand(n++);
    if (n < b.operands() && b.operand(n).kind == Operand::list) c.in = words(b, b.operand(n++), false);
    const Symbol* s = b.find(who.name);
    if (s == nullptr && dropped) c.out.push_back(b.scratch(4));
    if (s == nullptr && system_call(b, who.name, c.out, c.in)) return;
    if (s != nullptr && s->kind == Symbol::reg) return call_by_address(b, std::move(c), who, b.operand(n));
    if (s == nullptr || s->kind != Symbol::function || s->function_code->source->entry)
        b.unsupported("a call to what is no function of the module");
    if (n < b.operands()) b.unsupported("number of operands");
    c.callee = s->function_code;
    for (size_t k = 0; dropped && k < c.callee->results.size(); ++k) c.out.push_back(b.scratch(4));
    if (c.in.size() != c.callee->parameters.size() || c.out.size() != c.callee->results.size())
        b.unsupported("a call whose arguments do not fit the function");
    b.code().calls.push_back(std::move(c));
    Inst& i =
        b.emit([](Warp& w, const Inst& i) { enter(w, i, w.code->calls[static_cast<size_t>(i.imm)]); }, Class::control);
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

void brkpt(Builder& b) {
    b.done();
    b.emit([](Warp& w,
              const Inst& i) { fail(w, i, launch_failed, std::countr_zero(w.mask), "the kernel executes brkpt"); },
           Class::control);
}

// The others go first.
void nanosleep(Builder& b) {
    if (b.need_type() != Type::u32) b.unsupported("type");
    b.done();
    b.source(b.operand(0), Type::u32);
    b.emit([](Warp& w, const Inst&) { w.stop = true; }, Class::control);
}

// Launches follow one another here: what a grid depends on is over when it begins.
void griddepcontrol(Builder& b) {
    if (!b.take("wait") && !b.take("launch_dependents")) b.unsupported("griddepcontrol");
    b.done();
    nothing(b);
}

// Caches are not modelled, so a policy is any number.
void createpolicy(Builder& b) {
    if (b.take_any({"fractional", "range", "cvt"}).empty()) b.unsupported("createpolicy");
    b.take("global");
    while (b.take_prefix("L2")) {
    }
    if (!b.take("b64")) b.unsupported("type");
    b.done();
    const Ref d = b.destination(b.operand(0), 8);
    Inst& i = b.emit([](Warp& w, const Inst& i) { each_lane<uint64_t>(w, i.d, [](int) { return uint64_t{1}; }); },
                     Class::move);
    i.d = d;
}

namespace {

// Behind a barrier that reduces: what it counted.
void barrier_result(Builder& b, Name op) {
    if (op == "popc") {
        const Ref d = b.destination(b.operand(0), 4);
        Inst& i = b.emit([](Warp& w, const Inst& i) { each_lane<uint32_t>(w, i.d, [&](int) { return w.ones; }); },
                         Class::control);
        i.d = d;
        return;
    }
    const Ref d = b.predicate_result(b.operand(0).name);
    Inst& i = b.emit(op == "and" ? Run([](Warp& w, const Inst& i) { w.set_predicate(i.d, w.zeros == 0 ? kAll : 0); })
                                 : Run([](Warp& w, const Inst& i) { w.set_predicate(i.d, w.ones != 0 ? kAll : 0); }),
                     Class::control);
    i.d = d;
}

}  // namespace

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
    const bool reduces = b.take("red"), waits = reduces || b.take("sync");
    if (!waits && !b.take("arrive")) b.unsupported("barrier");
    b.take("aligned");
    const Name op = reduces ? b.take_any({"popc", "and", "or"}) : Name{};
    if (reduces && (op.empty() || b.need_type() != (op == "popc" ? Type::u32 : Type::pred))) b.unsupported("barrier");
    b.done();
    const uint32_t first = reduces ? 1 : 0, last = b.operands() - first;  // d, number, [count,] predicate
    const Ref number = b.source(b.operand(first), Type::u32);
    const Ref count = last > first + 1 ? b.source(b.operand(first + 1), Type::u32) : b.constant(0, 4);
    const Ref predicate = reduces ? b.predicate(b.operand(last)) : kNoRef;
    const bool negated = reduces && b.operand(last).negated;
    Inst& i = b.emit(
        [](Warp& w, const Inst& i) {
            if (!together(w, i, kAll)) return;
            const int l = std::countr_zero(w.mask);
            const uint32_t number = w.at<uint32_t>(i.a)[l];
            if (i.c != kNoRef && number < w.block->barriers.size()) {
                const uint32_t p = w.predicate(i.c) ^ (i.flags & kNegatedC ? kAll : 0);
                w.block->barriers[number].ones += static_cast<uint32_t>(std::popcount(p & w.mask));
                w.block->barriers[number].zeros += static_cast<uint32_t>(std::popcount(~p & w.mask));
            }
            arrive(w, i, number, w.at<uint32_t>(i.b)[l], i.imm != 0);
        },
        Class::barrier);
    i.a = number, i.b = count, i.c = predicate, i.imm = waits;
    if (negated) i.flags |= kNegatedC;
    if (reduces) barrier_result(b, op);
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
