// wmma: products of tiles whose place in registers is nobody's business. Here lane l holds elements l * n .. l * n + n
// - 1 of a tile, n = elements / 32, counted along k for A (M x K) and B (N x K), along columns for C (M x N). A and B
// of f16 have more registers than that; the rest is 0.
#include "../memory/access.h"
#include "../memory/spaces.h"
#include "elements.h"
#include "families.h"
#include "lanes.h"

namespace emu::ops {

namespace {

struct Shape {
    Name name;
    uint32_t m, n, k;
};
constexpr Shape kShapes[] = {{"m16n16k16", 16, 16, 16}, {"m8n32k16", 8, 32, 16}, {"m32n8k16", 32, 8, 16},
                             {"m16n16k8", 16, 16, 8},   {"m8n8k4", 8, 8, 4},     {"m8n8k32", 8, 8, 32},
                             {"m8n8k128", 8, 8, 128}};

const Shape& take_wmma_shape(Builder& b) {
    const auto s = std::ranges::find_if(kShapes, [&](const Shape& r) { return b.take(r.name); });
    if (s == std::end(kShapes)) b.unsupported("shape");
    return *s;
}

// Whether A and B of this type come in this shape.
bool comes_in(Element e, const Shape& s) {
    switch (e) {
        case Element::f16:
        case Element::bf16:
        case Element::s8:
        case Element::u8:
            return s.k == 16;
        case Element::tf32:
            return s.k == 8;
        case Element::f64:
            return s.k == 4;
        case Element::s4:
        case Element::u4:
            return s.k == 32;
        case Element::b1:
            return s.k == 128;
        default:
            return false;
    }
}

uint32_t registers_of(Element e, uint32_t elements) {
    if (e == Element::f16) return 8;
    return e == Element::f64 ? elements / 32 : elements * bits_of(e) / 1024;
}

uint32_t bits_of_sum(Sum s) { return s == Sum::f16 ? 16 : s == Sum::f64 ? 64 : 32; }

// ---- load and store; in Inst::extra ----

struct Tile {
    uint32_t bits : 7;      // of an element
    uint32_t per_lane : 6;  // elements
    uint32_t inner : 8;     // how many lie along the direction in which lanes count
    uint32_t registers : 5;
    uint32_t contiguous : 1;  // in memory, along that direction
    uint32_t wide_base : 1;
    uint32_t unused : 4;
};

// Inst::a is a register of its own for the addresses of one access; b the base, c the stride in elements.
void access(Warp& w, const Inst& i) {
    if (!together(w, i, kAll)) return;
    const auto t = std::bit_cast<Tile>(i.extra);
    uint64_t base[kLanes];
    addresses(w, i.b, t.wide_base, 0, base);
    const uint32_t* stride = w.at<uint32_t>(i.c);
    auto* address = w.at<uint64_t>(i.a);
    alignas(16) char held[kLanes][64] = {};
    const uint32_t word = t.bits == 64 ? 8 : 4, lane_bytes = t.per_lane * t.bits / 8;
    const Ref* refs = w.list(i);
    const bool stores = i.flags & kStore;
    if (stores)
        for (uint32_t r = 0; r * word < lane_bytes; ++r)
            for (uint32_t l = 0; l < kLanes; ++l) std::memcpy(held[l] + r * word, w.at<char>(refs[r]) + l * word, word);
    for (uint32_t done = 0; done < lane_bytes; done += i.bytes) {
        for (uint32_t l = 0; l < kLanes; ++l) {
            const uint32_t element = l * t.per_lane + done * 8 / t.bits;
            const uint64_t row = element / t.inner, column = element % t.inner;
            const uint64_t at = t.contiguous ? row * stride[l] + column : column * stride[l] + row;
            address[l] = base[l] + at * t.bits / 8;
        }
        Pointers p;
        resolve(w, i, p);
        for (uint32_t l = 0; l < kLanes; ++l)
            stores ? std::memcpy(p.at[l], held[l] + done, i.bytes) : std::memcpy(held[l] + done, p.at[l], i.bytes);
    }
    if (stores) return;
    for (uint32_t r = 0; r < t.registers; ++r)
        for (uint32_t l = 0; l < kLanes; ++l) std::memcpy(w.at<char>(refs[r]) + l * word, held[l] + r * word, word);
}

void decode_access(Builder& b, bool stores) {
    const Name part = stores ? b.take("d") ? Name("c") : Name() : b.take_any({"a", "b", "c"});
    if (part.empty() || !b.take("sync") || !b.take("aligned")) b.unsupported("wmma access");
    const Shape& s = take_wmma_shape(b);
    const bool row = b.take("row");
    if (!row && !b.take("col")) b.unsupported("layout");
    const Space space = b.take("global")                            ? Space::global
                        : b.take("shared") || b.take("shared::cta") ? Space::shared
                                                                    : Space::generic;
    const Name type = b.take_next();
    b.done();
    Tile t{};
    uint32_t elements, registers;
    if (part == "c") {
        const bool fits = s.k == 4    ? type == "f64"
                          : s.k == 8  ? type == "f32"
                          : s.k == 16 ? type == "f16" || type == "f32" || type == "s32"
                                      : type == "s32";
        if (!fits) b.unsupported("type");
        t.bits = type == "f16" ? 16 : type == "f64" ? 64 : 32;
        elements = s.m * s.n, t.inner = s.n & 255;
        registers = elements / 32 * t.bits / (t.bits == 64 ? 64 : 32);
    } else {
        const Element e = element_of(type);
        if (!comes_in(e, s)) b.unsupported("shape and type");
        t.bits = bits_of(e) & 127;
        elements = (part == "a" ? s.m : s.n) * s.k, t.inner = s.k & 255;
        registers = registers_of(e, elements);
    }
    t.per_lane = elements / 32 & 63, t.registers = registers & 31, t.contiguous = row == (part != "b");
    if (t.bits < 8 && !t.contiguous) b.unsupported("layout of elements below 8 bits");
    const Operand &place = b.operand(stores ? 0 : 1), &list = b.operand(stores ? 1 : 0);
    const Type held = t.bits == 64 ? Type::b64 : Type::b32;
    std::vector<Ref> refs;
    for (const Operand& o : b.items(list)) refs.push_back(stores ? b.source(o, held) : b.destination(o, held));
    if (refs.size() != registers) b.unsupported("number of registers");
    Inst at;
    b.address(at, place);
    t.wide_base = (at.flags & kWideAddress) != 0;
    // without a stride, rows lie one behind the other
    const uint32_t leading = t.contiguous ? t.inner : elements / t.inner;
    const Ref stride = b.operands() > 2 ? b.source(b.operand(2), Type::u32) : b.constant(leading, 4);
    const uint32_t at_list = b.add_list(refs);
    const Ref scratch = b.scratch(8);
    Inst& i = b.emit(access, Class::memory);
    i.a = scratch, i.b = at.a, i.c = stride, i.imm = at.imm, i.list = at_list, i.space = space;
    i.flags = static_cast<uint16_t>(kWideAddress | (stores ? kStore : 0)), i.extra = std::bit_cast<uint32_t>(t);
    i.bytes = static_cast<uint8_t>(t.contiguous ? std::min(16u, t.per_lane * t.bits / 8u) : t.bits / 8u);
}

// ---- mma ----

struct WmmaForm {
    uint32_t a : 4, b : 4, result : 3, start : 3, shape : 3, exclusive : 1, unused : 14;

    const Shape& tiles() const { return kShapes[shape]; }
    Element left() const { return static_cast<Element>(a); }
    Element right() const { return static_cast<Element>(b); }
    uint32_t lefts() const { return registers_of(left(), tiles().m * tiles().k); }
    uint32_t rights() const { return registers_of(right(), tiles().n * tiles().k); }
    uint32_t totals(uint32_t sum) const {
        const uint32_t bits = bits_of_sum(static_cast<Sum>(sum));
        return tiles().m * tiles().n / 32 * bits / (bits == 64 ? 64 : 32);
    }
};

// f(number of the element, its value) for all that the lanes hold.
template <class F>
void for_elements(const Warp& w, const Ref* refs, Element e, uint32_t elements, F f) {
    const uint32_t word = e == Element::f64 ? 8 : 4, per = 8 * word / bits_of(e), per_lane = elements / 32;
    double values[32];
    for (uint32_t r = 0; r * per < per_lane; ++r)
        for (uint32_t l = 0; l < kLanes; ++l) {
            unpack(e, w.at<char>(refs[r]) + l * word, per, values);
            for (uint32_t j = 0; j < per; ++j) f(l * per_lane + r * per + j, values[j]);
        }
}

double read_total(const Warp& w, const Ref* refs, Sum s, uint32_t l, uint32_t j) {
    switch (s) {
        case Sum::f16:
            return from_half(w.at<uint16_t>(refs[j / 2])[2 * l + j % 2]);
        case Sum::f32:
            return w.at<float>(refs[j])[l];
        case Sum::f64:
            return w.at<double>(refs[j])[l];
        default:
            return w.at<int32_t>(refs[j])[l];
    }
}

void write_total(const Warp& w, const Ref* refs, Sum s, uint32_t l, uint32_t j, double x) {
    switch (s) {
        case Sum::f16:
            w.at<uint16_t>(refs[j / 2])[2 * l + j % 2] = pack_half(x);
            break;
        case Sum::f32:
            w.at<float>(refs[j])[l] = pack_float(x);
            break;
        case Sum::f64:
            w.at<double>(refs[j])[l] = x;
            break;
        default:
            w.at<uint32_t>(refs[j])[l] = pack_integer(x, s == Sum::s32_saturated);
    }
}

// The lists are d, a, b, c.
void multiply(Warp& w, const Inst& i) {
    if (!together(w, i, kAll)) return;
    const auto f = std::bit_cast<WmmaForm>(i.extra);
    const auto [name, m, n, k] = f.tiles();
    alignas(64) double left[32 * 32], right[8 * 128], sum[16 * 16];
    const Ref *d = w.list(i), *a = d + f.totals(f.result), *b = a + f.lefts(), *c = b + f.rights();
    const uint32_t per_lane = m * n / 32;
    for_elements(w, a, f.left(), m * k, [&](uint32_t at, double x) { left[at] = x; });
    for_elements(w, b, f.right(), n * k,
                 [&, k = k](uint32_t at, double x) { right[(at / k / 8 * k + at % k) * 8 + at / k % 8] = x; });
    const auto total = [&, m = m, n = n](uint32_t l, uint32_t j) -> double& {
        const uint32_t at = l * per_lane + j, row = at / n, column = at % n;
        return sum[(column / 8 * m + row) * 8 + column % 8];
    };
    for (uint32_t l = 0; l < kLanes; ++l)
        for (uint32_t j = 0; j < per_lane; ++j) total(l, j) = read_total(w, c, static_cast<Sum>(f.start), l, j);
    if (f.exclusive)  // a xor b = a + b - 2 a b for bits
        for (uint32_t at = 0; at < m * k; ++at)
            for (uint32_t column = 0; column < 8; ++column)
                sum[at / k * 8 + column] += left[at] != right[at % k * 8 + column];
    else
        multiply_add(m, n, k, left, right, sum);
    for (uint32_t l = 0; l < kLanes; ++l)
        for (uint32_t j = 0; j < per_lane; ++j) write_total(w, d, static_cast<Sum>(f.result), l, j, total(l, j));
}

Sum sum_of(Builder& b, Name name, bool saturates) {
    if (name == "s32") return saturates ? Sum::s32_saturated : Sum::s32;
    if (saturates) b.unsupported("saturation");
    if (name == "f16") return Sum::f16;
    if (name == "f64") return Sum::f64;
    if (name != "f32") b.unsupported("type of the sums");
    return Sum::f32;
}

void decode_mma(Builder& b) {
    if (!b.take("sync") || !b.take("aligned")) b.unsupported("wmma without .sync.aligned");
    const bool exclusive = b.take("xor"), both = b.take("and"), popc = b.take("popc");
    const Shape& s = take_wmma_shape(b);
    const Name layouts[] = {b.take_next(), b.take_next()};
    for (const Name l : layouts)
        if (l != "row" && l != "col") b.unsupported("layout");
    const bool saturates = b.take("satfinite");
    b.take("rn");
    WmmaForm f{};
    const Name result = b.take_next(), second = b.take_next(), third = b.take_next();
    const bool halves = third.empty();  // f16 is not named
    const Element x = halves ? Element::f16 : element_of(second), y = halves ? x : element_of(third);
    const Name start = halves ? second : b.take_next();
    b.done();
    const Sum to = sum_of(b, result, saturates), from = sum_of(b, start, saturates);
    if (x != y || !comes_in(x, s) || (to != from && !halves)) b.unsupported("shape and types");
    const bool fits = is_integer(x)       ? to >= Sum::s32 && to != Sum::f64
                      : x == Element::f64 ? to == Sum::f64
                      : x == Element::f16 ? to == Sum::f16 || to == Sum::f32
                                          : to == Sum::f32;
    if (!fits || (from >= Sum::s32) != (to >= Sum::s32)) b.unsupported("types");
    if ((x == Element::b1) != (popc && exclusive != both)) b.unsupported("operation on bits");
    f.a = static_cast<uint32_t>(x) & 15, f.b = static_cast<uint32_t>(y) & 15, f.exclusive = exclusive;
    f.result = static_cast<uint32_t>(to) & 7, f.start = static_cast<uint32_t>(from) & 7;
    f.shape = static_cast<uint32_t>(&s - kShapes) & 7;
    std::vector<Ref> refs;
    const auto add = [&](uint32_t n, uint32_t count, Type t) {
        const auto items = b.items(b.operand(n));
        if (items.size() != count) b.unsupported("number of registers");
        for (const Operand& o : items) refs.push_back(n == 0 ? b.destination(o, t) : b.source(o, t));
    };
    const Type wide = x == Element::f64 ? Type::f64 : Type::b32;
    const auto held = [&](Sum sum) { return sum == Sum::f32 ? Type::f32 : wide; };
    add(0, f.totals(f.result), held(to)), add(1, f.lefts(), wide), add(2, f.rights(), wide);
    add(3, f.totals(f.start), held(from));
    const uint32_t list = b.add_list(refs);
    Inst& i = b.emit(multiply, Class::matrix);
    i.list = list, i.extra = std::bit_cast<uint32_t>(f);
}

}  // namespace

void wmma(Builder& b) {
    const Name what = b.take_any({"load", "store", "mma"});
    if (what.empty()) b.unsupported("wmma");
    what == "mma" ? decode_mma(b) : decode_access(b, what == "store");
}

}  // namespace emu::ops
