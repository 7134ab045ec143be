// Constant expressions, which stand wherever a number may: C's operators over integers of 64 bits or doubles.
#pragma once

#include "lexer.h"

namespace emu::ptx {

class Constants {
  public:
    explicit Constants(Lexer& lex) : lex_(lex) {}

    Operand parse() { return conditional(unary()); }
    // One whose first number has been read.
    Operand parse_from(const Operand& first) { return conditional(first); }
    static Operand integer(uint64_t bits, bool is_unsigned = false);

  private:
    Operand conditional(Operand left);
    Operand binary(Operand left, int least);
    Operand unary();
    Operand primary();
    Operand parenthesis();
    Operand applied(Name op, const Operand& a, const Operand& b) const;
    Name peek_operator();
    void nest();

    Lexer& lex_;
    int depth_ = 0;
};

}  // namespace emu::ptx
