// The decoded form: one Inst for each instruction, with a function that runs it on all lanes of a warp.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "../ptx/module.h"

namespace emu {

struct Warp;
struct Inst;
using Run = void (*)(Warp&, const Inst&);

// Where an operand lies: a byte offset that is a multiple of 4, with the number of its base in the lower two bits.
// A register of b bytes is an array of 32 numbers of b bytes; a predicate is one word, a bit for each lane.
using Ref = uint32_t;
enum Base : uint32_t { in_registers = 0, in_constants = 1, in_specials = 2 };
inline constexpr Ref kNoRef = ~0u;

// What an instruction counts as (see Counters).
enum class Class : uint8_t {
    integer,
    floating,
    convert,
    move,
    memory,
    async,
    shuffle,
    matrix,
    barrier,
    control,
    count
};
inline constexpr const char* kClassNames[] = {"integer", "floating", "convert", "move",    "memory",
                                              "async",   "shuffle",  "matrix",  "barrier", "control"};

enum class Space : uint8_t { generic, global, shared, local, param, constant, cluster };

enum Flags : uint16_t {
    kRoundMask = 3,  // 0 to nearest even, 1 to zero, 2 down, 3 up
    kFtz = 4,
    kSaturate = 8,
    kWideAddress = 16,  // the address register has 64 bits
    kNegatedC = 64,     // of predicates that are operands
    kStore = 128,
    kAtomic = 256,
    kRelu = 512,  // negative numbers become 0
    // of accesses: strong (atomic, volatile, relaxed and stronger), and how far they order others
    kBlockScope = 0x1000,
    kReleases = 0x2000,
    kAcquires = 0x4000,
    kStrongAccess = 0x8000,
};

struct Inst {
    Run run = nullptr;
    Ref d = kNoRef, a = kNoRef, b = kNoRef, c = kNoRef;
    union {
        int64_t imm = 0;
        const Inst* target;
    };
    Ref guard = kNoRef;
    uint32_t list = 0;  // of Code::refs
    uint32_t extra = 0;
    uint16_t flags = 0;
    Class klass = Class::integer;
    Space space = Space::generic;
    bool guard_negated = false;
    uint8_t bytes = 0;  // of one access, all elements together
    uint8_t count = 0;  // elements of a vector
    uint8_t unused = 0;
};

struct Code;
struct AsyncForm;

// A call: which Refs of the caller are parameters and results, word by word.
struct Call {
    const Code* callee = nullptr;  // null: by address
    std::vector<Ref> in, out;
};

// A register of a recursive function that holds the address of a local variable in each of its calls.
struct LocalAddress {
    Ref slot = kNoRef;
    uint32_t bytes = 0;   // of the register
    uint64_t offset = 0;  // within the call's part of the stack
};
inline constexpr uint32_t kStackBytes = 512 * 1024;  // of a thread, for calls of recursive functions

// A function, ready to run.
struct Code {
    const ptx::Function* source = nullptr;
    const ptx::Module* module = nullptr;
    std::string name;
    std::vector<Inst> insts;
    std::vector<ptx::Position> positions;  // of each Inst
    std::vector<Ref> refs;
    std::vector<char> constants;
    std::vector<Call> calls;
    std::vector<std::shared_ptr<const AsyncForm>> forms;
    std::vector<const Inst*> tables;       // targets of brx.idx
    std::deque<std::string> names;         // of registers declared by number
    std::vector<Ref> results, parameters;  // of a device function: its first words
    // Of functions with wgmma: the registers that each Inst uses, from touch_at[n] on; bit 0: writes them.
    std::vector<uint32_t> touch_at;
    std::vector<Ref> touches;
    uint32_t register_bytes = 0;
    uint32_t number = 0;        // within the program
    bool recursive = false;     // may call itself, by way of others or not
    bool any_wgmma = false;     // in it or in what it calls
    bool any_reserved = false;  // the same of shared memory that the system keeps
    uint32_t stack_bytes = 0;   // of a recursive function: what a call takes of the thread's stack
    std::vector<LocalAddress> locals;
    uint32_t parameter_bytes = 0;  // of an entry
    uint32_t static_shared = 0;    // of an entry: bytes in front of the dynamic shared memory
    std::vector<std::pair<uint32_t, uint32_t>> parameter_slots;  // of an entry: offset and bytes of each

    const ptx::Position& position(const Inst* i) const { return positions[static_cast<size_t>(i - insts.data())]; }
};

struct GlobalMemory {
    char* data = nullptr;
    uint64_t bytes = 0;
};

struct Program {
    std::unique_ptr<ptx::Module> module;
    std::unordered_map<std::string, std::unique_ptr<Code>> functions;
    std::unordered_map<std::string, GlobalMemory> globals;
    std::vector<std::unique_ptr<char[]>> memory;  // of the globals
    std::vector<char> constant_bank;
    uint32_t local_bytes = 0;             // of one thread, in front of its stack
    uint32_t stack_bytes = 0;             // of one thread; 0: no recursive function has local variables
    std::vector<const Code*> by_address;  // number k has the address kCodeWindow + k * kCodeStep
};

// Decodes every function of a PTX text. Throws Error for what is not supported, with the PTX line and the source line.
std::unique_ptr<Program> decode(std::string ptx);

}  // namespace emu
