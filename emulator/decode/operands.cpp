// Operands as the rest of the decoder sees them: where a register, a literal, a special register or an address lies.
#include "builder.h"

#include <algorithm>
#include <cstring>

#include "../exec/warp.h"

namespace emu {

namespace {

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

}  // namespace emu
