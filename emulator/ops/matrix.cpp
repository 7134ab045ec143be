// mma.sync, ldmatrix and stmatrix.
//
// Fragments, with g = lane / 4 and t = lane % 4, for elements that lie P to a register (P = 4 / bytes; f64: one to its
// own register):
//   A  register i holds row g + 8 (i % 2), k = 4 P (i / 2) + P t + e      (m = 8: row g alone)
//   B  register i holds k = 4 P i + P t + e, column g
//   C  register i holds row g + 8 (i / 2), column 2 t + i % 2; as f16, register i holds row g + 8 i, column 2 t + e
// Products are exact; the sum over k and C is made in double precision (f64: by fused steps, in order of k) and rounded
// once. Tensor cores add with a few bits beyond single precision and truncate, in an order that is not published.
#include "../memory/access.h"
#include "../memory/spaces.h"
#include "families.h"
#include "floating.h"

namespace emu::ops {

namespace {

struct Bf16 {
    using Register = uint32_t;
    using Sum = double;
    static constexpr int per = 2;
    static Sum read(Register r, int e) { return from_bfloat(static_cast<uint16_t>(r >> 16 * e)); }
};
struct F16 {
    using Register = uint32_t;
    using Sum = double;
    static constexpr int per = 2;
    static Sum read(Register r, int e) { return from_half(static_cast<uint16_t>(r >> 16 * e)); }
};
struct Tf32 {
    using Register = uint32_t;
    using Sum = double;
    static constexpr int per = 1;
    static Sum read(Register r, int) { return std::bit_cast<float>(r & 0xffffe000); }
};
struct F64 {
    using Register = uint64_t;
    using Sum = double;
    static constexpr int per = 1;
    static Sum read(Register r, int) { return std::bit_cast<double>(r); }
};
template <class T>
struct Int8 {
    using Register = uint32_t;
    using Sum = int32_t;
    static constexpr int per = 4;
    static Sum read(Register r, int e) { return static_cast<T>(r >> 8 * e); }
};

struct ToF32 {
    using Register = float;
    static constexpr int per = 1;
    static double read(Register r, int) { return r; }
    static void write(Register& r, int, double x) { r = canonical(static_cast<float>(x)); }
};
struct ToF16 {
    using Register = uint32_t;
    static constexpr int per = 2;
    static double read(Register r, int e) { return from_half(static_cast<uint16_t>(r >> 16 * e)); }
    static void write(Register& r, int e, double x) {
        r = (r & ~(0xffffu << 16 * e)) | static_cast<uint32_t>(to_half(to_odd(x))) << 16 * e;
    }
};
struct ToF64 {
    using Register = double;
    static constexpr int per = 1;
    static double read(Register r, int) { return r; }
    static void write(Register& r, int, double x) { r = x; }
};
template <bool Saturate>
struct ToS32 {
    using Register = int32_t;
    static constexpr int per = 1;
    static int64_t read(Register r, int) { return r; }
    static void write(Register& r, int, int64_t x) {
        constexpr int64_t low = INT32_MIN, high = INT32_MAX;
        r = static_cast<int32_t>(Saturate ? std::min(std::max(x, low), high) : x);
    }
};

// The lists are d, a, b, c.
template <class A, class B, class Out, int M, int K>
void multiply(Warp& w, const Inst& i) {
    if (!together(w, i, kAll)) return;
    using Sum = typename A::Sum;
    using Total = decltype(Out::read({}, 0));
    constexpr int halves = M / 8;
    constexpr int steps = K / (4 * A::per);
    const Ref *d = w.list(i), *a = d + halves * 2 / Out::per, *b = a + halves * steps, *c = b + steps;
    alignas(64) Sum left[M][K], right[K][8];
    alignas(64) Total sum[M][8];
    for (int r = 0; r < halves * steps; ++r) {
        const auto* x = w.at<typename A::Register>(a[r]);
        const int row = 8 * (r % halves), k = 4 * A::per * (r / halves);
        for (int l = 0; l < kLanes; ++l)
            for (int e = 0; e < A::per; ++e) left[row + l / 4][k + A::per * (l % 4) + e] = A::read(x[l], e);
    }
    for (int r = 0; r < steps; ++r) {
        const auto* x = w.at<typename B::Register>(b[r]);
        for (int l = 0; l < kLanes; ++l)
            for (int e = 0; e < B::per; ++e) right[4 * B::per * r + B::per * (l % 4) + e][l / 4] = B::read(x[l], e);
    }
    constexpr int registers = halves * 2 / Out::per;
    const auto row_of = [](int r) { return Out::per == 2 ? 8 * r : 8 * (r / 2); };
    const auto column_of = [](int r, int e) { return Out::per == 2 ? e : r % 2; };
    for (int r = 0; r < registers; ++r) {
        const auto* x = w.at<typename Out::Register>(c[r]);
        for (int l = 0; l < kLanes; ++l)
            for (int e = 0; e < Out::per; ++e)
                sum[row_of(r) + l / 4][2 * (l % 4) + column_of(r, e)] = Out::read(x[l], e);
    }
    for (int m = 0; m < M; ++m)
        for (int k = 0; k < K; ++k)
            for (int n = 0; n < 8; ++n) {
                if constexpr (std::is_same_v<A, F64>)
                    sum[m][n] = __builtin_fma(left[m][k], right[k][n], sum[m][n]);
                else
                    sum[m][n] += left[m][k] * right[k][n];
            }
    for (int r = 0; r < registers; ++r) {
        auto* x = w.at<typename Out::Register>(d[r]);
        for (int l = 0; l < kLanes; ++l)
            for (int e = 0; e < Out::per; ++e)
                Out::write(x[l], e, sum[row_of(r) + l / 4][2 * (l % 4) + column_of(r, e)]);
    }
}

Run integer_run(Type a, Type b, int k, bool saturates) {
    const auto pick = [&](auto x, auto y) -> Run {
        using A = Int8<decltype(x)>;
        using B = Int8<decltype(y)>;
        if (k == 16) return saturates ? multiply<A, B, ToS32<true>, 16, 16> : multiply<A, B, ToS32<false>, 16, 16>;
        if (k == 32) return saturates ? multiply<A, B, ToS32<true>, 16, 32> : multiply<A, B, ToS32<false>, 16, 32>;
        return nullptr;
    };
    if (a == Type::s8 && b == Type::s8) return pick(int8_t{}, int8_t{});
    if (a == Type::s8 && b == Type::u8) return pick(int8_t{}, uint8_t{});
    if (a == Type::u8 && b == Type::s8) return pick(uint8_t{}, int8_t{});
    if (a == Type::u8 && b == Type::u8) return pick(uint8_t{}, uint8_t{});
    return nullptr;
}

struct Shape {
    int m, n, k;
};

Shape shape(Builder& b) {
    struct Row {
        Name name;
        Shape shape;
    };
    constexpr Row rows[] = {{"m16n8k4", {16, 8, 4}},
                            {"m16n8k8", {16, 8, 8}},
                            {"m16n8k16", {16, 8, 16}},
                            {"m16n8k32", {16, 8, 32}},
                            {"m8n8k4", {8, 8, 4}}};
    for (const Row& r : rows)
        if (b.take(r.name)) return r.shape;
    b.unsupported("shape");
}

Run multiply_run(Shape s, Type d, Type x, Type y, bool saturates) {
    if (s.m == 16 && d == Type::s32) return integer_run(x, y, s.k, saturates);
    if (x != y || saturates) return nullptr;
    if (s.m == 8) return x == Type::f64 && d == Type::f64 ? multiply<F64, F64, ToF64, 8, 4> : nullptr;
    if (d == Type::f64 && x == Type::f64)
        return s.k == 4    ? multiply<F64, F64, ToF64, 16, 4>
               : s.k == 8  ? multiply<F64, F64, ToF64, 16, 8>
               : s.k == 16 ? multiply<F64, F64, ToF64, 16, 16>
                           : nullptr;
    if (d == Type::f32 && x == Type::tf32)
        return s.k == 4 ? multiply<Tf32, Tf32, ToF32, 16, 4> : s.k == 8 ? multiply<Tf32, Tf32, ToF32, 16, 8> : nullptr;
    if (s.k != 8 && s.k != 16) return nullptr;
    if (d == Type::f32 && x == Type::bf16)
        return s.k == 8 ? multiply<Bf16, Bf16, ToF32, 16, 8> : multiply<Bf16, Bf16, ToF32, 16, 16>;
    if (d == Type::f32 && x == Type::f16)
        return s.k == 8 ? multiply<F16, F16, ToF32, 16, 8> : multiply<F16, F16, ToF32, 16, 16>;
    if (d == Type::f16 && x == Type::f16)
        return s.k == 8 ? multiply<F16, F16, ToF16, 16, 8> : multiply<F16, F16, ToF16, 16, 16>;
    return nullptr;
}

// Element e of a lane's register, in a matrix of 8 rows.
template <bool Trans>
void walk_matrix(auto&& f) {
    for (int l = 0; l < kLanes; ++l)
        for (int e = 0; e < 2; ++e) f(l, e, Trans ? l % 4 * 2 + e : l / 4, Trans ? l / 4 : l % 4 * 2 + e);
}

template <bool Trans>
void move_matrices(Warp& w, const Inst& i) {
    if (!together(w, i, kAll)) return;
    uint64_t address[kLanes];
    addresses(w, i.a, i.flags & kWideAddress, i.imm, address);
    Block& b = *w.block;
    const int rows = 8 * i.count;
    const bool store = i.flags & kStore;
    const Ref* refs = w.list(i);
    uint16_t row_of[kLanes][8];
    for (int j = 0; store && j < i.count; ++j)
        walk_matrix<Trans>([&](int l, int e, int row, int column) {
            row_of[8 * j + row][column] = static_cast<uint16_t>(w.at<uint32_t>(refs[j])[l] >> 16 * e);
        });
    for (int l = 0; l < rows; ++l) {
        if (i.space == Space::generic && (address[l] & kWindowBits) != kSharedWindow)
            fail(w, i, illegal_address, l, concat("the address 0x", std::hex, address[l], " is none of shared memory"));
        address[l] &= ~kWindowBits;
        if (address[l] % 16 != 0)
            fail(w, i, misaligned_address, l,
                 concat("the address 0x", std::hex, address[l], " of a row is no multiple of 16 (misaligned)"));
        check_shared_bounds(w, i, l, address[l], 16);
        if (b.launch->options.check_shared)
            touch_shared(w, i, l, static_cast<uint32_t>(address[l]), 16, store,
                         store ? reinterpret_cast<const char*>(row_of[l]) : nullptr);
    }
    if (b.launch->options.count) {
        b.counters.shared_bytes += static_cast<uint64_t>(rows) * 16;
        count_conflicts(b.counters, address, rows == kLanes ? kAll : (1u << rows) - 1, 16);
    }
    for (int l = 0; l < rows; ++l) {
        char* const at = b.shared.data() + address[l];
        store ? std::memcpy(at, row_of[l], 16) : std::memcpy(row_of[l], at, 16);
    }
    for (int j = 0; !store && j < i.count; ++j)
        walk_matrix<Trans>([&](int l, int e, int row, int column) {
            uint32_t& r = w.at<uint32_t>(refs[j])[l];
            r = (r & ~(0xffffu << 16 * e)) | uint32_t{row_of[8 * j + row][column]} << 16 * e;
        });
}

void matrix_access(Builder& b, bool stores) {
    b.take("sync"), b.take("aligned");
    if (!b.take("m8n8")) b.unsupported("shape");
    const int count = b.take("x1") ? 1 : b.take("x2") ? 2 : b.take("x4") ? 4 : 0;
    const bool trans = b.take("trans");
    if (count == 0) b.unsupported("matrix access");
    const Space space = b.take("shared") || b.take("shared::cta") ? Space::shared : Space::generic;
    if (b.need_type() != Type::b16) b.unsupported("type");
    b.done();
    const Operand& values = b.operand(stores ? 1 : 0);
    std::vector<Ref> refs;
    for (const Operand& o : b.items(values)) refs.push_back(stores ? b.source(o, Type::b32) : b.destination(o, 4));
    if (static_cast<int>(refs.size()) != count) b.unsupported("number of registers");
    Inst at;
    b.address(at, b.operand(stores ? 0 : 1));
    const uint32_t list = b.add_list(refs);
    Inst& i = b.emit(trans ? move_matrices<true> : move_matrices<false>, Class::memory);
    i.a = at.a, i.imm = at.imm, i.flags = static_cast<uint16_t>(at.flags | (stores ? kStore : 0));
    i.list = list, i.count = static_cast<uint8_t>(count), i.space = space, i.bytes = 16;
}

}  // namespace

namespace {

// What the loops above do not cover is left to mma.cpp.
bool is_rare(Name opcode) {
    constexpr Name marks[] = {".sp", ".e4m3", ".e5m2", ".s4", ".u4", ".b1", "m8n8k16"};
    return std::ranges::any_of(marks, [&](Name m) { return opcode.find(m) != Name::npos; }) ||
           (opcode.find(".m8n8k4.") != Name::npos && opcode.find(".f64") == Name::npos);
}

}  // namespace

void mma(Builder& b) {
    if (is_rare(b.full_opcode())) return rare_mma(b);
    b.take("sync"), b.take("aligned");
    const Shape s = shape(b);
    if (!b.take("row") || !b.take("col")) b.unsupported("layout");
    const bool saturates = b.take("satfinite");
    const Type d = b.need_type(), x = b.need_type(), y = b.need_type(), c = b.need_type();
    b.done();
    const Run run = c == d ? multiply_run(s, d, x, y, saturates) : nullptr;
    if (run == nullptr) b.unsupported("shape and types");
    const Type element = bytes_of(x) == 8 ? Type::b64 : Type::b32;
    const Type total = d == Type::f16 ? Type::b32 : d == Type::f64 ? Type::b64 : Type::b32;
    const int per = bytes_of(x) == 8 ? 1 : 4 / static_cast<int>(bytes_of(x));
    const int results = s.m / 8 * (d == Type::f16 ? 1 : 2), steps = s.k / (4 * per);
    const int expected[] = {results, s.m / 8 * steps, steps, results};
    std::vector<Ref> refs;
    for (uint32_t n = 0; n < 4; ++n) {
        const auto items = b.items(b.operand(n));
        if (static_cast<int>(items.size()) != expected[n]) b.unsupported("number of registers");
        for (const Operand& o : items)
            refs.push_back(n == 0 ? b.destination(o, total) : b.source(o, n == 3 ? total : element));
    }
    const uint32_t list = b.add_list(refs);
    Inst& i = b.emit(run, Class::matrix);
    i.list = list;
}

// d = the transpose of a matrix of 8 x 8 elements of 16 bits, of which a lane holds two of a row.
void movmatrix(Builder& b) {
    b.take("sync"), b.take("aligned");
    if (!b.take("m8n8") || !b.take("trans") || b.need_type() != Type::b16) b.unsupported("movmatrix");
    emit_map(b,
             [](Warp& w, const Inst& i) {
                 if (!together(w, i, kAll)) return;
                 uint16_t matrix[8][8];
                 std::memcpy(matrix, w.at<uint32_t>(i.a), sizeof matrix);
                 each_lane<uint32_t>(w, i.d, [&](int l) {
                     return uint32_t{matrix[l % 4 * 2 + 1][l / 4]} << 16 | matrix[l % 4 * 2][l / 4];
                 });
             },
             Class::matrix, Type::b32, {Type::b32});
}

void ldmatrix(Builder& b) { matrix_access(b, false); }
void stmatrix(Builder& b) { matrix_access(b, true); }

}  // namespace emu::ops
