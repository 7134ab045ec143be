#include "context/context.h"

#include <pybind11/cast.h>

#include "context/block.h"

namespace nk::context {

namespace py = pybind11;

int open_blocks = 0;
Settings process;

namespace {

constexpr const char* kCapsule = "neurokern.block";

unsigned changes = 1;                      // of any setting: what blocks have resolved is compared with it
thread_local PyObject* adopted = nullptr;  // borrowed

PyObject* variable() {
    static PyObject* const made = PyContextVar_New("neurokern", nullptr);
    if (made == nullptr) throw py::error_already_set();
    return made;
}

Block* block_of(PyObject* o) {
    if (o == nullptr || o == Py_None) return nullptr;
    auto* b = static_cast<Block*>(PyCapsule_GetPointer(o, kCapsule));
    if (b == nullptr) throw py::error_already_set();
    return b;
}

// The nearest one around `o`, itself included, that is open; null if there is none. Borrowed, as `o` is.
PyObject* nearest_open(PyObject* o) {
    for (Block* b = block_of(o); b != nullptr && !b->open; b = block_of(o)) o = b->outer.ptr();
    return o == Py_None ? nullptr : o;
}

// Borrowed: the context, or who adopted it, keeps it.
PyObject* running_block() {
    PyObject* value = nullptr;
    if (PyContextVar_Get(variable(), nullptr, &value) < 0) throw py::error_already_set();
    PyObject* own = nearest_open(value);
    Py_XDECREF(value);
    return own != nullptr ? own : nearest_open(adopted);
}

const Settings& resolved(PyObject* o) {
    if (o == nullptr) return process;
    Block& b = *block_of(o);
    if (b.resolved_at == changes) return b.resolved;
    Settings s = resolved(nearest_open(b.outer.ptr()));
    if (b.backend) s.backend = *b.backend;
    if (b.emulator) s.emulator = &*b.emulator;
    if (b.log != nullptr) s.log = b.log;
    s.strict = s.strict || b.strict;
    b.resolved_at = changes;
    return b.resolved = s;
}

void enter(const py::object& block) {
    PyObject* token = PyContextVar_Set(variable(), block.ptr());
    if (token == nullptr) throw py::error_already_set();
    Py_DECREF(token);
}

py::object borrowed(PyObject* o) { return o == nullptr ? py::none() : py::reinterpret_borrow<py::object>(o); }

}  // namespace

const Settings& of_running() { return resolved(running_block()); }

py::object captured() { return open_blocks == 0 ? py::none() : borrowed(running_block()); }

Adopted::Adopted(PyObject* block) : former_(std::exchange(adopted, block)) {}

Adopted::~Adopted() { adopted = former_; }

py::object open(Block block) {
    block.outer = captured();
    auto* made = new Block(std::move(block));
    py::object capsule = py::capsule(made, kCapsule, [](PyObject* o) {
        auto* b = static_cast<Block*>(PyCapsule_GetPointer(o, kCapsule));
        if (b->open) --open_blocks;  // nobody is left to close it
        delete b;
    });
    ++open_blocks, ++changes;
    enter(capsule);
    return capsule;
}

void close(const py::object& block) {
    Block* b = block_of(block.ptr());
    if (b == nullptr || !b->open) return;
    b->open = false;
    --open_blocks, ++changes;
    PyObject* value = nullptr;
    if (PyContextVar_Get(variable(), nullptr, &value) < 0) throw py::error_already_set();
    const py::object kept = py::reinterpret_steal<py::object>(value);
    enter(borrowed(nearest_open(value)));
}

Block* running() { return open_blocks == 0 ? nullptr : block_of(running_block()); }

Block* outer_of(const Block& block) { return block_of(block.outer.ptr()); }

void set_process_backend(Backend backend) {
    process.backend = backend;
    ++changes;
}

Backend set_backend(Backend backend) {
    const Backend before = settings().backend;
    if (Block* b = running())
        b->backend = backend, ++changes;
    else
        set_process_backend(backend);
    return before;
}

PyObject* adopt(PyObject* block) { return std::exchange(adopted, block); }

}  // namespace nk::context
