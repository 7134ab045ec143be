// Blocks and the trace as Python has them; see neurokern.backends.context.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <utility>

#include "bindings.h"
#include "context/block.h"

namespace py = pybind11;

namespace nk {

namespace {

constexpr const char* kBackends[] = {"auto", "cpu", "cuda", "triton"};

Backend backend_of(const std::string& name) {
    const auto* found = std::find(std::begin(kBackends), std::end(kBackends), name);
    if (found == std::end(kBackends)) throw std::invalid_argument("neurokern: there is no backend '" + name + "'");
    return static_cast<Backend>(found - kBackends);
}

py::object open_block(const std::optional<std::string>& backend, bool strict, const py::object& log,
                      std::optional<context::Options> emulator) {
    context::Block b;
    if (backend) b.backend = backend_of(*backend);
    b.strict = strict;
    b.log_object = log;
    b.log = log.is_none() ? nullptr : log.cast<trace::Log*>();
    b.emulator = std::move(emulator);
    return context::open(std::move(b));
}

py::list take(trace::Log& log) {
    py::list out;
    for (const auto& l : std::exchange(log.launches, {}))
        out.append(py::make_tuple(l->op, l->backend, l->kernel, l->plan, l->reason,
                                  l->seconds < 0 ? py::object(py::none()) : py::float_(l->seconds),
                                  l->counters.empty() ? py::object(py::none()) : py::cast(l->counters)));
    return out;
}

py::object adopt(py::object block) {
    thread_local PyObject* kept = nullptr;  // the context borrows it
    PyObject* const wanted = block.is_none() ? nullptr : block.release().ptr();
    PyObject* const former = context::adopt(wanted);
    const py::object given_back = former == nullptr ? py::none() : py::reinterpret_borrow<py::object>(former);
    Py_XDECREF(std::exchange(kept, wanted));
    return given_back;
}

}  // namespace

void register_context(py::handle module) {
    auto m = py::reinterpret_borrow<py::module_>(module);
    using py::arg;
    py::class_<trace::Log>(m, "TraceLog", "The launches of a block that nobody has taken yet.")
        .def(py::init([](bool times) {
                 trace::Log log;
                 log.times = times;
                 return log;
             }),
             arg("times") = false)
        .def("take", &take,
             "Take them as (op, backend, kernel, plan, reason, seconds or None, the emulator's counters or None).");
    m.def("open_block", &open_block, arg("backend") = py::none(), arg("strict") = false, arg("log") = py::none(),
          arg("emulator") = py::none(),
          "Change, in the running context, what is not None or False; returns the block for `close_block`.");
    m.def("close_block", &context::close, arg("block"), "End what `open_block` began, from whatever context.");
    m.def(
        "running_log",
        [] {
            for (context::Block* b = context::running(); b != nullptr;) {
                if (b->open && b->log != nullptr) return b->log_object;
                b = context::outer_of(*b);
            }
            return py::object(py::none());
        },
        "The TraceLog of the innermost trace() of the running context, or None.");
    m.def("in_block", [] { return context::running() != nullptr; }, "Whether the running context is in a block.");
    m.def(
        "emulates", [] { return context::settings().emulates(); },
        "Whether the running context is within emulate(): CUDA kernels run on CPU tensors.");
    m.def("is_strict", [] { return context::settings().strict; }, "Whether strict() holds in the running context.");
    m.def(
        "backend", [] { return kBackends[static_cast<int>(context::settings().backend)]; },
        "The name of the backend that holds in the running context.");
    m.def(
        "set_backend",
        [](const std::string& name) { return kBackends[static_cast<int>(context::set_backend(backend_of(name)))]; },
        arg("name"),
        "Run on this backend alone until the end of the innermost block, or in the whole process outside of blocks; "
        "\"auto\": on the one of the tensors' device. Returns the one before, of the same block or process.");
    m.def(
        "set_process_backend", [](const std::string& name) { context::set_process_backend(backend_of(name)); },
        arg("name"), "Run on this backend alone outside of blocks.");
    m.def(
        "process_backend", [] { return kBackends[static_cast<int>(context::process.backend)]; },
        "The name of the backend that holds outside of blocks.");
    m.def("captured_block", &context::captured, "The innermost block of the running context, for `adopt_block`.");
    m.def("adopt_block", &adopt, arg("block"),
          "What a thread in no block of its own has for one from now on, or None; returns the one before.");
    m.def(
        "trace_record",
        [](std::string op, std::string backend, std::string kernel, std::string plan, std::string reason,
           double seconds) {
            trace::record(
                {std::move(op), std::move(backend), std::move(kernel), std::move(plan), std::move(reason), seconds});
        },
        arg("op"), arg("backend"), arg("kernel"), arg("plan") = "", arg("reason") = "", arg("seconds") = -1.0,
        "Put a launch that this module did not make on the running context's record; seconds below zero: not "
        "measured.");
    m.def(
        "trace_took",
        [](double seconds) {
            if (const std::shared_ptr<trace::Launch> launch = trace::last()) launch->seconds = seconds;
        },
        arg("seconds"), "How long the last launch on the running context's record took.");
    m.def("trace_times", &trace::times, "Whether launches of the running context are to be measured.");
}

}  // namespace nk
