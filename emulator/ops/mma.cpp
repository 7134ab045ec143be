// mma.sync of the types and shapes that are rare: of 8 bits in floating point, of 4 bits and of one, of 8 rows, and
// with a sparse A. matrix.cpp has the common ones, with loops of their own.
#include "../memory/access.h"
#include "families.h"
#include "fragments.h"
#include "sparse.h"

namespace emu::ops {

namespace {

// What an instruction is, in Inst::extra.
struct Form {
    uint32_t a : 4, b : 4, sum : 3, rows16 : 1, k4 : 7;  // k4: k / 4
    uint32_t sparse : 1, ordered : 1, selector : 2, exclusive : 1;
    uint32_t unused : 8;

    Element left() const { return static_cast<Element>(a); }
    Element right() const { return static_cast<Element>(b); }
    Sum total() const { return static_cast<Sum>(sum); }
    uint32_t k() const { return k4 * 4; }
    uint32_t halves() const { return rows16 + 1; }
    uint32_t lefts() const { return halves() * (sparse ? k() / 2 : k()) * bits_of(left()) / 128; }
    uint32_t rights() const { return k() * bits_of(right()) / 128; }
    uint32_t totals() const { return halves() * (total() == Sum::f16 ? 1 : 2); }
};

// a xor b = a + b - 2 a b for bits.
void add_exclusive(uint32_t k, const double* a, const double* b, double* c) {
    for (uint32_t row = 0; row < 16; ++row)
        for (uint32_t n = 0; n < 8; ++n)
            for (uint32_t s = 0; s < k; ++s) c[row * 8 + n] += a[row * k + s] != b[s * 8 + n];
}

// The lists are d, a, b, c.
void multiply(Warp& w, const Inst& i) {
    if (!together(w, i, kAll)) return;
    const Form f = std::bit_cast<Form>(i.extra);
    alignas(64) double left[16 * 256], right[256 * 8], sum[16 * 8] = {}, full[16 * 256];
    uint32_t* registers[32];
    const uint32_t count = 2 * f.totals() + f.lefts() + f.rights(), k = f.k();
    for (uint32_t r = 0; r < count; ++r) registers[r] = w.at<uint32_t>(w.list(i)[r]);
    uint32_t **d = registers, **a = d + f.totals(), **b = a + f.lefts(), **c = b + f.rights();
    std::fill_n(left, 16 * k, 0.0);
    read_left(a, f.lefts(), f.halves(), f.left(), left);
    read_right(b, f.rights(), f.right(), right);
    accumulators<false>(c, f.totals(), f.total(), sum);
    if (f.sparse) expand_sparse(w, i, f.left(), k, w.at<uint32_t>(i.a), f.selector, f.ordered, left, full);
    const double* x = f.sparse ? full : left;
    if (f.exclusive)
        add_exclusive(k, x, right, sum);
    else
        multiply_add(16, 8, k, x, right, sum);
    accumulators<true>(d, f.totals(), f.total(), sum);
}

// mma.m8n8k4 of f16: four products, each by the two quads of lanes (4 q .. 4 q + 3 and 16 more), which hold
//   A  by rows: row t + 4 h, k = e; by columns: row e + 4 h, k = t       (t = lane % 4, h: of the upper quad; e = 0 ..
//   3) B  by rows: k = t, column e + 4 h; by columns: k = e, column t + 4 h C  as f16: row t + 4 h, column e = 0 .. 7;
//   as f32: row (t & 1) + (e & 2) + 4 h, column (e & 4) + (t & 2) + (e & 1)
struct QuadForm {
    uint32_t a_columns : 1, b_columns : 1, c_half : 1, d_half : 1, unused : 28;
    uint32_t results() const { return d_half ? 4 : 8; }
    uint32_t starts() const { return c_half ? 4 : 8; }
};

double& quad_total(double (&sum)[4][8][8], bool half, uint32_t l, uint32_t e) {
    const uint32_t t = l % 4, h = l / 16 * 4;
    const uint32_t row = half ? t + h : (t & 1) + (e & 2) + h, column = half ? e : (e & 4) + (t & 2) + (e & 1);
    return sum[l / 4 % 4][row][column];
}

// The lists are d, a, b, c.
void multiply_quads(Warp& w, const Inst& i) {
    if (!together(w, i, kAll)) return;
    const auto f = std::bit_cast<QuadForm>(i.extra);
    const Ref *d = w.list(i), *a = d + f.results(), *b = a + 2, *c = b + 2;
    double left[4][8][4], right[4][4][8], sum[4][8][8];
    const auto half = [&](const Ref* refs, uint32_t l, uint32_t e) {
        return from_half(static_cast<uint16_t>(w.at<uint32_t>(refs[e / 2])[l] >> 16 * (e % 2)));
    };
    for (uint32_t l = 0; l < kLanes; ++l) {
        const uint32_t q = l / 4 % 4, t = l % 4, h = l / 16 * 4;
        for (uint32_t e = 0; e < 4; ++e) {
            left[q][(f.a_columns ? e : t) + h][f.a_columns ? t : e] = half(a, l, e);
            right[q][f.b_columns ? e : t][(f.b_columns ? t : e) + h] = half(b, l, e);
        }
        for (uint32_t e = 0; e < 8; ++e)
            quad_total(sum, f.c_half, l, e) = f.c_half ? half(c, l, e) : w.at<float>(c[e])[l];
    }
    for (uint32_t q = 0; q < 4; ++q)
        for (uint32_t m = 0; m < 8; ++m)
            for (uint32_t k = 0; k < 4; ++k)
                for (uint32_t n = 0; n < 8; ++n) sum[q][m][n] += left[q][m][k] * right[q][k][n];
    for (uint32_t l = 0; l < kLanes; ++l)
        for (uint32_t e = 0; e < 8; ++e) {
            const double x = quad_total(sum, f.d_half, l, e);
            if (!f.d_half) {
                w.at<float>(d[e])[l] = pack_float(x);
                continue;
            }
            uint32_t& pair = w.at<uint32_t>(d[e / 2])[l];
            pair = (pair & ~(0xffffu << 16 * (e % 2))) | uint32_t{pack_half(x)} << 16 * (e % 2);
        }
}

struct Row {
    Name shape;
    uint32_t m, k;
};
constexpr Row kShapes[] = {{"m8n8k16", 8, 16},   {"m8n8k32", 8, 32},     {"m8n8k128", 8, 128},
                           {"m16n8k8", 16, 8},   {"m16n8k16", 16, 16},   {"m16n8k32", 16, 32},
                           {"m16n8k64", 16, 64}, {"m16n8k128", 16, 128}, {"m16n8k256", 16, 256}};

// Whether the ISA has it: by the kind of element, and with a sparse A.
bool exists(Element a, Element b, Sum s, uint32_t m, uint32_t k, bool sparse) {
    const bool sixteen = m == 16;
    const auto one_of = [k](std::initializer_list<uint32_t> list) { return std::ranges::count(list, k) != 0; };
    switch (a) {
        case Element::f16:
        case Element::bf16:
            return a == b && sixteen && (s == Sum::f32 || (s == Sum::f16 && a == Element::f16)) && sparse &&
                   one_of({16, 32});
        case Element::tf32:
            return a == b && sixteen && s == Sum::f32 && sparse && one_of({8, 16});
        case Element::e4m3:
        case Element::e5m2:
            return (b == Element::e4m3 || b == Element::e5m2) && sixteen && (s == Sum::f32 || s == Sum::f16) &&
                   (sparse ? k == 64 : one_of({16, 32}));
        case Element::s8:
        case Element::u8:
            return (b == Element::s8 || b == Element::u8) && s >= Sum::s32 &&
                   (sparse    ? sixteen && one_of({32, 64})
                    : sixteen ? one_of({16, 32})
                              : k == 16);
        case Element::s4:
        case Element::u4:
            return (b == Element::s4 || b == Element::u4) && s >= Sum::s32 &&
                   (sparse    ? sixteen && one_of({64, 128})
                    : sixteen ? one_of({32, 64})
                              : k == 32);
        case Element::b1:
            return b == a && s == Sum::s32 && !sparse && (sixteen ? one_of({128, 256}) : k == 128);
        default:
            return false;
    }
}

Sum sum_of(Builder& b, Name name, bool saturates) {
    if (name == "s32") return saturates ? Sum::s32_saturated : Sum::s32;
    if (saturates || (name != "f32" && name != "f16")) b.unsupported("type of the sums");
    return name == "f32" ? Sum::f32 : Sum::f16;
}

void add_refs(Builder& b, std::vector<Ref>& refs, uint32_t operand, uint32_t count, bool result, Type t) {
    const auto items = b.items(b.operand(operand));
    if (items.size() != count) b.unsupported("number of registers");
    for (const Operand& o : items) refs.push_back(result ? b.destination(o, t) : b.source(o, t));
}

void quad_mma(Builder& b) {
    QuadForm f{};
    const auto by_columns = [&] {
        const Name order = b.take_next();
        if (order != "row" && order != "col") b.unsupported("layout");
        return order == "col";
    };
    f.a_columns = by_columns(), f.b_columns = by_columns();
    const auto is_half = [&] {
        const Name type = b.take_next();
        if (type != "f32" && type != "f16") b.unsupported("type of the sums");
        return type == "f16";
    };
    f.d_half = is_half();
    if (b.take_next() != "f16" || b.take_next() != "f16") b.unsupported("type");
    f.c_half = is_half();
    b.done();
    if (f.d_half && !f.c_half) b.unsupported("sums of f16 that begin as f32");
    std::vector<Ref> refs;
    add_refs(b, refs, 0, f.results(), true, Type::b32);
    add_refs(b, refs, 1, 2, false, Type::b32);
    add_refs(b, refs, 2, 2, false, Type::b32);
    add_refs(b, refs, 3, f.starts(), false, Type::b32);
    const uint32_t list = b.add_list(refs);
    Inst& i = b.emit(multiply_quads, Class::matrix);
    i.list = list, i.extra = std::bit_cast<uint32_t>(f);
}

}  // namespace

void rare_mma(Builder& b) {
    b.take("sync"), b.take("aligned");
    if (b.take("m8n8k4")) return quad_mma(b);
    Form f{};
    f.ordered = b.take("sp::ordered_metadata");
    f.sparse = f.ordered || b.take("sp");
    const auto shape = std::ranges::find_if(kShapes, [&](const Row& r) { return b.take(r.shape); });
    if (shape == std::end(kShapes)) b.unsupported("shape");
    if (!b.take("row") || !b.take("col")) b.unsupported("layout");
    const bool saturates = b.take("satfinite"), exclusive = b.take("xor"), both = b.take("and"), popc = b.take("popc");
    const Name d = b.take_next();
    const Element x = element_of(b.take_next()), y = element_of(b.take_next());
    if (b.take_next() != d) b.unsupported("types of C and D that differ");
    b.done();
    const Sum sum = sum_of(b, d, saturates);
    if (!exists(x, y, sum, shape->m, shape->k, f.sparse)) b.unsupported("shape and types");
    if ((x == Element::b1) != (popc && exclusive != both)) b.unsupported("operation on bits");
    f.a = static_cast<uint32_t>(x) & 15, f.b = static_cast<uint32_t>(y) & 15, f.sum = static_cast<uint32_t>(sum) & 7;
    f.rows16 = shape->m == 16, f.k4 = shape->k / 4 & 127, f.exclusive = exclusive;
    const Type total = sum == Sum::f32 ? Type::f32 : Type::b32;
    std::vector<Ref> refs;
    add_refs(b, refs, 0, f.totals(), true, total);
    add_refs(b, refs, 1, f.lefts(), false, Type::b32);
    add_refs(b, refs, 2, f.rights(), false, Type::b32);
    add_refs(b, refs, 3, f.totals(), false, total);
    Ref metadata = kNoRef;
    if (f.sparse) {
        metadata = b.source(b.operand(4), Type::b32);
        const Operand& selector = b.operand(5);
        if (selector.kind != Operand::integer || selector.bits >= selectors(x, shape->k)) b.unsupported("selector");
        f.selector = selector.bits & 3;
    }
    if (b.operands() != (f.sparse ? 6u : 4u)) b.unsupported("number of operands");
    const uint32_t list = b.add_list(refs);
    Inst& i = b.emit(multiply, Class::matrix);
    i.list = list, i.a = metadata, i.extra = std::bit_cast<uint32_t>(f);
}

}  // namespace emu::ops
