#include "builder.h"

#include <algorithm>
#include <cstring>

#include "../exec/warp.h"
#include "../memory/spaces.h"

namespace emu {

namespace {

constexpr std::pair<Name, Type> kTypes[] = {
    {"pred", Type::pred}, {"b8", Type::b8},   {"b16", Type::b16}, {"b32", Type::b32},     {"b64", Type::b64},
    {"b128", Type::b128}, {"u8", Type::u8},   {"u16", Type::u16}, {"u32", Type::u32},     {"u64", Type::u64},
    {"s8", Type::s8},     {"s16", Type::s16}, {"s32", Type::s32}, {"s64", Type::s64},     {"f16", Type::f16},
    {"bf16", Type::bf16}, {"f32", Type::f32}, {"f64", Type::f64}, {"f16x2", Type::f16x2}, {"bf16x2", Type::bf16x2},
    {"tf32", Type::tf32}};

constexpr std::pair<Name, Special> kSpecials[] = {{"%tid.x", tid_x},
                                                  {"%tid.y", tid_y},
                                                  {"%tid.z", tid_z},
                                                  {"%ntid.x", ntid_x},
                                                  {"%ntid.y", ntid_y},
                                                  {"%ntid.z", ntid_z},
                                                  {"%ctaid.x", ctaid_x},
                                                  {"%ctaid.y", ctaid_y},
                                                  {"%ctaid.z", ctaid_z},
                                                  {"%nctaid.x", nctaid_x},
                                                  {"%nctaid.y", nctaid_y},
                                                  {"%nctaid.z", nctaid_z},
                                                  {"%laneid", laneid},
                                                  {"%warpid", warpid},
                                                  {"%nwarpid", nwarpid},
                                                  {"%smid", smid},
                                                  {"%nsmid", nsmid},
                                                  {"%gridid", gridid},
                                                  {"%lanemask_eq", lanemask_eq},
                                                  {"%lanemask_lt", lanemask_lt},
                                                  {"%lanemask_le", lanemask_le},
                                                  {"%lanemask_gt", lanemask_gt},
                                                  {"%lanemask_ge", lanemask_ge},
                                                  {"%dynamic_smem_size", dynamic_smem_size},
                                                  {"%total_smem_size", total_smem_size},
                                                  {"%aggr_smem_size", reserved_smem_end},
                                                  {"%reserved_smem_offset_begin", reserved_smem_begin},
                                                  {"%reserved_smem_offset_0", reserved_smem_begin},
                                                  {"%reserved_smem_offset_1", reserved_smem_1},
                                                  {"%reserved_smem_offset_end", reserved_smem_end},
                                                  {"%reserved_smem_offset_cap", reserved_smem_end},
                                                  {"%cluster_ctaid.x", cluster_ctaid_x},
                                                  {"%cluster_ctaid.y", cluster_ctaid_y},
                                                  {"%cluster_ctaid.z", cluster_ctaid_z},
                                                  {"%cluster_nctaid.x", cluster_nctaid_x},
                                                  {"%cluster_nctaid.y", cluster_nctaid_y},
                                                  {"%cluster_nctaid.z", cluster_nctaid_z},
                                                  {"%clusterid.x", clusterid_x},
                                                  {"%clusterid.y", clusterid_y},
                                                  {"%clusterid.z", clusterid_z},
                                                  {"%nclusterid.x", nclusterid_x},
                                                  {"%nclusterid.y", nclusterid_y},
                                                  {"%nclusterid.z", nclusterid_z},
                                                  {"%cluster_ctarank", cluster_ctarank},
                                                  {"%cluster_nctarank", cluster_nctarank}};

float to_float(double v) { return static_cast<float>(v); }

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

const Operand& Builder::operand(uint32_t n) const {
    if (n >= inst_->count) unsupported("too few operands");
    return f_.operands[inst_->first + n];
}

const Symbol* Builder::find(Name name) const {
    if (const auto it = scope_.find(name); it != scope_.end()) return &it->second;
    if (const auto it = globals_.find(name); it != globals_.end()) return &it->second;
    return nullptr;
}

const Symbol& Builder::symbol(Name name) const {
    if (const Symbol* s = find(name)) return *s;
    unsupported(concat("'", name, "' is not declared"));
}

uint32_t Builder::register_bytes(const Operand& o) const {
    if (o.kind != Operand::symbol) return 0;
    const Symbol* s = find(o.name);
    return s != nullptr && s->kind == Symbol::reg ? s->bytes : 0;
}

Ref Builder::allocate(uint32_t bytes) {
    const Ref r = code_.register_bytes;
    code_.register_bytes += (bytes + 63) / 64 * 64;
    if (code_.register_bytes > (1u << 28)) unsupported("too many registers");
    return r | in_registers;
}

Ref Builder::destination(const Operand& o, uint32_t bytes) {
    if (o.kind != Operand::symbol) unsupported("a result that is no register");
    if (o.name == "_") return scratch(bytes);
    const Symbol& s = symbol(o.name);
    if (s.kind != Symbol::reg || s.type == Type::pred || s.bytes != bytes)
        unsupported(concat("'", o.name, "' is no register of ", bytes, " bytes"));
    return touch(s.ref, true);
}

uint64_t Builder::literal(const Operand& o, Type t) const {
    double value = 0;
    switch (o.kind) {
        case Operand::integer:
            if (t == Type::f32 || t == Type::f64) {
                value = static_cast<double>(static_cast<int64_t>(o.bits));
                break;
            }
            return o.bits;
        case Operand::f32: {
            if (t != Type::f64) return o.bits;
            const auto bits = static_cast<uint32_t>(o.bits);
            float f;
            std::memcpy(&f, &bits, 4);
            value = f;
            break;
        }
        case Operand::f64:
            if (t == Type::b64) return o.bits;
            std::memcpy(&value, &o.bits, 8);
            break;
        default:
            unsupported("an operand that is no number");
    }
    uint64_t bits = 0;
    if (t == Type::f64) {
        std::memcpy(&bits, &value, 8);
    } else if (t == Type::f32 || t == Type::b32) {
        const float f = to_float(value);
        std::memcpy(&bits, &f, 4);
    } else {
        unsupported("a floating-point number for an integer");
    }
    return bits;
}

Ref Builder::constant(uint64_t bits, uint32_t bytes) {
    if (bytes < 8) bits &= (uint64_t{1} << (8 * bytes)) - 1;
    const auto [it, fresh] = constants_.try_emplace({bits, bytes}, 0);
    if (fresh) {
        it->second = static_cast<Ref>(code_.constants.size()) | in_constants;
        code_.constants.resize(code_.constants.size() + std::max(64u, bytes * kLanes));
        char* to = code_.constants.data() + (it->second & ~3u);
        for (int l = 0; l < kLanes; ++l) std::memcpy(to + static_cast<uint32_t>(l) * bytes, &bits, bytes);
    }
    return it->second;
}

Ref Builder::special(Name name, Type t) {
    for (const auto& [n, s] : kSpecials) {
        if (n != name) continue;
        if (bytes_of(t) != 4) unsupported("a special register as anything but 32 bits");
        code_.any_reserved |= s >= reserved_smem_begin && s <= reserved_smem_1;
        return static_cast<Ref>(s) * 128 | in_specials;
    }
    if (name == "WARP_SZ") return constant(32, bytes_of(t));
    // of the driver, of performance counters, of graphs: nothing is there
    for (const Name nothing : {"%envreg", "%pm", "%current_graph_exec"})
        if (name.starts_with(nothing)) return constant(0, bytes_of(t));
    return kNoRef;
}

Ref Builder::source(const Operand& o, Type t) {
    if (t == Type::pred) return truth(o);
    if (o.kind != Operand::symbol) return constant(literal(o, t), bytes_of(t));
    if (o.negated) unsupported("a negated operand");
    const Symbol* s = find(o.name);
    if (s == nullptr) {
        if (const Ref r = special(o.name, t); r != kNoRef) return r;
        symbol(o.name);
    }
    switch (s->kind) {
        case Symbol::reg:
            if (s->type == Type::pred || s->bytes != bytes_of(t))
                unsupported(concat("'", o.name, "' is no register of ", bytes_of(t), " bytes"));
            return touch(s->ref, false);
        case Symbol::function:
            if (bytes_of(t) == 8 && !s->function_code->source->entry) return constant(s->address + o.bits, 8);
            [[fallthrough]];
        case Symbol::call_parameter:
            unsupported(concat("the address of '", o.name, "'"));
        default:
            return variable(*s, o.bits, bytes_of(t));
    }
}

Ref Builder::variable(const Symbol& s, uint64_t offset, uint32_t bytes) {
    if (s.kind != Symbol::stacked) return constant(s.address + offset, bytes);
    if (bytes < 4) unsupported("an address in a register of 16 bits");
    const LocalAddress wanted{kNoRef, bytes, s.address + offset};
    for (const LocalAddress& a : code_.locals)
        if (a.bytes == wanted.bytes && a.offset == wanted.offset) return a.slot;
    code_.locals.push_back(wanted);
    return code_.locals.back().slot = scratch(bytes);
}

Ref Builder::predicate(const Operand& o) {
    if (o.kind == Operand::integer) return constant(o.bits ? kAll : 0, 4);  // one word, a bit for each lane
    if (o.kind != Operand::symbol) unsupported("an operand that is no predicate");
    if (o.name == "%is_explicit_cluster") return Ref{is_explicit_cluster} * 128 | in_specials;
    const Symbol& s = symbol(o.name);
    if (s.kind != Symbol::reg || s.type != Type::pred) unsupported(concat("'", o.name, "' is no predicate"));
    return s.ref;
}

Ref Builder::truth(const Operand& o) {
    const Ref p = predicate(o);
    if (!o.negated) return p;
    const Ref d = allocate(4);
    Inst& i = emit([](Warp& w, const Inst& i) { w.set_predicate(i.d, ~w.predicate(i.a)); }, Class::integer);
    i.d = d, i.a = p;
    return d;
}

Ref Builder::predicate_result(Name name) {
    if (name == "_") return allocate(4);
    const Symbol& s = symbol(name);
    if (s.kind != Symbol::reg || s.type != Type::pred) unsupported(concat("'", name, "' is no predicate"));
    return s.ref;
}

void Builder::address(Inst& to, const Operand& o) {
    if (o.kind != Operand::address) unsupported("an operand that is no address");
    if (o.count != 0) unsupported("coordinates");
    to.imm = static_cast<int64_t>(o.bits);
    to.flags |= kWideAddress;
    if (o.name.empty()) {
        to.a = constant(0, 8);
        return;
    }
    const Symbol& s = symbol(o.name);
    if (s.kind == Symbol::reg) {
        to.a = touch(s.ref, false);
        if (s.bytes == 4)
            to.flags &= static_cast<uint16_t>(~kWideAddress);
        else if (s.bytes != 8)
            unsupported("an address of neither 32 nor 64 bits");
    } else if (s.kind == Symbol::call_parameter || s.kind == Symbol::function) {
        unsupported(concat("the address of '", o.name, "'"));
    } else {
        to.a = variable(s, 0, 8);
    }
}

void Builder::policy(uint32_t n) {
    if (operands() <= n) return;
    if (full_opcode().find("L2::cache_hint") == Name::npos || operands() > n + 1) unsupported("number of operands");
    source(operand(n), Type::b64);
}

AddressForm Builder::place(const Operand& o) {
    Inst at;
    address(at, o);
    return {at.a, at.imm, (at.flags & kWideAddress) != 0};
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
