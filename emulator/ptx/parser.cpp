#include <algorithm>

#include "../error.h"
#include "lexer.h"

namespace emu::ptx {

namespace {

class Parser {
  public:
    explicit Parser(Module& m) : module_(m), lex_(m.text) {}

    void run() {
        while (lex_.peek().kind != Token::end) statement();
    }

  private:
    void statement();
    void file();
    void function(bool entry, bool external);
    void body(Function& f);
    void directive_in_body(Function& f);
    void instruction(Function& f, Token opcode, Name guard, bool negated);
    void location();
    std::vector<Variable> parameters();
    void variables(Name space, bool external, std::vector<Variable>& to);
    Variable declaration(Name space);
    void initial(Variable& v);
    void address(Variable& v);
    void named_directive(Function& f, Name label);
    Operand operand(Function& f);
    Operand number(bool negative);
    void elements(Function& f, Operand& o, char close);
    uint64_t integer();
    void skip_braces();

    Module& module_;
    Lexer lex_;
    Position at_;
    int nesting_ = 0;
};

bool is_space(Name n) {
    return n == ".global" || n == ".const" || n == ".shared" || n == ".local" || n == ".param" || n == ".reg";
}

uint64_t Parser::integer() {
    const bool negative = lex_.take_if('-');
    const uint64_t bits = lex_.expect(Token::integer, "a number").bits;
    return negative ? -bits : bits;
}

void Parser::skip_braces() {
    lex_.expect('{');
    for (int depth = 1; depth > 0;) {
        if (lex_.peek().kind == Token::end) lex_.fail("a brace is not closed");
        if (lex_.is('{')) ++depth;
        if (lex_.is('}')) --depth;
        lex_.take();
    }
}

void Parser::file() {
    const uint64_t number = integer();
    const Name path = lex_.expect(Token::string, "a file name").text;
    if (number > 100000) lex_.fail("a file number out of reason");
    if (module_.files.size() <= number) module_.files.resize(number + 1);
    module_.files[number] = std::string(path);
    while (lex_.take_if(',')) integer();
}

void Parser::statement() {
    bool external = false;
    for (;;) {
        const Token t = lex_.expect(Token::directive, "a directive");
        const Name d = t.text;
        if (d == ".version" || d == ".address_size") return void(lex_.take());
        if (d == ".target") {
            module_.target = lex_.expect(Token::word, "a target").text;
            while (lex_.take_if(',')) lex_.take();
            return;
        }
        if (d == ".file") return file();
        if (d == ".section") {
            lex_.take();
            return skip_braces();
        }
        if (d == ".pragma") {
            lex_.take();
            return lex_.expect(';');
        }
        if (d == ".entry" || d == ".func") return function(d == ".entry", external);
        if (d == ".extern") external = true;
        if (d == ".extern" || d == ".visible" || d == ".weak" || d == ".common") continue;
        if (is_space(d)) return variables(d, external, module_.variables);
        lex_.fail(concat("directive ", d, " is not supported"));
    }
}

Variable Parser::declaration(Name space) {
    Variable v;
    v.space = space;
    v.line = lex_.peek().line;
    while (lex_.peek().kind == Token::directive) {
        const Name d = lex_.take().text;
        if (d == ".align")
            v.alignment = static_cast<uint32_t>(integer());
        else if (d == ".v2")
            v.vector = 2;
        else if (d == ".v4")
            v.vector = 4;
        else if (d != ".ptr" && !is_space(d) && d != ".attribute")
            v.type = d;
    }
    v.element_bytes = size_of_type(v.type) * v.vector;
    v.name = lex_.expect(Token::word, "a name").text;
    if (lex_.take_if('<')) {
        v.count = static_cast<uint32_t>(integer());
        lex_.expect('>');
    }
    v.bytes = v.element_bytes;
    while (lex_.take_if('[')) {
        const uint64_t n = lex_.is(']') ? 0 : integer();
        if (n != 0 && v.bytes > (uint64_t{1} << 40) / n) lex_.fail("an array too large");
        v.bytes *= n;
        lex_.expect(']');
    }
    if (v.alignment == 0) v.alignment = std::max(1u, v.element_bytes);
    if ((v.alignment & (v.alignment - 1)) != 0 || v.alignment > (1u << 16)) lex_.fail("an alignment out of reason");
    if (v.bytes > (uint64_t{1} << 36)) lex_.fail("a variable too large");
    return v;
}

// The name of the latest reference and its offset.
void Parser::address(Variable& v) {
    Reference& r = v.references.back();
    r.name = lex_.expect(Token::word, "a name").text;
    if (r.name == "generic" && lex_.take_if('(')) {
        r.generic = true;
        r.name = lex_.expect(Token::word, "a name").text;
        lex_.expect(')');
    }
    if (lex_.take_if('+') || lex_.is('-')) r.offset = integer();
}

void Parser::initial(Variable& v) {
    int depth = 0;
    do {
        while (lex_.take_if('{')) ++depth;
        if (lex_.peek().kind == Token::word) {
            v.references.push_back({v.values.size(), {}});
            address(v);
            v.values.push_back(0);
        } else {
            const Operand o = number(lex_.take_if('-'));
            if (lex_.take_if('(')) {
                v.references.push_back({v.values.size(), {}, 0, o.bits});
                address(v);
                lex_.expect(')');
            }
            v.values.push_back(o.bits);
        }
        while (depth > 0 && lex_.take_if('}')) --depth;
    } while (lex_.take_if(','));
    if (depth != 0) lex_.fail("a brace is not closed");
    if (v.bytes == 0) v.bytes = v.values.size() * v.element_bytes;
}

void Parser::variables(Name space, bool external, std::vector<Variable>& to) {
    Variable v = declaration(space);
    for (;;) {
        v.external = external;
        if (lex_.take_if('=')) initial(v);
        to.push_back(v);
        if (!lex_.take_if(',')) break;
        const Variable former = v;
        v = declaration(space);
        v.type = former.type, v.vector = former.vector, v.alignment = former.alignment;
        v.element_bytes = v.bytes = former.element_bytes;
    }
    lex_.expect(';');
}

std::vector<Variable> Parser::parameters() {
    std::vector<Variable> list;
    lex_.expect('(');
    while (!lex_.take_if(')')) {
        const Name space = lex_.expect(Token::directive, "a parameter").text;
        list.push_back(declaration(space));
        if (!lex_.is(')')) lex_.expect(',');
    }
    return list;
}

void Parser::function(bool entry, bool) {
    auto f = std::make_unique<Function>();
    f->entry = entry;
    f->line = lex_.peek().line;
    if (lex_.is('(')) f->results = parameters();
    f->name = lex_.expect(Token::word, "a function's name").text;
    if (lex_.is('(')) f->parameters = parameters();
    while (lex_.peek().kind == Token::directive) {
        const Name d = lex_.take().text;
        std::vector<uint64_t> numbers;
        if (lex_.peek().kind == Token::integer) {
            numbers.push_back(integer());
            while (lex_.take_if(',')) numbers.push_back(integer());
        }
        if (d == ".maxntid" || d == ".reqntid") {
            f->max_threads = 1;
            for (const uint64_t n : numbers) f->max_threads *= static_cast<uint32_t>(n);
        } else if (d == ".reqnctapercluster") {
            std::fill(std::begin(f->cluster), std::end(f->cluster), 1u);
            for (size_t k = 0; k < std::min<size_t>(3, numbers.size()); ++k)
                f->cluster[k] = static_cast<uint32_t>(numbers[k]);
        } else if (d == ".maxclusterrank") {
            f->max_cluster_rank = numbers.empty() ? 0 : static_cast<uint32_t>(numbers[0]);
        } else if (d == ".explicitcluster") {
            f->explicit_cluster = true;
        } else if (d == ".blocksareclusters") {
            f->blocks_are_clusters = true;
        } else if (d == ".pragma") {
            lex_.take(), lex_.expect(';');
        } else if (d != ".minnctapersm" && d != ".maxnreg" && d != ".noreturn") {
            lex_.fail(concat("directive ", d, " is not supported"));
        }
    }
    if (!lex_.take_if(';')) {
        f->has_body = true;
        at_ = {};
        body(*f);
    }
    module_.functions.push_back(std::move(f));
}

void Parser::location() {
    const uint32_t line = lex_.peek().line;
    at_.file = static_cast<uint32_t>(integer());
    at_.source_line = static_cast<uint32_t>(integer());
    lex_.skip_line(line);
}

void Parser::directive_in_body(Function& f) {
    const Token d = lex_.take();
    if (d.text == ".loc") return location();
    if (d.text == ".pragma") {
        lex_.take();
        return lex_.expect(';');
    }
    if (!is_space(d.text)) lex_.fail(concat("directive ", d.text, " is not supported"));
    const size_t known = f.variables.size();
    variables(d.text, false, f.variables);
    for (size_t i = known; i < f.variables.size(); ++i) f.variables[i].before = static_cast<uint32_t>(f.code.size());
}

void Parser::body(Function& f) {
    lex_.expect('{');
    for (int depth = 1; depth > 0;) {
        const Token& t = lex_.peek();
        if (t.kind == Token::end) lex_.fail("a function is not closed");
        if (lex_.take_if('{')) {
            ++depth;
        } else if (lex_.take_if('}')) {
            --depth;
        } else if (lex_.take_if(';')) {
        } else if (t.kind == Token::directive) {
            directive_in_body(f);
        } else if (lex_.take_if('@')) {
            const bool negated = lex_.take_if('!');
            const Name guard = lex_.expect(Token::word, "a predicate").text;
            instruction(f, lex_.expect(Token::word, "an instruction"), guard, negated);
        } else {
            const Token word = lex_.expect(Token::word, "an instruction");
            if (!lex_.take_if(':')) {
                instruction(f, word, {}, false);
            } else if (const Name d = lex_.peek().text;
                       d == ".branchtargets" || d == ".calltargets" || d == ".callprototype") {
                named_directive(f, word.text);
            } else {
                f.labels[word.text] = static_cast<uint32_t>(f.code.size());
            }
        }
    }
}

void Parser::named_directive(Function& f, Name label) {
    if (lex_.take().text != ".callprototype") {
        std::vector<Name>& targets = f.targets[label];
        do targets.push_back(lex_.expect(Token::word, "a name").text);
        while (lex_.take_if(','));
        return lex_.expect(';');
    }
    Prototype& p = f.prototypes[label];
    if (lex_.is('(')) p.results = parameters();
    lex_.expect(Token::word, "_");
    if (lex_.is('(')) p.parameters = parameters();
    while (lex_.peek().kind == Token::directive || lex_.peek().kind == Token::integer) lex_.take();
    lex_.expect(';');
}

void Parser::instruction(Function& f, Token opcode, Name guard, bool negated) {
    Instruction i;
    i.opcode = opcode.text, i.guard = guard, i.guard_negated = negated;
    i.at = at_;
    i.at.line = opcode.line;
    i.first = static_cast<uint32_t>(f.operands.size());
    if (!lex_.is(';')) {
        do {
            const Operand o = operand(f);
            f.operands.push_back(o);
        } while (lex_.take_if(','));
    }
    lex_.expect(';');
    i.count = static_cast<uint32_t>(f.operands.size()) - i.first;
    f.code.push_back(i);
}

Operand Parser::number(bool negative) {
    Operand o;
    const Token t = lex_.take();
    switch (t.kind) {
        case Token::integer:
            o.kind = Operand::integer;
            o.bits = negative ? -t.bits : t.bits;
            break;
        case Token::f32:
            o.kind = Operand::f32;
            o.bits = t.bits ^ (negative ? 0x80000000u : 0u);
            break;
        case Token::f64:
            o.kind = Operand::f64;
            o.bits = t.bits ^ (negative ? uint64_t{1} << 63 : 0);
            break;
        default:
            lex_.fail("expected a number");
    }
    return o;
}

void Parser::elements(Function& f, Operand& o, char close) {
    if (++nesting_ > 4) lex_.fail("operands nested too deeply");
    std::vector<Operand> items;
    if (!lex_.is(close)) {
        do items.push_back(operand(f));
        while (lex_.take_if(','));
    }
    lex_.expect(close);
    o.first = static_cast<uint32_t>(f.elements.size());
    o.count = static_cast<uint32_t>(items.size());
    f.elements.insert(f.elements.end(), items.begin(), items.end());
    --nesting_;
}

Operand Parser::operand(Function& f) {
    Operand o;
    if (lex_.take_if('{')) {
        o.kind = Operand::vector;
        elements(f, o, '}');
        return o;
    }
    if (lex_.take_if('(')) {
        o.kind = Operand::list;
        elements(f, o, ')');
        return o;
    }
    if (lex_.take_if('[')) {
        o.kind = Operand::address;
        if (lex_.peek().kind == Token::word) {
            o.name = lex_.take().text;
            if (lex_.take_if('+'))
                o.bits = integer();
            else if (lex_.is('-'))
                o.bits = integer();
        } else {
            o.bits = integer();
        }
        if (lex_.take_if(',')) {  // a tensor map's coordinates
            lex_.expect('{');
            elements(f, o, '}');
        }
        lex_.expect(']');
        return o;
    }
    o.negated = lex_.take_if('!');
    if (lex_.peek().kind == Token::word) {
        o.kind = Operand::symbol;
        o.name = lex_.take().text;
        if (lex_.take_if('|')) o.second = lex_.expect(Token::word, "a name").text;
        if (lex_.take_if('+')) o.bits = integer();
        return o;
    }
    if (o.negated) lex_.fail("expected a predicate");
    return number(lex_.take_if('-'));
}

}  // namespace

uint32_t size_of_type(Name type) {
    const size_t digits = type.find_first_of("0123456789");
    if (digits == Name::npos) return 0;
    uint32_t bits = 0;
    for (size_t i = digits; i < type.size() && type[i] >= '0' && type[i] <= '9'; ++i)
        bits = bits * 10 + static_cast<uint32_t>(type[i] - '0');
    if (type.ends_with("x2")) bits *= 2;
    return bits <= 128 ? bits / 8 : 0;
}

Name Module::line(uint32_t number) const {
    size_t begin = 0;
    for (uint32_t n = 1; n < number && begin < text.size(); ++n) {
        const size_t stop = text.find('\n', begin);
        if (stop == std::string::npos) return {};
        begin = stop + 1;
    }
    Name line = Name(text).substr(begin, text.find('\n', begin) - begin);
    while (!line.empty() && (line.front() == ' ' || line.front() == '\t')) line.remove_prefix(1);
    return line;
}

std::string Module::source(const Position& at) const {
    if (at.file >= files.size() || files[at.file].empty()) return concat("PTX line ", at.line);
    // the build's own folders say nothing to the reader
    std::string file = files[at.file];
    for (const char* root : {"/kernels/", "/tests/"})
        if (const size_t p = file.rfind(root); p != std::string::npos) file = file.substr(p + 1);
    return concat(file, ":", at.source_line);
}

std::unique_ptr<Module> parse(std::string text) {
    auto m = std::make_unique<Module>();
    m->text = std::move(text);
    while (!m->text.empty() && m->text.back() == '\0') m->text.pop_back();
    Parser(*m).run();
    return m;
}

}  // namespace emu::ptx
