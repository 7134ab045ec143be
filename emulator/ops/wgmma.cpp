// wgmma: products of a warpgroup, D = A * B + D, with A of 64 x K and B of K x N.
//
// K is 32 bytes of elements (64 where A is sparse: 32 of those that are there). Warp w of the four has rows 16 w + r of
// D and A, in the fragments of mma.m16n8 (see matrix.cpp): with g = lane / 4 and t = lane % 4,
//   D  register i: row g + 8 (i / 2 % 2), column 8 (i / 4) + 2 t + i % 2; as f16, register i: row g + 8 (i % 2),
//   columns
//      8 (i / 2) + 2 t + e
//   A  in registers: register i holds row g + 8 (i % 2), k = 4 P (i / 2) + P t + e, P elements to a register
#include "../exec/cluster.h"
#include "../memory/access.h"
#include "descriptor.h"
#include "families.h"
#include "fragments.h"
#include "sparse.h"

namespace emu::ops {

namespace {

// What an instruction is, in Inst::extra.
struct Form {
    uint32_t a : 4, b : 4, sum : 3, n8 : 6;
    uint32_t a_in_registers : 1, trans_a : 1, trans_b : 1, negative_a : 1, negative_b : 1;
    uint32_t sparse : 1, selector : 2, unused : 7;

    Element left() const { return static_cast<Element>(a); }
    Element right() const { return static_cast<Element>(b); }
    Sum total() const { return static_cast<Sum>(sum); }
    uint32_t n() const { return n8 * 8; }
    uint32_t packed() const { return 256 / bits_of(left()); }  // elements of A to a row
    uint32_t k() const { return sparse ? 2 * packed() : packed(); }
    uint32_t lefts() const { return (a_in_registers ? 4 : 0) + sparse; }  // registers of A and its metadata
    uint32_t accumulators() const { return total() == Sum::f16 ? n8 * 2 : n8 * 4; }
};
Form form_of(const Inst& i) { return std::bit_cast<Form>(i.extra); }

WgmmaRegisters registers_of(const Code& c, const Inst& i) {
    const Form f = form_of(i);
    const Ref* d = c.refs.data() + i.list;
    // accumulators of the same shape, types of elements aside, need no fence between
    return {d, d + f.accumulators(), f.accumulators(), f.lefts(), f.sum | f.n8 << 3 | f.k() << 9};
}

void read_shared(Warp& w, Wgmma& op, Form f) {
    const uint32_t k = f.k(), n = f.n();
    if (!f.a_in_registers) {
        op.left.resize(64 * f.packed());
        read_matrix(w, op, op.a, {f.left(), 64, f.packed(), f.trans_a != 0, false}, op.left.data());
    }
    op.right.resize(size_t{k} * n);
    read_matrix(w, op, op.b, {f.right(), n, k, f.trans_b != 0, true}, op.right.data());
    op.read = true, op.reader = w.number;
}

void land(Warp& w, Wgmma& op) {
    const Form f = form_of(*op.inst);
    const uint32_t member = w.index % kWarpsInGroup, k = f.k(), n = f.n();
    Clocks& clocks = w.block->cluster->clocks;
    const bool checks = w.block->launch->options.check_shared;
    if (!op.read) {
        if (checks) clocks.now(w.number);  // the reads have a time of their own
        read_shared(w, op, f);
        if (checks) op.time = clocks.now(w.number);
    } else if (checks) {
        clocks.learn(w.number, op.reader, op.time);  // the reads of all four warps are over
    }
    uint32_t* registers[128 + 5];
    for (uint32_t r = 0; r < f.accumulators() + f.lefts(); ++r)
        registers[r] = reinterpret_cast<uint32_t*>(op.registers[member] + op.code->refs[op.inst->list + r]);
    uint32_t** extra = registers + f.accumulators();
    alignas(64) double a[16 * 256], full[16 * 64], sum[16 * 256];
    if (f.a_in_registers)
        read_left(extra, 4, 2, f.left(), a);
    else
        std::copy_n(op.left.data() + size_t{16} * member * f.packed(), 16 * f.packed(), a);
    if (f.negative_a != f.negative_b)
        for (uint32_t x = 0; x < 16 * f.packed(); ++x) a[x] = -a[x];
    const double* left = a;
    if (f.sparse) {
        const uint32_t* metadata = extra[f.a_in_registers ? 4 : 0];
        expand_sparse(w, *op.inst, f.left(), k, metadata, f.selector, true, a, full);
        left = full;
    }
    if (op.adds)
        accumulators<false>(registers, f.accumulators(), f.total(), sum);
    else
        std::fill_n(sum, 16 * n, 0.0);
    multiply_add(16, n, k, left, op.right.data(), sum);
    accumulators<true>(registers, f.accumulators(), f.total(), sum);
}

uint64_t uniform(Warp& w, const Inst& i, Ref r, const char* what) {
    const uint64_t* x = w.at<uint64_t>(r);
    for (int l = 1; l < kLanes; ++l)
        if (x[l] != x[0]) fail(w, i, launch_failed, l, concat("the descriptor of ", what, " differs among the lanes"));
    return x[0];
}

void multiply_async(Warp& w, const Inst& i) {
    if (!together(w, i, kAll)) return;
    const uint64_t a = i.a == kNoRef ? 0 : uniform(w, i, i.a, "A"), b = uniform(w, i, i.b, "B");
    const uint32_t adds = w.predicate(i.c) ^ (i.flags & kNegatedC ? kAll : 0);
    if (adds != 0 && adds != kAll) fail(w, i, launch_failed, 0, "scale-d differs among the lanes");
    issue(w, i, a, b, adds != 0, registers_of(*w.code, i));
}

uint64_t immediate(Builder& b, uint32_t n) {
    if (b.operand(n).kind != Operand::integer) b.unsupported("an operand that is no number");
    return b.operand(n).bits;
}

// imm-scale: 1 or -1; true if -1.
bool negative(Builder& b, uint32_t n) {
    const auto x = static_cast<int64_t>(immediate(b, n));
    if (x != 1 && x != -1) b.unsupported("imm-scale is neither 1 nor -1");
    return x == -1;
}

bool transposed(Builder& b, uint32_t n) {
    const uint64_t x = immediate(b, n);
    if (x > 1) b.unsupported("imm-trans is neither 0 nor 1");
    return x == 1;
}

Element take_element(Builder& b) {
    const Element e = element_of(b.take_next());
    if (e == Element::none || e == Element::s4 || e == Element::u4 || e == Element::f64) b.unsupported("type");
    return e;
}

// The shape's N and K.
std::pair<uint32_t, uint32_t> take_shape(Builder& b) {
    for (uint32_t n = 8; n <= 256; n += 8)
        for (const uint32_t k : {8u, 16u, 32u, 64u, 256u})
            if (b.take(concat("m64n", n, "k", k))) return {n, k};
    b.unsupported("shape");
}

Sum take_sum(Builder& b) {
    const Name name = b.take_next();
    if (name == "s32") return b.take("satfinite") ? Sum::s32_saturated : Sum::s32;
    if (name != "f32" && name != "f16") b.unsupported("type of the sums");
    return name == "f32" ? Sum::f32 : Sum::f16;
}

bool fits(Element a, Element b, Sum s) {
    switch (a) {
        case Element::f16:
            return b == a && (s == Sum::f32 || s == Sum::f16);
        case Element::bf16:
        case Element::tf32:
            return b == a && s == Sum::f32;
        case Element::e4m3:
        case Element::e5m2:
            return (b == Element::e4m3 || b == Element::e5m2) && (s == Sum::f32 || s == Sum::f16);
        case Element::s8:
        case Element::u8:
            return (b == Element::s8 || b == Element::u8) && s >= Sum::s32;
        default:
            return b == a && s == Sum::s32;  // b1
    }
}

void mma_async(Builder& b) {
    const auto [n, k] = take_shape(b);
    Form f{};
    f.sparse = b.take("sp");
    f.sum = static_cast<uint32_t>(take_sum(b)) & 7, f.n8 = n / 8 & 63;
    f.a = static_cast<uint32_t>(take_element(b)) & 15;
    f.b = static_cast<uint32_t>(take_element(b)) & 15;
    if (f.left() == Element::b1 && (!b.take("and") || !b.take("popc"))) b.unsupported("operation on bits");
    b.done();
    const bool integers = is_integer(f.left());
    if (!fits(f.left(), f.right(), f.total()) || k != f.k()) b.unsupported("shape and types");
    if (integers && n > 32 && n % 16 != 0) b.unsupported("shape");

    const Type total = f.total() == Sum::f32 ? Type::f32 : Type::b32;
    std::vector<Ref> refs;
    for (const Operand& o : b.items(b.operand(0))) refs.push_back(b.destination(o, total));
    if (refs.size() != f.accumulators()) b.unsupported("number of accumulators");
    f.a_in_registers = b.operand(1).kind == Operand::vector;
    Ref left = kNoRef;
    if (f.a_in_registers)
        for (const Operand& o : b.items(b.operand(1))) refs.push_back(b.source(o, Type::b32));
    else
        left = b.source(b.operand(1), Type::b64);
    if (f.a_in_registers && refs.size() != f.accumulators() + 4u) b.unsupported("number of registers of A");
    const Ref right = b.source(b.operand(2), Type::b64);
    uint32_t next = 3;
    if (f.sparse) {
        refs.push_back(b.source(b.operand(next++), Type::b32));
        const uint64_t selector = immediate(b, next++);
        if (f.left() == Element::b1 || selector >= selectors(f.left(), k)) b.unsupported("selector");
        f.selector = selector & 3;
    }
    const Operand& scale_d = b.operand(next++);
    const Ref scale = b.predicate(scale_d);
    if (!integers) {
        f.negative_a = negative(b, next++), f.negative_b = negative(b, next++);
        if (bits_of(f.left()) == 16) {
            if (!f.a_in_registers) f.trans_a = transposed(b, next++);
            f.trans_b = transposed(b, next++);
        }
    }
    if (b.operands() != next) b.unsupported("number of operands");
    const uint32_t list = b.add_list(refs);
    Inst& i = b.emit(multiply_async, Class::matrix);
    i.a = left, i.b = right, i.c = scale, i.list = list, i.extra = std::bit_cast<uint32_t>(f);
    if (scale_d.negated) i.flags |= kNegatedC;
}

}  // namespace

void wgmma(Builder& b) {
    const Name what = b.take_any({"fence", "mma_async", "commit_group", "wait_group"});
    if (!b.take("sync") || !b.take("aligned")) b.unsupported("wgmma without .sync.aligned");
    if (what == "mma_async") return mma_async(b);
    b.done();
    if (what == "wait_group") {
        const uint64_t pending = immediate(b, 0);
        Inst& i = b.emit(
            [](Warp& w, const Inst& i) {
                if (!together(w, i, kAll)) return;
                wait(w, i, static_cast<uint32_t>(i.imm), land,
                     [](const Wgmma& op) { return registers_of(*op.code, *op.inst); });
            },
            Class::async);
        i.imm = static_cast<int64_t>(pending);
        return;
    }
    if (what.empty()) b.unsupported("wgmma");
    b.emit(what == "fence" ? Run([](Warp& w, const Inst& i) {
               if (together(w, i, kAll)) fence_registers(w);
           })
                           : Run([](Warp& w, const Inst& i) {
                                 if (together(w, i, kAll)) commit(w);
                             }),
           Class::async);
}

}  // namespace emu::ops
