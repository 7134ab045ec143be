// Names that a block { } within a function declares: labels, variables, tables of targets. They are known in it alone,
// and may be declared again beside it, within it or around it (inline asm that is inlined twice does so), while the
// rest of the emulator knows one name to a function. So when a block ends, its names are changed to ones of their own.
#pragma once

#include "module.h"

namespace emu::ptx {

class Scopes {
  public:
    Scopes(Module& m, Function& f) : module_(m), function_(f) { open(); }

    void open();
    void close();
    bool label(Name name);  // in front of the instruction that follows; false: the block has it already
    std::vector<Name>& targets(Name table);
    Prototype& prototype(Name name);

  private:
    struct Block {
        size_t operands, elements, code, variables;  // how many there were in front of it
        std::unordered_map<Name, uint32_t> labels;
        std::unordered_map<Name, std::vector<Name>> targets;
        std::unordered_map<Name, Prototype> prototypes;
        std::vector<Name> inner;  // tables of blocks within, which may name labels of this one
    };
    class Renaming;

    Module& module_;
    Function& function_;
    std::vector<Block> blocks_;
    uint32_t number_ = 0;
};

}  // namespace emu::ptx
