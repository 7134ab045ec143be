// The record of launches that neurokern.trace() shows. Call with the interpreter lock held, before the kernel runs.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace nk::trace {

struct Launch {
    std::string op, backend, kernel, plan, reason;
    double seconds = -1;                  // below zero: not measured
    std::vector<uint64_t> counters = {};  // what the emulator counted
};

// The launches of one `trace()` block that nobody has taken yet.
struct Log {
    bool times = false;  // whether launches are measured
    std::vector<std::shared_ptr<Launch>> launches;
};

// Null where they are not on record.
std::shared_ptr<Launch> record(Launch launch);

// The last of this context's launches on record; null where there is none.
std::shared_ptr<Launch> last();

// Measures a launch on record (or null) from here to the end of the scope, where the block wants times.
class Timed {
  public:
    explicit Timed(std::shared_ptr<Launch> launch);
    ~Timed();
    Timed(const Timed&) = delete;
    Timed& operator=(const Timed&) = delete;

  private:
    std::shared_ptr<Launch> launch_;
    int64_t start_ = 0;  // nanoseconds
};

}  // namespace nk::trace
