#include "callgraph.h"

#include <algorithm>
#include <span>
#include <unordered_set>

namespace emu {

CallGraph::CallGraph(const ptx::Module& m) {
    for (const auto& f : m.functions)
        if (f->has_body && !f->entry) named_[f->name] = f.get();
    const auto initial = [&](const std::vector<ptx::Variable>& variables) {
        for (const ptx::Variable& v : variables)
            for (const ptx::Reference& r : v.references) take_address(r.name);
    };
    initial(m.variables);
    for (const auto& f : m.functions) {
        initial(f->variables);
        if (f->has_body) calls_[f.get()] = calls_of(*f);
    }
}

const ptx::Function* CallGraph::function(ptx::Name name) const {
    const auto it = named_.find(name);
    return it != named_.end() ? it->second : nullptr;
}

void CallGraph::take_address(ptx::Name name) {
    if (const ptx::Function* f = function(name); f != nullptr && !std::ranges::count(taken_, f)) taken_.push_back(f);
}

CallGraph::Calls CallGraph::calls_of(const ptx::Function& f) {
    Calls calls;
    for (const ptx::Instruction& i : f.code) {
        const std::span operands(f.operands.data() + i.first, i.count);
        if (i.opcode != "call" && i.opcode != "call.uni") {
            for (const ptx::Operand& o : operands) take_address(o.name);
            continue;
        }
        const auto callee = std::ranges::find(operands, ptx::Operand::symbol, &ptx::Operand::kind);
        if (callee == operands.end()) continue;
        if (const ptx::Function* known = function(callee->name))
            calls.known.push_back(known);
        else
            calls.by_address = true;
    }
    return calls;
}

std::vector<const ptx::Function*> CallGraph::reached(const ptx::Function& from) const {
    std::vector<const ptx::Function*> found;
    std::unordered_set<const ptx::Function*> seen;
    const auto visit = [&](const ptx::Function& f) {
        const Calls& calls = calls_.at(&f);
        for (const auto* list : {&calls.known, calls.by_address ? &taken_ : nullptr}) {
            if (list == nullptr) continue;
            for (const ptx::Function* to : *list)
                if (seen.insert(to).second) found.push_back(to);
        }
    };
    visit(from);
    for (size_t k = 0; k < found.size(); ++k) visit(*found[k]);
    return found;
}

bool CallGraph::recursive(const ptx::Function& f) const { return std::ranges::count(reached(f), &f) != 0; }

}  // namespace emu
