// A whole PTX module: lays out its variables, declares its functions, decodes them.
#include <algorithm>
#include <cstring>
#include <unordered_set>

#include "../memory/spaces.h"
#include "builder.h"

namespace emu {

namespace {

uint64_t aligned(uint64_t n, uint64_t to) { return (n + to - 1) / to * to; }

void put_values(const ptx::Variable& v, char* to) {
    const uint32_t each = v.element_bytes / v.vector;
    for (size_t k = 0; k < v.values.size() && (k + 1) * each <= v.bytes; ++k)
        std::memcpy(to + k * each, &v.values[k], each);
}

class Layout {
  public:
    Layout(Program& p, Scope& s) : program_(p), scope_(s) {}

    // `shared`: the bytes of shared memory that are taken so far, by the module or by an entry on top of it.
    void place(const ptx::Variable& v, Scope& scope, uint32_t& shared) {
        Symbol s;
        if (v.space == ".shared") {
            s.kind = Symbol::shared;
            if (v.bytes == 0) {
                dynamic_.push_back(v.name);
                dynamic_alignment_ = std::max<uint64_t>(dynamic_alignment_, v.alignment);
            } else {
                s.address = aligned(shared, v.alignment);
                shared = static_cast<uint32_t>(s.address + v.bytes);
            }
        } else if (v.space == ".local") {
            s.kind = Symbol::local;
            s.address = aligned(program_.local_bytes, std::max(16u, v.alignment));
            program_.local_bytes = static_cast<uint32_t>(s.address + v.bytes);
        } else if (v.space == ".const") {
            s.kind = Symbol::constant;
            s.address = aligned(program_.constant_bank.size(), v.alignment);
            program_.constant_bank.resize(s.address + v.bytes);
            put_values(v, program_.constant_bank.data() + s.address);
        } else if (v.space == ".global") {
            s.kind = Symbol::global;
            auto& block = program_.memory.emplace_back(new char[v.bytes + v.alignment]());
            s.address = aligned(reinterpret_cast<uint64_t>(block.get()), v.alignment);
            put_values(v, reinterpret_cast<char*>(s.address));
            program_.globals[std::string(v.name)] = {reinterpret_cast<char*>(s.address), v.bytes};
        } else {
            return;
        }
        scope[v.name] = s;
    }

    void module() {
        for (const ptx::Variable& v : program_.module->variables) place(v, scope_, shared_);
        for (const auto& f : program_.module->functions)
            if (!f->entry)
                for (const ptx::Variable& v : f->variables) place(v, scope_, shared_);
        shared_ = static_cast<uint32_t>(aligned(shared_, dynamic_alignment_));
        for (const Name n : dynamic_) scope_[n].address = shared_;
    }

    // An entry's own variables lie behind the module's, dynamic shared memory behind them.
    Scope entry(Code& c) {
        Scope own;
        uint32_t shared = shared_;
        for (const ptx::Variable& v : c.source->variables) place(v, own, shared);
        c.static_shared = static_cast<uint32_t>(aligned(shared, dynamic_alignment_));
        for (const Name n : dynamic_) {
            own[n] = scope_[n];
            own[n].address = c.static_shared;
        }
        return own;
    }

    bool dynamic_moves(const Code& c) const { return !dynamic_.empty() && c.static_shared != shared_; }

  private:
    Program& program_;
    Scope& scope_;
    std::vector<Name> dynamic_;
    uint64_t dynamic_alignment_ = 1;
    uint32_t shared_ = 0;
};

void refuse_recursion(const Code& c, std::unordered_set<const Code*>& above) {
    if (!above.insert(&c).second) throw Error(unsupported_ptx, concat("recursion in ", c.name, " is not supported"));
    for (const Call& call : c.calls) refuse_recursion(*call.callee, above);
    above.erase(&c);
}

}  // namespace

std::unique_ptr<Program> decode(std::string ptx) {
    auto p = std::make_unique<Program>();
    p->module = ptx::parse(std::move(ptx));
    Scope globals;
    Layout layout(*p, globals);
    layout.module();

    std::vector<Code*> order;
    for (const auto& f : p->module->functions) {
        if (!f->has_body) continue;
        auto code = std::make_unique<Code>();
        code->source = f.get(), code->module = p->module.get(), code->name = std::string(f->name);
        Symbol s;
        s.kind = Symbol::function, s.function_code = code.get();
        globals[f->name] = s;
        order.push_back(code.get());
        p->functions[code->name] = std::move(code);
    }
    std::deque<Builder> builders;
    for (Code* c : order)
        builders.emplace_back(*c, globals, c->source->entry ? layout.entry(*c) : Scope{}).declare_parameters();
    for (Builder& b : builders) b.run();
    for (Code* c : order) {
        if (c->source->entry && !c->calls.empty() && layout.dynamic_moves(*c))
            throw Error(unsupported_ptx, concat(c->name, " has static and dynamic shared memory, and calls functions"));
        std::unordered_set<const Code*> above;
        refuse_recursion(*c, above);
    }
    return p;
}

}  // namespace emu
