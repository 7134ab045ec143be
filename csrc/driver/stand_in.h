// Another driver in the place of CUDA's, for the contexts that are within emulate(): its table, its options, and what
// it counts of a launch.
#pragma once

#include <string>

#include "driver/table.h"

namespace nk::driver {

// Loads it, once: a library with the functions of CUDA's driver, and two of the names given: one sets an option,
// int(const char* name, int value), one takes the oldest launch off its record, int(char* name, int bytes,
// uint64_t* numbers, int most), and returns how many numbers there are, 0 without a launch: grid, block, shared bytes,
// counters. Throws RuntimeError when that can't be done.
void load_stand_in(const std::string& path, const std::string& set_option, const std::string& take_launch);

// Null before it is loaded.
const DriverTable* stand_in_table();

// Around a launch of the running context on the stand-in: sets the options of its block first, and puts on record last
// what the launch counted. Needs the interpreter lock for as long as it lives: options are the library's, not a
// launch's.
class EmulatedLaunch {
  public:
    EmulatedLaunch();
    ~EmulatedLaunch();
    EmulatedLaunch(const EmulatedLaunch&) = delete;
    EmulatedLaunch& operator=(const EmulatedLaunch&) = delete;

  private:
    bool counts_ = false;
};

}  // namespace nk::driver
