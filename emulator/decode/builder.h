// What the decoders of the opcode families use: modifiers, operands, and the instruction that they fill in.
#pragma once

#include <map>
#include <span>
#include <string>
#include <unordered_map>

#include "../error.h"
#include "code.h"
#include "forms.h"
#include "types.h"

namespace emu {

using ptx::Name;
using ptx::Operand;

// What a name in a function means.
struct Symbol {
    enum Kind : uint8_t {
        reg,
        shared,
        local,
        stacked,  // local, in a recursive function
        global,
        constant,
        parameter,
        call_parameter,
        function
    } kind = reg;
    Type type = Type::none;
    uint32_t bytes = 0;    // of a register
    Ref ref = kNoRef;      // of a register or call parameter
    uint64_t address = 0;  // of a variable within its space; of a global, in the host's memory; of a function
    const Code* function_code = nullptr;
};

using Scope = std::unordered_map<Name, Symbol>;

class Builder {
  public:
    Builder(Code& code, const Scope& globals, Scope own)
        : code_(code), f_(*code.source), globals_(globals), scope_(std::move(own)) {}

    void declare_parameters();  // of every function before any is decoded: calls refer to them
    void run();

    // ---- the instruction at hand ----
    [[noreturn]] void unsupported(const std::string& why) const;
    Name opcode() const { return parts_[0]; }
    Name full_opcode() const { return inst_->opcode; }
    bool take(Name modifier);  // whether the opcode has it; each must be taken once
    Name take_any(std::initializer_list<Name> modifiers);
    Name take_next();               // the first that nobody took; empty: there is none
    bool take_prefix(Name prefix);  // any modifier that begins so
    Type type();                    // the next modifier that is a type, none if there is none
    Type need_type();
    uint16_t rounding();  // .rn .rz .rm .rp (and the integer ones), .ftz, .sat as Flags
    void done();          // throws if a modifier is left

    uint32_t operands() const { return inst_->count; }
    const Operand& operand(uint32_t n) const;
    std::span<const Operand> items(const Operand& o) const { return {f_.elements.data() + o.first, o.count}; }

    Ref destination(const Operand& o, Type t) { return destination(o, bytes_of(t)); }
    Ref destination(const Operand& o, uint32_t bytes);
    Ref source(const Operand& o, Type t);
    Ref predicate(const Operand& o);  // whether it is negated, the caller must ask
    Ref truth(const Operand& o);      // negated where it says so
    Ref predicate_result(Name name);
    const Symbol& symbol(Name name) const;
    const Symbol* find(Name name) const;
    uint32_t register_bytes(const Operand& o) const;  // 0: not a register
    Ref scratch(uint32_t bytes) { return allocate(bytes * kLanesInSlot); }
    Ref constant(uint64_t bits, uint32_t bytes);                              // the same in every lane
    void address(Inst& to, const Operand& o);                                 // sets a, imm and kWideAddress
    Ref carry() { return carry_ == kNoRef ? carry_ = allocate(4) : carry_; }  // the flag of add.cc and others
    void policy(uint32_t n);  // operand n, if there is one, is a cache policy, which changes nothing here
    AddressForm place(const Operand& o);
    uint32_t add_form(AsyncForm form);  // of Code::forms
    uint32_t add_list(std::span<const Ref> refs);
    Inst& emit(Run run, Class klass);
    Code& code() { return code_; }
    const ptx::Function& function() const { return f_; }
    void branch_to(Name label);  // the target of the Inst emitted last
    uint32_t labels_list(Name table, uint32_t& count);

  private:
    static constexpr uint32_t kLanesInSlot = 32;

    void declare(const ptx::Variable& v);
    Ref allocate(uint32_t bytes);
    Ref special(Name name, Type t);
    Ref variable(const Symbol& s, uint64_t offset, uint32_t bytes);  // its address
    void split_opcode();
    void decode_one();
    void resolve_branches();
    void note_touches();
    Ref touch(Ref r, bool writes) {
        if (watched_) touched_.push_back(r | (writes ? 1 : 0));
        return r;
    }
    uint64_t literal(const Operand& o, Type t) const;

    Code& code_;
    const ptx::Function& f_;
    const Scope& globals_;
    Scope scope_;
    std::map<std::pair<uint64_t, uint32_t>, Ref> constants_;
    const ptx::Instruction* inst_ = nullptr;
    std::vector<Name> parts_;
    std::vector<bool> taken_;
    std::vector<uint32_t> starts_;                     // Inst at which each PTX instruction begins
    std::vector<std::pair<uint32_t, Name>> branches_;  // Inst and label
    std::vector<Name> tables_;                         // labels of Code::tables
    Ref carry_ = kNoRef;
    bool watched_ = false;      // the function has wgmma
    std::vector<Ref> touched_;  // by the instruction at hand
};

// A decoder of one opcode; in ops/, listed in ops/table.cpp.
using Decode = void (*)(Builder&);
Decode find_decoder(Name opcode);

}  // namespace emu
