// The record of launches that neurokern.trace() shows. Call with the GIL held, before it is released for the kernel.
#pragma once

#include <string>
#include <vector>

namespace nk::trace {

struct Launch {
    std::string op, backend, kernel, plan, reason;
};

extern bool enabled;  // set through _C.trace_start and _C.trace_take

inline bool active() { return enabled; }
void record(Launch launch);
std::vector<Launch> take();

}  // namespace nk::trace
