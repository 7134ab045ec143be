// A whole PTX module: lays out its variables, declares its functions, decodes them.
#include <algorithm>
#include <bit>
#include <cstring>

#include "../memory/spaces.h"
#include "builder.h"
#include "callgraph.h"

namespace emu {

namespace {

uint64_t aligned(uint64_t n, uint64_t to) { return (n + to - 1) / to * to; }

void put_value(const ptx::Variable& v, char* to, size_t element, uint64_t bits) {
    const uint32_t each = v.element_bytes / v.vector;
    if ((element + 1) * each <= v.bytes) std::memcpy(to + element * each, &bits, std::min(each, 8u));
}

void put_values(const ptx::Variable& v, char* to) {
    for (size_t k = 0; k < v.values.size(); ++k) put_value(v, to, k, v.values[k]);
}

class Layout {
  public:
    Layout(Program& p, Scope& s) : program_(p), scope_(s), graph_(*p.module) {}

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
            s = local(v, Symbol::local, program_.local_bytes);
        } else if (v.space == ".const") {
            s.kind = Symbol::constant;
            s.address = aligned(program_.constant_bank.size(), v.alignment);
            program_.constant_bank.resize(s.address + v.bytes);
            put_values(v, program_.constant_bank.data() + s.address);
            if (!v.references.empty()) unfinished_.emplace_back(&v, s);
        } else if (v.space == ".global") {
            s.kind = Symbol::global;
            auto& block = program_.memory.emplace_back(new char[v.bytes + v.alignment]());
            s.address = aligned(reinterpret_cast<uint64_t>(block.get()), v.alignment);
            put_values(v, reinterpret_cast<char*>(s.address));
            if (!v.references.empty()) unfinished_.emplace_back(&v, s);
            program_.globals[std::string(v.name)] = {reinterpret_cast<char*>(s.address), v.bytes};
        } else {
            return;
        }
        scope[v.name] = s;
    }

    void module() {
        for (const ptx::Variable& v : program_.module->variables) place(v, scope_, shared_);
        for (const auto& f : program_.module->functions) {
            if (f->entry) continue;
            Device& own = device_[f.get()];
            own.recursive = f->has_body && graph_.recursive(*f);
            for (const ptx::Variable& v : f->variables)
                if (v.space == ".local" && own.recursive)
                    own.scope[v.name] = local(v, Symbol::stacked, own.local_bytes);
                else
                    place(v, v.space == ".local" ? own.scope : scope_, shared_);
        }
        shared_ = static_cast<uint32_t>(aligned(shared_, dynamic_alignment_));
        // device functions know one address of dynamic shared memory: behind what any entry has
        dynamic_address_ = shared_;
        for (const auto& f : program_.module->functions) {
            uint64_t end = shared_;
            for (const ptx::Variable& v : f->variables)
                if (f->entry && v.space == ".shared") end = aligned(end, v.alignment) + v.bytes;
            dynamic_address_ = std::max(dynamic_address_, static_cast<uint32_t>(aligned(end, dynamic_alignment_)));
        }
        for (const Name n : dynamic_) scope_[n].address = dynamic_address_;
    }

    // What a function declares itself. Each call of a recursive function has its own part of the thread's stack, where
    // registers count, too, so that calls without end are found.
    Scope function(Code& c) {
        if (c.source->entry) return entry(c);
        const Device& own = device_[c.source];
        c.recursive = own.recursive;
        if (own.local_bytes != 0) program_.stack_bytes = kStackBytes;
        c.stack_bytes = static_cast<uint32_t>(aligned(own.local_bytes, local_alignment_));
        return own.scope;
    }

    // Behind all of them: initial values that are addresses.
    void finish() {
        program_.local_bytes = static_cast<uint32_t>(aligned(program_.local_bytes, local_alignment_));
        for (const auto& [v, s] : unfinished_) {
            const bool global = s.kind == Symbol::global;
            char* to = global ? reinterpret_cast<char*>(s.address) : program_.constant_bank.data() + s.address;
            for (const ptx::Reference& r : v->references) {
                const uint64_t address = target(*v, r) + r.offset;
                put_value(*v, to, r.element, (address & r.mask) >> std::countr_zero(r.mask));
            }
        }
    }
    std::vector<const ptx::Function*> reached(const Code& c) const { return graph_.reached(*c.source); }

    uint32_t alignment() const { return local_alignment_; }

  private:
    // Whether a function that an entry may call uses dynamic shared memory.
    bool calls_dynamic(const Code& c) const {
        if (dynamic_.empty()) return false;
        const auto is_dynamic = [&](const Operand& o) { return std::ranges::count(dynamic_, o.name) != 0; };
        return std::ranges::any_of(reached(c), [&](const ptx::Function* f) {
            return std::ranges::any_of(f->operands, is_dynamic) || std::ranges::any_of(f->elements, is_dynamic);
        });
    }

    struct Device {
        Scope scope;
        uint32_t local_bytes = 0;
        bool recursive = false;
    };

    Symbol local(const ptx::Variable& v, Symbol::Kind kind, uint32_t& bytes) {
        const uint32_t alignment = std::max(16u, v.alignment);
        local_alignment_ = std::max(local_alignment_, alignment);
        Symbol s;
        s.kind = kind;
        s.address = aligned(bytes, alignment);
        bytes = static_cast<uint32_t>(s.address + v.bytes);
        return s;
    }

    // An entry's own variables lie behind the module's, dynamic shared memory behind them.
    Scope entry(Code& c) {
        Scope own;
        uint32_t shared = shared_;
        for (const ptx::Variable& v : c.source->variables) place(v, own, shared);
        c.static_shared =
            calls_dynamic(c) ? dynamic_address_ : static_cast<uint32_t>(aligned(shared, dynamic_alignment_));
        for (const Name n : dynamic_) {
            own[n] = scope_[n];
            own[n].address = c.static_shared;
        }
        return own;
    }

    uint64_t target(const ptx::Variable& v, const ptx::Reference& r) const {
        const auto it = scope_.find(r.name);
        const Symbol::Kind kind = it != scope_.end() ? it->second.kind : Symbol::reg;
        const bool known = kind == Symbol::global || kind == Symbol::constant ||
                           (kind == Symbol::function && !it->second.function_code->source->entry);
        if (!known || r.mask == 0)
            throw Error(unsupported_ptx, concat("the address of '", r.name, "' as an initial value of ", v.name,
                                                " at PTX line ", v.line));
        return it->second.address + (r.generic && kind == Symbol::constant ? kConstWindow : 0);
    }

    Program& program_;
    Scope& scope_;
    CallGraph graph_;
    std::unordered_map<const ptx::Function*, Device> device_;
    std::vector<std::pair<const ptx::Variable*, Symbol>> unfinished_;  // with addresses among their initial values
    std::vector<Name> dynamic_;
    uint64_t dynamic_alignment_ = 1;
    uint32_t shared_ = 0, dynamic_address_ = 0, local_alignment_ = 16;
};

}  // namespace

std::unique_ptr<Program> decode(std::string ptx) {
    auto p = std::make_unique<Program>();
    p->module = ptx::parse(std::move(ptx));
    Scope globals;
    Layout layout(*p, globals);
    layout.module();

    std::vector<Code*> order;
    std::unordered_map<const ptx::Function*, Code*> decoded;
    for (const auto& f : p->module->functions) {
        if (!f->has_body) continue;
        if (p->functions.contains(std::string(f->name))) throw Error(invalid_ptx, concat(f->name, " is defined twice"));
        auto code = std::make_unique<Code>();
        code->source = f.get(), code->module = p->module.get(), code->name = std::string(f->name);
        code->number = static_cast<uint32_t>(order.size());
        Symbol s;
        s.kind = Symbol::function, s.function_code = code.get();
        s.address = kCodeWindow + kCodeStep * code->number;
        globals[f->name] = s;
        order.push_back(code.get());
        decoded[f.get()] = code.get();
        p->functions[code->name] = std::move(code);
    }
    p->by_address.assign(order.begin(), order.end());
    std::deque<Builder> builders;
    for (Code* c : order) builders.emplace_back(*c, globals, layout.function(*c)).declare_parameters();
    layout.finish();
    for (Builder& b : builders) b.run();
    for (Code* c : order) {
        if (c->recursive)
            c->stack_bytes += static_cast<uint32_t>(aligned(c->register_bytes / 32 + 1, layout.alignment()));
        if (!c->source->entry) continue;
        c->any_wgmma = !c->touch_at.empty();
        for (const ptx::Function* f : layout.reached(*c))
            c->any_wgmma |= !decoded.at(f)->touch_at.empty(), c->any_reserved |= decoded.at(f)->any_reserved;
    }
    return p;
}

}  // namespace emu
