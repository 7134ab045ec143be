// Cuts PTX into tokens. A word is a name with its suffixes (ld.global.v4.u32, %tid.x, $L__BB0_2, _).
#pragma once

#include "module.h"

namespace emu::ptx {

struct Token {
    enum Kind : uint8_t { end, word, directive, integer, f32, f64, string, symbol };
    Kind kind = end;
    char symbol_char = 0;  // , ; : ( ) [ ] { } < > = | ! + - @ * / % & ^ ~ ?
    Name text;
    uint64_t bits = 0;  // of a number
    uint32_t line = 1;
};

class Lexer {
  public:
    explicit Lexer(const std::string& text) : at_(text.data()), end_(text.data() + text.size()) { next(); }

    const Token& peek() const { return token_; }
    Token take() {
        Token t = token_;
        next();
        return t;
    }
    bool is(char symbol) const { return token_.kind == Token::symbol && token_.symbol_char == symbol; }
    bool take_if(char symbol) {
        if (!is(symbol)) return false;
        next();
        return true;
    }
    // Symbols that stand together: the one at hand and those behind it.
    bool starts(Name symbols) const {
        return is(symbols[0]) && (symbols.size() == 1 || (at_ < end_ && *at_ == symbols[1]));
    }
    bool starts_word_behind() const;  // right behind the token at hand
    void expect(char symbol);
    Token expect(Token::Kind kind, const char* what);
    void skip_line(uint32_t line);  // to the first token behind it; nothing when that is reached
    [[noreturn]] void fail(const std::string& what) const;

  private:
    void next();
    void skip_space();
    void number();

    const char *at_, *end_;
    uint32_t line_ = 1;
    Token token_;
};

}  // namespace emu::ptx
