// What holds for the calls of one context, as Python's contextvars have them (a thread, a task): the backend,
// strictness, the trace, the emulator. Python opens a block for each `with`; outside of blocks the process's settings
// hold, and a plain call asks no more than whether there is any block at all.
#pragma once

#include <pybind11/pytypes.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "context/trace.h"

namespace nk {

enum class Backend { automatic, cpu, cuda, triton };

namespace context {

using Options = std::vector<std::pair<std::string, int>>;  // of the emulator

struct Settings {
    Backend backend = Backend::automatic;
    bool strict = false;
    trace::Log* log = nullptr;          // of the innermost trace()
    const Options* emulator = nullptr;  // of the innermost emulate()

    // The backend "cuda" within emulate(): kernels work on the host's memory.
    bool emulates() const { return emulator != nullptr && backend == Backend::cuda; }
};

extern int open_blocks;   // in all contexts
extern Settings process;  // outside of blocks

const Settings& of_running();

// Those of the running context. Needs the interpreter lock; they hold until a block is opened or closed.
inline const Settings& settings() { return open_blocks == 0 ? process : of_running(); }

// The block that the running context is in, for whoever goes on with its work elsewhere; None outside of blocks.
pybind11::object captured();

// Within the scope, a thread that is in no block of its own, as autograd's are, has the settings of `block`
// (from `captured`), if that is still open.
class Adopted {
  public:
    explicit Adopted(PyObject* block);
    ~Adopted();
    Adopted(const Adopted&) = delete;
    Adopted& operator=(const Adopted&) = delete;

  private:
    PyObject* former_;
};

}  // namespace context

namespace trace {

// Whether the running context's launches are on record, and whether they are measured.
inline bool active() { return context::settings().log != nullptr; }
inline bool times() { return active() && context::settings().log->times; }

}  // namespace trace

}  // namespace nk
