// Where a call runs, and what every launch has in common: the choice of the backend, the trace, the interpreter lock.
#pragma once

#include <pybind11/gil_simple.h>

#include <utility>

#include "call/call.h"
#include "context/context.h"
#include "driver/launch.h"

namespace nk {

// Work from which the interpreter lock is worth releasing.
inline constexpr double kReleaseAt = 10000.0;  // nanoseconds

// On the processor: `work` nanoseconds in all on one thread, roughly; kernel, a name or a function that makes it, and
// plan() are for the trace: nobody else pays for their text.
template <class Kernel, class Plan, class Body>
void run_on_cpu(const char* op, Kernel&& kernel, double work, Plan&& plan, Body&& body) {
    const auto run = [&] {
        if (work <= kReleaseAt) return body();
        py::gil_scoped_release_simple released;
        body();
    };
    if (!trace::active()) return run();
    std::string name;
    if constexpr (std::is_invocable_v<Kernel>)
        name = kernel();
    else
        name = kernel;
    const trace::Timed timed(trace::record({op, "cpu", std::move(name), plan(), ""}));
    run();
}

// Calls triton.<entry>(*outputs, *arguments), which launches on checked tensors into outputs that are there.
void run_on_triton(const Call& call, PyObject* const* outputs, int count);

// Throws where a backend was asked for by name whose devices `device` is none of.
void check_chosen(const Call& call, Device device);

// Whether this library's kernels for the processor will run on tensors of that device.
inline bool runs_on_processor(Device device) {
    return context::settings().backend != Backend::triton && !driver::launches_on(device);
}

// Runs a call whose arguments are checked and whose outputs are made. `outputs`: objects that Triton's function is
// given first, None for one that is not wanted.
template <class Cpu, class Cuda>
void run(const Call& call, Device device, std::initializer_list<PyObject*> outputs, Cpu&& cpu, Cuda&& cuda) {
    const Backend chosen = context::settings().backend;
    if (chosen != Backend::automatic) {
        check_chosen(call, device);
        if (chosen == Backend::triton) return run_on_triton(call, outputs.begin(), static_cast<int>(outputs.size()));
    }
    if (driver::launches_on(device)) {
        driver::check_device(call.op, device);
        const driver::Titled titled(call.op);
        return std::forward<Cuda>(cuda)();
    }
    std::forward<Cpu>(cpu)();
}

}  // namespace nk
