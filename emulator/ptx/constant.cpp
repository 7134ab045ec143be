#include "constant.h"

#include <bit>
#include <limits>

#include "../error.h"

namespace emu::ptx {

namespace {

struct Level {
    Name op;
    int binds;
};
// The longer ones first.
constexpr Level kOperators[] = {{"||", 1}, {"&&", 2}, {"==", 6}, {"!=", 6}, {"<=", 7}, {">=", 7},
                                {"<<", 8}, {">>", 8}, {"|", 3},  {"^", 4},  {"&", 5},  {"<", 7},
                                {">", 7},  {"+", 9},  {"-", 9},  {"*", 10}, {"/", 10}, {"%", 10}};

int binding(Name op) {
    for (const Level& l : kOperators)
        if (l.op == op) return l.binds;
    return 0;
}

bool is_real(const Operand& o) { return o.kind != Operand::integer; }

double real(const Operand& o) {
    if (o.kind == Operand::f32) return static_cast<double>(std::bit_cast<float>(static_cast<uint32_t>(o.bits)));
    return std::bit_cast<double>(o.bits);
}

Operand real_operand(double x) {
    Operand o;
    o.kind = Operand::f64;
    o.bits = std::bit_cast<uint64_t>(x);
    return o;
}

bool is_true(const Operand& o) { return is_real(o) ? real(o) != 0 : o.bits != 0; }

template <class T>
bool compared(Name op, T a, T b) {
    if (op == "==") return a == b;
    if (op == "!=") return a != b;
    if (op == "<") return a < b;
    if (op == "<=") return a <= b;
    if (op == ">") return a > b;
    return a >= b;
}

}  // namespace

Operand Constants::integer(uint64_t bits, bool is_unsigned) {
    Operand o;
    o.kind = Operand::integer;
    o.bits = bits, o.is_unsigned = is_unsigned;
    return o;
}

void Constants::nest() {
    if (++depth_ > 100) lex_.fail("an expression nested too deeply");
}

Name Constants::peek_operator() {
    const Token& t = lex_.peek();
    if (t.kind != Token::symbol) return {};
    for (const Level& l : kOperators)
        if (lex_.starts(l.op)) return l.op;
    return {};
}

Operand Constants::conditional(Operand left) {
    left = binary(left, 1);
    if (!lex_.take_if('?')) return left;
    nest();
    const Operand yes = parse();
    lex_.expect(':');
    const Operand no = parse();
    --depth_;
    return is_true(left) ? yes : no;
}

Operand Constants::binary(Operand left, int least) {
    nest();
    for (Name op; binding(op = peek_operator()) >= least && !op.empty();) {
        for (size_t k = 0; k < op.size(); ++k) lex_.take();
        Operand right = unary();
        for (Name next; binding(next = peek_operator()) > binding(op);) right = binary(right, binding(next));
        left = applied(op, left, right);
    }
    --depth_;
    return left;
}

Operand Constants::unary() {
    nest();
    Operand o;
    if (lex_.take_if('-')) {
        o = unary();
        // the sign of a number in hexadecimal digits, NaN included
        o.bits = o.kind == Operand::integer ? -o.bits
                                            : o.bits ^ (o.kind == Operand::f32 ? uint64_t{1} << 31 : uint64_t{1} << 63);
    } else if (lex_.take_if('+')) {
        o = unary();
    } else if (lex_.take_if('!')) {
        o = integer(!is_true(unary()));
    } else if (lex_.take_if('~')) {
        o = unary();
        if (is_real(o)) lex_.fail("expected an integer");
        o.bits = ~o.bits;
    } else if (lex_.take_if('(')) {
        o = parenthesis();
    } else {
        o = primary();
    }
    --depth_;
    return o;
}

// Behind '(': a cast, or an expression.
Operand Constants::parenthesis() {
    if (const Name cast = lex_.peek().text; cast == ".s64" || cast == ".u64") {
        lex_.take();
        lex_.expect(')');
        const Operand o = unary();
        if (is_real(o)) lex_.fail("expected an integer");
        return integer(o.bits, cast == ".u64");
    }
    const Operand o = parse();
    lex_.expect(')');
    return o;
}

Operand Constants::primary() {
    const Token t = lex_.peek();
    Operand o;
    o.bits = t.bits;
    if (t.kind == Token::integer)
        o.kind = Operand::integer, o.is_unsigned = t.text.ends_with('U') || t.bits >> 63;
    else if (t.kind == Token::f32)
        o.kind = Operand::f32;
    else if (t.kind == Token::f64)
        o.kind = Operand::f64;
    else if (t.kind == Token::word && t.text == "WARP_SZ")
        o = integer(32);
    else
        lex_.fail("expected a number");
    lex_.take();
    return o;
}

Operand Constants::applied(Name op, const Operand& a, const Operand& b) const {
    if (op == "&&") return integer(is_true(a) && is_true(b));
    if (op == "||") return integer(is_true(a) || is_true(b));
    const int binds = binding(op);
    const bool compares = binds == 6 || binds == 7;
    if (is_real(a) || is_real(b)) {
        if (!is_real(a) || !is_real(b)) lex_.fail("an integer and a floating-point number in one expression");
        const double x = real(a), y = real(b);
        if (compares) return integer(compared(op, x, y));
        if (op == "+") return real_operand(x + y);
        if (op == "-") return real_operand(x - y);
        if (op == "*") return real_operand(x * y);
        if (op == "/") return real_operand(x / y);
        lex_.fail("expected an integer");
    }
    const bool u = a.is_unsigned || b.is_unsigned;
    const uint64_t x = a.bits, y = b.bits;
    const auto sx = static_cast<int64_t>(x), sy = static_cast<int64_t>(y);
    if (compares) return integer(u ? compared(op, x, y) : compared(op, sx, sy));
    if (op == "+") return integer(x + y, u);
    if (op == "-") return integer(x - y, u);
    if (op == "*") return integer(x * y, u);
    if (op == "&") return integer(x & y, u);
    if (op == "|") return integer(x | y, u);
    if (op == "^") return integer(x ^ y, u);
    if (op == "<<") return integer(y < 64 ? x << y : 0, a.is_unsigned);
    if (op == ">>") {
        if (a.is_unsigned) return integer(y < 64 ? x >> y : 0, true);
        return integer(static_cast<uint64_t>(sx >> (y < 64 ? y : 63)));
    }
    if (y == 0) lex_.fail("division by zero");
    const bool least = !u && sx == std::numeric_limits<int64_t>::min() && sy == -1;  // wraps
    if (op == "/") return integer(u ? x / y : least ? x : static_cast<uint64_t>(sx / sy), u);
    return integer(u ? x % y : least ? 0 : static_cast<uint64_t>(sx % sy), u);
}

}  // namespace emu::ptx
