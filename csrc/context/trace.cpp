#include "context/trace.h"

#include <chrono>
#include <utility>

#include "context/context.h"

namespace nk::trace {

namespace {

int64_t now() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

}  // namespace

std::shared_ptr<Launch> record(Launch launch) {
    Log* log = context::settings().log;
    if (log == nullptr) return nullptr;
    return log->launches.emplace_back(std::make_shared<Launch>(std::move(launch)));
}

std::shared_ptr<Launch> last() {
    const Log* log = context::settings().log;
    return log == nullptr || log->launches.empty() ? nullptr : log->launches.back();
}

Timed::Timed(std::shared_ptr<Launch> launch) {
    if (launch == nullptr || !times()) return;
    launch_ = std::move(launch);
    start_ = now();
}

Timed::~Timed() {
    if (launch_ == nullptr) return;
    const double seconds = static_cast<double>(now() - start_) * 1e-9;
    launch_->seconds = launch_->seconds < 0 ? seconds : launch_->seconds + seconds;
}

}  // namespace nk::trace
