// How many threads share a piece of work on the CPU. Pure functions.
//
// Where OpenMP's threads spin between regions, one starts within a microsecond or two; where they sleep, to wake one
// takes some ten, and longer on a busy machine.
#pragma once

#include <algorithm>
#include <cctype>
#include <string>
#include <string_view>

namespace nk::plan {

inline constexpr double kShareSpinning = 4000.0, kShareAsleep = 10000.0;  // nanoseconds that a thread's share lasts

// One for each such share of `work` nanoseconds, from two on; `most` at most.
inline int threads_for(double work, int most, bool spinning) {
    const double share = spinning ? kShareSpinning : kShareAsleep;
    return work < 2 * share ? 1 : static_cast<int>(std::min<double>(most, work / share));
}

// What libgomp makes of OMP_WAIT_POLICY and GOMP_SPINCOUNT (null where unset): its threads spin unless told otherwise.
inline bool spins(const char* policy, const char* count) {
    if (count != nullptr && *count != 0) return std::string_view(count) != "0";
    std::string lower;
    for (const char c : std::string_view(policy == nullptr ? "" : policy))
        if (std::isspace(static_cast<unsigned char>(c)) == 0)
            lower += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    return lower != "passive";
}

}  // namespace nk::plan
