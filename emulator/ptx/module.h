// What the parser makes of a PTX text. Names are views into the text, which the module keeps.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace emu::ptx {

using Name = std::string_view;

// Where an instruction stands: in the PTX, and (by .loc) in the source, whose file is an index of Module::files.
struct Position {
    uint32_t line = 0;
    uint32_t file = 0, source_line = 0;
};

struct Operand {
    enum Kind : uint8_t { none, symbol, integer, f32, f64, address, vector, list };
    Kind kind = none;
    bool negated = false;           // !p
    bool is_unsigned = false;       // of an integer within an expression
    Name name;                      // register, variable, function or label; of an address, its base (or empty)
    Name second;                    // of p|q
    uint64_t bits = 0;              // of a number; of an address, the offset
    uint32_t first = 0, count = 0;  // of a vector or list: its elements in Function::elements
};

struct Instruction {
    Name opcode;  // with all its suffixes
    Name guard;
    bool guard_negated = false;
    uint32_t first = 0, count = 0;  // operands in Function::operands
    Position at;
};

// An initial value that is an address: of a variable, in its space or generic, or of a function. 0xff00(name) are the
// bits under a mask.
struct Reference {
    size_t element = 0;
    Name name;
    uint64_t offset = 0, mask = ~uint64_t{0};
    bool generic = false;
};

// A .reg, .shared, .local, .global, .const or .param variable. `count` > 0: name<count>.
struct Variable {
    Name space, type, name;
    uint32_t alignment = 0;
    uint32_t count = 0;
    std::vector<uint64_t> extents;  // of an array; of a vector the last
    uint64_t bytes = 0;             // 0: [] whose size the launch decides
    uint32_t vector = 1;
    bool external = false;
    std::vector<uint64_t> values;  // initial, element by element
    std::vector<Reference> references;
    uint32_t element_bytes = 0;
    uint32_t line = 0;
    uint32_t before = 0;  // within a function: the instruction in front of which it is declared
};

// Of the functions that a call by address may reach.
struct Prototype {
    std::vector<Variable> results, parameters;
};

struct Function {
    Name name;
    bool entry = false, has_body = false;
    std::vector<Variable> results, parameters, variables;
    std::vector<Instruction> code;
    std::vector<Operand> operands, elements;
    std::unordered_map<Name, uint32_t> labels;            // to the instruction that follows
    std::unordered_map<Name, std::vector<Name>> targets;  // .branchtargets, .calltargets
    std::unordered_map<Name, Prototype> prototypes;
    uint32_t max_threads = 0;
    uint32_t cluster[3] = {};  // .reqnctapercluster; 0: the launch says
    bool explicit_cluster = false, blocks_are_clusters = false;
    uint32_t max_cluster_rank = 0;
    uint32_t line = 0;
};

struct Module {
    std::string text;
    Name target;
    std::vector<std::string> files;          // by the number in .file
    std::deque<std::string> names;           // that are not in the text
    std::unordered_map<Name, Name> aliases;  // of functions
    std::vector<Variable> variables;
    std::vector<std::unique_ptr<Function>> functions;

    void resolve_aliases();            // to what they stand for
    Name line(uint32_t number) const;  // the text of a line, trimmed
    std::string source(const Position& at) const;
};

uint32_t size_of_type(Name type);  // in bytes; 0 for .pred or no type at all

// Throws Error with line and text for what is no PTX.
std::unique_ptr<Module> parse(std::string text);

}  // namespace emu::ptx
