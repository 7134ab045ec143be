#include "scopes.h"

#include <algorithm>
#include <charconv>

#include "../error.h"

namespace emu::ptx {

// From a block's names to others; those of a family (name<8>) by what stands in front of the number.
class Scopes::Renaming {
  public:
    Renaming(Module& m, uint32_t number) : module_(m), mark_(concat("{", number, "}")) {}

    Name add(Name name) { return one_[name] = kept(concat(name, mark_)); }
    Name add_family(Name name, uint32_t count) {
        families_.push_back({name, kept(concat(name, mark_)), count});
        return families_.back().to;
    }
    bool empty() const { return one_.empty() && families_.empty(); }

    void operator()(Name& name) {
        if (name.empty()) return;
        if (const auto it = one_.find(name); it != one_.end()) {
            name = it->second;
            return;
        }
        for (const Family& f : families_) {
            if (!name.starts_with(f.name)) continue;
            const Name digits = name.substr(f.name.size());
            uint32_t n = 0;
            const auto [stop, code] = std::from_chars(digits.data(), digits.data() + digits.size(), n);
            if (code == std::errc() && stop == digits.data() + digits.size() && n < f.count)
                return void(name = one_[name] = kept(concat(f.to, digits)));
        }
    }

  private:
    struct Family {
        Name name, to;
        uint32_t count;
    };

    Name kept(std::string s) { return module_.names.emplace_back(std::move(s)); }

    Module& module_;
    std::string mark_;
    std::unordered_map<Name, Name> one_;
    std::vector<Family> families_;
};

void Scopes::open() {
    const Function& f = function_;
    blocks_.push_back({f.operands.size(), f.elements.size(), f.code.size(), f.variables.size(), {}, {}, {}, {}});
}

bool Scopes::label(Name name) {
    return blocks_.back().labels.emplace(name, static_cast<uint32_t>(function_.code.size())).second;
}

std::vector<Name>& Scopes::targets(Name table) { return blocks_.back().targets[table]; }
Prototype& Scopes::prototype(Name name) { return blocks_.back().prototypes[name]; }

void Scopes::close() {
    Block block = std::move(blocks_.back());
    blocks_.pop_back();
    Function& f = function_;
    const bool outermost = blocks_.empty();
    Renaming rename(module_, ++number_);
    const auto own = [&](Name name) { return outermost ? name : rename.add(name); };
    for (const auto& [name, at] : block.labels) f.labels[own(name)] = at;
    for (auto& [name, list] : block.targets) {
        const Name table = own(name);
        f.targets[table] = std::move(list);
        block.inner.push_back(table);
    }
    for (auto& [name, p] : block.prototypes) f.prototypes[own(name)] = std::move(p);
    if (outermost) return;
    // variables of the blocks within have been changed already
    for (size_t k = block.variables; k < f.variables.size(); ++k) {
        Variable& v = f.variables[k];
        if (v.name.find('{') == Name::npos) v.name = v.count ? rename.add_family(v.name, v.count) : rename.add(v.name);
    }
    if (!rename.empty()) {
        const auto operands = [&](std::vector<Operand>& list, size_t from) {
            for (size_t k = from; k < list.size(); ++k) rename(list[k].name), rename(list[k].second);
        };
        operands(f.operands, block.operands);
        operands(f.elements, block.elements);
        for (size_t k = block.code; k < f.code.size(); ++k) rename(f.code[k].guard);
        for (const Name table : block.inner)
            for (Name& label : f.targets[table]) rename(label);
    }
    std::ranges::copy(block.inner, std::back_inserter(blocks_.back().inner));
}

}  // namespace emu::ptx
