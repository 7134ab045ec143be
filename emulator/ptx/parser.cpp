#include <algorithm>
#include <bit>

#include "../error.h"
#include "constant.h"
#include "lexer.h"
#include "scopes.h"

namespace emu::ptx {

namespace {

constexpr uint64_t kMostPadding = uint64_t{1} << 24;  // zeros behind a row of initial values

class Parser {
  public:
    explicit Parser(Module& m) : module_(m), lex_(m.text) {}

    void run() {
        while (lex_.peek().kind != Token::end) statement();
        module_.resolve_aliases();
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
    Variable declaration(Name space, const Variable* former = nullptr);
    void initial(Variable& v, size_t level);
    void value(Variable& v);
    void address(Variable& v);
    void attribute();
    void alias();
    void named_directive(Scopes& scopes, Name label);
    Operand operand(Function& f);
    Operand constant() { return Constants(lex_).parse(); }
    uint64_t integer();
    uint64_t offset();
    void elements(Function& f, Operand& o, char close);
    void skip_braces();

    Module& module_;
    Lexer lex_;
    Position at_;
    int nesting_ = 0;
    bool calls_ = false;  // the instruction is a call: parentheses are lists
};

bool is_space(Name n) {
    return n == ".global" || n == ".const" || n == ".shared" || n == ".local" || n == ".param" || n == ".reg";
}

uint64_t Parser::integer() {
    const Operand o = constant();
    if (o.kind != Operand::integer) lex_.fail("expected an integer");
    return o.bits;
}

// Behind a name: + or - an expression.
uint64_t Parser::offset() {
    if (!lex_.is('+') && !lex_.is('-')) return 0;
    const Operand o = Constants(lex_).parse_from(Constants::integer(0));
    if (o.kind != Operand::integer) lex_.fail("expected an integer");
    return o.bits;
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

// .alias name, of;
void Parser::alias() {
    const Name name = lex_.expect(Token::word, "a function's name").text;
    lex_.expect(',');
    module_.aliases[name] = lex_.expect(Token::word, "a function's name").text;
    lex_.expect(';');
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
        if (d == ".alias") return alias();
        if (d == ".entry" || d == ".func") return function(d == ".entry", external);
        if (d == ".extern") external = true;
        if (d == ".extern" || d == ".visible" || d == ".weak" || d == ".common") continue;
        if (is_space(d)) return variables(d, external, module_.variables);
        lex_.fail(concat("directive ", d, " is not supported"));
    }
}

// .attribute(.managed, .unified(1, 2)): where the system keeps a variable.
void Parser::attribute() {
    lex_.expect('(');
    for (int depth = 1; depth > 0;) {
        if (lex_.peek().kind == Token::end) lex_.fail("a parenthesis is not closed");
        depth += lex_.is('(') - lex_.is(')');
        lex_.take();
    }
}

// `former`: the one in front of it in a list, whose type it has.
Variable Parser::declaration(Name space, const Variable* former) {
    Variable v;
    v.space = space;
    if (former != nullptr) v.type = former->type, v.vector = former->vector, v.alignment = former->alignment;
    v.line = lex_.peek().line;
    while (lex_.peek().kind == Token::directive) {
        const Name d = lex_.take().text;
        if (d == ".align")
            v.alignment = static_cast<uint32_t>(integer());
        else if (d == ".v2")
            v.vector = 2;
        else if (d == ".v4")
            v.vector = 4;
        else if (d == ".attribute")
            attribute();
        else if (d != ".ptr" && !is_space(d))
            v.type = d;
    }
    v.element_bytes = size_of_type(v.type) * v.vector;
    v.name = lex_.expect(Token::word, "a name").text;
    if (lex_.take_if('<')) {
        v.count = static_cast<uint32_t>(lex_.expect(Token::integer, "a number").bits);
        lex_.expect('>');
    }
    v.bytes = v.element_bytes;
    while (lex_.take_if('[')) {
        const uint64_t n = lex_.is(']') ? 0 : integer();
        if (n != 0 && v.bytes > (uint64_t{1} << 40) / n) lex_.fail("an array too large");
        v.bytes *= n;
        v.extents.push_back(n);
        lex_.expect(']');
    }
    if (v.vector > 1) v.extents.push_back(v.vector);
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
    r.offset = offset();
}

// A value, or a row of them in braces, which zeros fill up.
void Parser::initial(Variable& v, size_t level) {
    if (level > 16) lex_.fail("braces nested too deeply");
    if (!lex_.take_if('{')) return value(v);
    const size_t begin = v.values.size();
    if (!lex_.is('}')) {
        do initial(v, level + 1);
        while (lex_.take_if(','));
    }
    lex_.expect('}');
    if (level == 0 || level >= v.extents.size()) return;
    uint64_t whole = 1;
    for (size_t k = level; k < v.extents.size(); ++k) whole *= v.extents[k];
    if (v.values.size() - begin > whole) lex_.fail("too many initial values in a row");
    if (whole > kMostPadding) lex_.fail("a row too long for initial values");
    v.values.resize(begin + whole);
}

void Parser::value(Variable& v) {
    if (lex_.peek().kind == Token::word && lex_.peek().text != "WARP_SZ") {
        v.references.push_back({v.values.size(), {}});
        address(v);
        v.values.push_back(0);
        return;
    }
    Operand o = constant();
    if (lex_.take_if('(')) {
        v.references.push_back({v.values.size(), {}, 0, o.bits});
        address(v);
        lex_.expect(')');
    }
    const uint32_t bytes = v.element_bytes / v.vector;
    if (o.kind == Operand::f64 && bytes == 4)
        o.bits = std::bit_cast<uint32_t>(static_cast<float>(std::bit_cast<double>(o.bits)));
    if (o.kind == Operand::f32 && bytes == 8)
        o.bits = std::bit_cast<uint64_t>(double{std::bit_cast<float>(static_cast<uint32_t>(o.bits))});
    v.values.push_back(o.bits);
}

void Parser::variables(Name space, bool external, std::vector<Variable>& to) {
    Variable v = declaration(space);
    for (;;) {
        v.external = external;
        if (lex_.take_if('=')) {
            initial(v, 0);
            if (v.bytes == 0) v.bytes = v.values.size() * (v.element_bytes / v.vector);
        }
        to.push_back(v);
        if (!lex_.take_if(',')) break;
        const Variable former = std::move(v);
        v = declaration(space, &former);
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
        } else if (d == ".attribute") {
            attribute();
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
    Scopes scopes(module_, f);
    for (int depth = 1; depth > 0;) {
        const Token& t = lex_.peek();
        if (t.kind == Token::end) lex_.fail("a function is not closed");
        if (lex_.take_if('{')) {
            ++depth;
            scopes.open();
        } else if (lex_.take_if('}')) {
            --depth;
            scopes.close();
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
                named_directive(scopes, word.text);
            } else if (!scopes.label(word.text)) {
                lex_.fail(concat("label ", word.text, " is declared twice"));
            }
        }
    }
}

void Parser::named_directive(Scopes& scopes, Name label) {
    if (lex_.take().text != ".callprototype") {
        std::vector<Name>& targets = scopes.targets(label);
        do targets.push_back(lex_.expect(Token::word, "a name").text);
        while (lex_.take_if(','));
        return lex_.expect(';');
    }
    Prototype& p = scopes.prototype(label);
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
    calls_ = i.opcode.starts_with("call");
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
    if (calls_ && lex_.take_if('(')) {
        o.kind = Operand::list;
        elements(f, o, ')');
        return o;
    }
    if (lex_.take_if('[')) {
        o.kind = Operand::address;
        if (lex_.peek().kind == Token::word) {
            o.name = lex_.take().text;
            o.bits = offset();
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
    const bool negated = lex_.is('!') && lex_.starts_word_behind();
    if (negated) lex_.take();
    if (lex_.peek().kind != Token::word || lex_.peek().text == "WARP_SZ") return constant();
    o.negated = negated;
    o.kind = Operand::symbol;
    o.name = lex_.take().text;
    if (lex_.take_if('|')) o.second = lex_.expect(Token::word, "a name").text;
    o.bits = offset();
    return o;
}

}  // namespace

std::unique_ptr<Module> parse(std::string text) {
    auto m = std::make_unique<Module>();
    m->text = std::move(text);
    while (!m->text.empty() && m->text.back() == '\0') m->text.pop_back();
    Parser(*m).run();
    return m;
}

}  // namespace emu::ptx
