#include "call/trace.h"

#include <utility>

namespace nk::trace {

bool enabled = false;

namespace {
std::vector<Launch>& log() {
    static std::vector<Launch> launches;
    return launches;
}
}  // namespace

void record(Launch launch) {
    if (enabled) log().push_back(std::move(launch));
}

std::vector<Launch> take() { return std::exchange(log(), {}); }

}  // namespace nk::trace
