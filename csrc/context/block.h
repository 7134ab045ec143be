// A `with` block that changes what holds within it, as bind.cpp opens it for Python.
#pragma once

#include <optional>

#include "context/context.h"

namespace nk::context {

struct Block {
    pybind11::object outer;  // the capsule of the block around it, or None
    std::optional<Backend> backend;
    bool strict = false;
    pybind11::object log_object;  // keeps `log`
    trace::Log* log = nullptr;
    std::optional<Options> emulator;
    bool open = true;
    Settings resolved;  // with those of the blocks around it
    unsigned resolved_at = 0;
};

// Opens it in the running context; a capsule, which `close` takes, once, from whatever context.
pybind11::object open(Block block);
void close(const pybind11::object& block);

// The innermost open block of the running context; null outside of blocks.
Block* running();

// The block around it; null: none.
Block* outer_of(const Block& block);

// Of the innermost open block, or of the process outside of blocks; returns the one that held before.
Backend set_backend(Backend backend);
void set_process_backend(Backend backend);

// The block that this thread has from now on where it is in none of its own (null: none); returns the one before.
PyObject* adopt(PyObject* block);

}  // namespace nk::context
