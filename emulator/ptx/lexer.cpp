#include "lexer.h"

#include <charconv>
#include <cstring>

#include "../error.h"

namespace emu::ptx {

namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool starts_word(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '$' || c == '%';
}

bool in_word(char c) { return starts_word(c) || is_digit(c); }

}  // namespace

bool Lexer::starts_word_behind() const { return at_ < end_ && starts_word(*at_); }

void Lexer::fail(const std::string& what) const {
    throw Error(invalid_ptx, concat("PTX line ", token_.line, ": ", what, " at '", token_.text.substr(0, 40), "'"));
}

void Lexer::expect(char symbol) {
    if (!take_if(symbol)) fail(concat("expected '", symbol, "'"));
}

Token Lexer::expect(Token::Kind kind, const char* what) {
    if (token_.kind != kind) fail(concat("expected ", what));
    return take();
}

void Lexer::skip_space() {
    while (at_ < end_) {
        if (*at_ == '\n') {
            ++line_, ++at_;
        } else if (*at_ == ' ' || *at_ == '\t' || *at_ == '\r') {
            ++at_;
        } else if (*at_ == '/' && end_ - at_ > 1 && at_[1] == '/') {
            const void* stop = std::memchr(at_, '\n', static_cast<size_t>(end_ - at_));
            at_ = stop ? static_cast<const char*>(stop) : end_;
        } else if (*at_ == '/' && end_ - at_ > 1 && at_[1] == '*') {
            for (at_ += 2; at_ < end_ && !(at_[-1] == '*' && *at_ == '/'); ++at_) line_ += *at_ == '\n';
            if (at_ < end_) ++at_;
        } else {
            return;
        }
    }
}

void Lexer::skip_line(uint32_t line) {
    if (token_.kind == Token::end || token_.line != line) return;
    const void* stop = std::memchr(at_, '\n', static_cast<size_t>(end_ - at_));
    at_ = stop ? static_cast<const char*>(stop) : end_;
    next();
}

void Lexer::number() {
    const char* begin = at_;
    auto hex = [&](const char* from, size_t digits) {
        if (static_cast<size_t>(end_ - from) < digits) fail("a number is cut off");
        const auto [stop, code] = std::from_chars(from, from + digits, token_.bits, 16);
        if (code != std::errc() || stop != from + digits) fail("not a number");
        at_ = stop;
    };
    if (*at_ == '0' && end_ - at_ > 1) {
        const char c = at_[1];
        if (c == 'f' || c == 'F') {
            token_.kind = Token::f32;
            hex(at_ + 2, 8);
            token_.text = {begin, static_cast<size_t>(at_ - begin)};
            return;
        }
        if (c == 'd' || c == 'D') {
            token_.kind = Token::f64;
            hex(at_ + 2, 16);
            token_.text = {begin, static_cast<size_t>(at_ - begin)};
            return;
        }
    }
    token_.kind = Token::integer;
    int base = 10;
    if (*at_ == '0' && end_ - at_ > 1) {
        const char c = at_[1];
        if (c == 'x' || c == 'X')
            base = 16, at_ += 2;
        else if (c == 'b' || c == 'B')
            base = 2, at_ += 2;
        else if (is_digit(c))
            base = 8, ++at_;
    }
    const auto [stop, code] = std::from_chars(at_, end_, token_.bits, base);
    if (code != std::errc() && *at_ != '.') fail("not a number");
    if (base == 10 && stop < end_ && (*stop == '.' || *stop == 'e' || *stop == 'E')) {
        double value = 0;
        const auto [rest, wrong] = std::from_chars(at_, end_, value);
        if (wrong != std::errc()) fail("not a number");
        std::memcpy(&token_.bits, &value, 8);
        token_.kind = Token::f64;
        at_ = rest;
    } else {
        at_ = stop;
        if (at_ < end_ && *at_ == 'U') ++at_;
    }
    token_.text = {begin, static_cast<size_t>(at_ - begin)};
}

void Lexer::next() {
    skip_space();
    token_ = Token{};
    token_.line = line_;
    if (at_ >= end_) return;
    const char* begin = at_;
    const char c = *at_;
    const bool alone = end_ - at_ < 2 || !in_word(at_[1]);
    if (is_digit(c) || (c == '.' && !alone && is_digit(at_[1]))) return number();
    if ((starts_word(c) && !(c == '%' && alone)) || (c == '.' && end_ - at_ > 1 && starts_word(at_[1]))) {
        token_.kind = c == '.' ? Token::directive : Token::word;
        ++at_;
        // a suffix is .name or ::name; a label's colon stands alone; .reg.b32 are two directives
        while (at_ < end_) {
            if (in_word(*at_))
                ++at_;
            else if (*at_ == '.' && token_.kind == Token::word && end_ - at_ > 1 && in_word(at_[1]))
                at_ += 2;
            else if (*at_ == ':' && end_ - at_ > 2 && at_[1] == ':' && in_word(at_[2]))
                at_ += 3;
            else
                break;
        }
    } else if (c == '"') {
        token_.kind = Token::string;
        for (++at_; at_ < end_ && *at_ != '"'; ++at_) {
            if (*at_ == '\\' && end_ - at_ > 1) ++at_;
            line_ += *at_ == '\n';
        }
        token_.text = {begin + 1, static_cast<size_t>(at_ - begin - 1)};
        if (at_ < end_) ++at_;
        return;
    } else if (std::strchr(",;:()[]{}<>=|!+-@*/%&^~?", c) != nullptr && c != 0) {
        token_.kind = Token::symbol;
        token_.symbol_char = c;
        ++at_;
    } else {
        token_.text = {begin, 1};
        fail("an unexpected character");
    }
    token_.text = {begin, static_cast<size_t>(at_ - begin)};
}

}  // namespace emu::ptx
