#include "builder.h"

#include "../exec/warp.h"

namespace emu {

namespace {

constexpr std::pair<Name, Type> kTypes[] = {
    {"pred", Type::pred}, {"b8", Type::b8},   {"b16", Type::b16}, {"b32", Type::b32},     {"b64", Type::b64},
    {"b128", Type::b128}, {"u8", Type::u8},   {"u16", Type::u16}, {"u32", Type::u32},     {"u64", Type::u64},
    {"s8", Type::s8},     {"s16", Type::s16}, {"s32", Type::s32}, {"s64", Type::s64},     {"f16", Type::f16},
    {"bf16", Type::bf16}, {"f32", Type::f32}, {"f64", Type::f64}, {"f16x2", Type::f16x2}, {"bf16x2", Type::bf16x2},
    {"tf32", Type::tf32}};

}  // namespace

Type type_of(Name name) {
    for (const auto& [n, t] : kTypes)
        if (n == name) return t;
    return Type::none;
}

void Builder::unsupported(const std::string& why) const {
    const ptx::Module& m = *code_.module;
    if (inst_ == nullptr) throw Error(unsupported_ptx, concat(why, " in ", f_.name));
    throw Error(unsupported_ptx, concat("the emulator has no '", m.line(inst_->at.line), "' (", why, ") at PTX line ",
                                        inst_->at.line, " of ", f_.name, ", ", m.source(inst_->at)));
}

void Builder::split_opcode() {
    parts_.clear();
    Name rest = inst_->opcode;
    for (size_t dot; (dot = rest.find('.')) != Name::npos; rest.remove_prefix(dot + 1))
        parts_.push_back(rest.substr(0, dot));
    parts_.push_back(rest);
    taken_.assign(parts_.size(), false);
    taken_[0] = true;
}

bool Builder::take(Name modifier) {
    for (size_t i = 1; i < parts_.size(); ++i)
        if (!taken_[i] && parts_[i] == modifier) return taken_[i] = true;
    return false;
}

Name Builder::take_any(std::initializer_list<Name> modifiers) {
    for (const Name m : modifiers)
        if (take(m)) return m;
    return {};
}

Name Builder::take_next() {
    for (size_t i = 1; i < parts_.size(); ++i)
        if (!taken_[i]) return taken_[i] = true, parts_[i];
    return {};
}

bool Builder::take_prefix(Name prefix) {
    for (size_t i = 1; i < parts_.size(); ++i)
        if (!taken_[i] && parts_[i].starts_with(prefix)) return taken_[i] = true;
    return false;
}

Type Builder::type() {
    for (size_t i = 1; i < parts_.size(); ++i) {
        if (taken_[i]) continue;
        if (const Type t = type_of(parts_[i]); t != Type::none) {
            taken_[i] = true;
            return t;
        }
    }
    return Type::none;
}

Type Builder::need_type() {
    const Type t = type();
    if (t == Type::none) unsupported("no type that is known");
    return t;
}

uint16_t Builder::rounding() {
    uint16_t flags = 0;
    if (take("rz") || take("rzi"))
        flags = 1;
    else if (take("rm") || take("rmi"))
        flags = 2;
    else if (take("rp") || take("rpi"))
        flags = 3;
    else if (!take("rn"))
        take("rni");
    if (take("ftz")) flags |= kFtz;
    if (take("sat")) flags |= kSaturate;
    return flags;
}

void Builder::done() {
    for (size_t i = 1; i < parts_.size(); ++i)
        if (!taken_[i]) unsupported(concat("modifier .", parts_[i]));
}

uint32_t Builder::add_form(AsyncForm form) {
    code_.forms.push_back(std::make_shared<const AsyncForm>(std::move(form)));
    return static_cast<uint32_t>(code_.forms.size() - 1);
}

uint32_t Builder::add_list(std::span<const Ref> refs) {
    const auto first = static_cast<uint32_t>(code_.refs.size());
    code_.refs.insert(code_.refs.end(), refs.begin(), refs.end());
    return first;
}

Inst& Builder::emit(Run run, Class klass) {
    Inst& i = code_.insts.emplace_back();
    i.run = run, i.klass = klass;
    if (inst_ != nullptr && !inst_->guard.empty()) {
        const Symbol& s = symbol(inst_->guard);
        if (s.kind != Symbol::reg || s.type != Type::pred) unsupported("a guard that is no predicate");
        i.guard = s.ref, i.guard_negated = inst_->guard_negated;
    }
    code_.positions.push_back(inst_ != nullptr ? inst_->at : ptx::Position{f_.line, 0, 0});
    return i;
}

void Builder::branch_to(Name label) { branches_.emplace_back(static_cast<uint32_t>(code_.insts.size() - 1), label); }

uint32_t Builder::labels_list(Name table, uint32_t& count) {
    const auto it = f_.targets.find(table);
    if (it == f_.targets.end()) unsupported("no such .branchtargets");
    const auto first = static_cast<uint32_t>(tables_.size());
    for (const Name label : it->second) tables_.push_back(label);
    count = static_cast<uint32_t>(it->second.size());
    return first;
}

void Builder::declare(const ptx::Variable& v) {
    const Type t = v.type.empty() ? Type::none : type_of(v.type.substr(1));
    Symbol s;
    s.type = t, s.bytes = bytes_of(t);
    if (v.space == ".reg") {
        if (t == Type::none || t == Type::b8 || t == Type::b128) unsupported(concat("registers of type ", v.type));
        if (v.count > (1u << 20)) unsupported("too many registers");
        const uint32_t n = v.count ? v.count : 1;
        for (uint32_t k = 0; k < n; ++k) {
            s.ref = t == Type::pred ? allocate(4) : scratch(s.bytes);
            Name name = v.name;
            if (v.count) name = code_.names.emplace_back(std::string(v.name) + std::to_string(k));
            scope_[name] = s;
        }
        return;
    }
    if (v.space == ".param") {
        s.kind = Symbol::call_parameter;
        s.bytes = static_cast<uint32_t>((v.bytes + 3) / 4 * 4);
        s.ref = allocate(s.bytes * kLanesInSlot);
        scope_[v.name] = s;
        return;
    }
    // .shared and .local were laid out for the whole module (see program.cpp)
    if (find(v.name) == nullptr) unsupported(concat("a variable in ", v.space));
}

void Builder::declare_parameters() {
    auto words = [&](const std::vector<ptx::Variable>& list, std::vector<Ref>& to) {
        for (const ptx::Variable& v : list) {
            if (v.space == ".reg") {
                declare(v);
                to.push_back(scope_.at(v.name).ref);
                continue;
            }
            declare(v);
            const auto own = scope_.find(v.name);
            if (own == scope_.end()) unsupported(concat("a parameter in ", v.space));
            const Symbol& s = own->second;
            for (uint32_t b = 0; b < s.bytes; b += 4) to.push_back(s.ref + b * kLanesInSlot);
        }
    };
    if (!f_.entry) {
        words(f_.results, code_.results);
        words(f_.parameters, code_.parameters);
        return;
    }
    uint32_t offset = 0;
    for (const ptx::Variable& v : f_.parameters) {
        offset = (offset + v.alignment - 1) / v.alignment * v.alignment;
        Symbol s;
        s.kind = Symbol::parameter;
        s.address = offset;
        scope_[v.name] = s;
        code_.parameter_slots.emplace_back(offset, static_cast<uint32_t>(v.bytes));
        offset += static_cast<uint32_t>(v.bytes);
    }
    code_.parameter_bytes = offset;
}

void Builder::decode_one() {
    split_opcode();
    const Decode decode = find_decoder(opcode());
    if (decode == nullptr) unsupported("opcode");
    decode(*this);
    note_touches();
}

// Products of warpgroups keep their own account of what they use.
void Builder::note_touches() {
    if (!watched_) return;
    if (opcode() == "wgmma") touched_.clear();
    std::vector<uint32_t>& at = code_.touch_at;
    if (at.size() > code_.insts.size()) return;  // it became no Inst
    while (at.size() < code_.insts.size()) at.push_back(static_cast<uint32_t>(code_.touches.size()));
    code_.touches.insert(code_.touches.end(), touched_.begin(), touched_.end());
    at.push_back(static_cast<uint32_t>(code_.touches.size()));
    touched_.clear();
}

void Builder::run() {
    watched_ = std::ranges::any_of(f_.code, [](const ptx::Instruction& i) { return i.opcode.starts_with("wgmma"); });
    std::vector<bool> labelled(f_.code.size() + 1);
    for (const auto& [name, at] : f_.labels) labelled[at] = true;
    size_t declared = 0;
    for (uint32_t k = 0; k <= f_.code.size(); ++k) {
        for (; declared < f_.variables.size() && f_.variables[declared].before <= k; ++declared)
            declare(f_.variables[declared]);
        starts_.push_back(static_cast<uint32_t>(code_.insts.size()));
        inst_ = nullptr;
        if (labelled[k]) emit(kJoin, Class::control);
        if (k == f_.code.size()) break;
        inst_ = &f_.code[k];
        if (labelled[k]) code_.positions.back() = inst_->at;
        decode_one();
    }
    // falling off the end is a return
    inst_ = nullptr;
    parts_ = {"ret"};
    taken_ = {true};
    find_decoder("ret")(*this);
    note_touches();
    resolve_branches();
}

void Builder::resolve_branches() {
    auto target = [&](Name label) {
        const auto it = f_.labels.find(label);
        if (it == f_.labels.end()) throw Error(invalid_ptx, concat("label ", label, " is not in ", f_.name));
        return code_.insts.data() + starts_[it->second];
    };
    for (const auto& [inst, label] : branches_) code_.insts[inst].target = target(label);
    for (const Name label : tables_) code_.tables.push_back(target(label));
}

}  // namespace emu
