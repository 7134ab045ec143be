// Which bytes of global memory hold nothing yet: memory that was allocated or given up (its contents are no longer
// wanted), until something is written there.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <unordered_map>

namespace emu {

inline constexpr uint64_t kPageBytes = 4096;
using PageBits = std::array<uint64_t, kPageBytes / 64>;  // a bit for each byte

class Unwritten {
  public:
    void set(uint64_t begin, uint64_t bytes);
    void clear(uint64_t begin, uint64_t bytes);
    bool of_page(uint64_t page, PageBits& to) const;  // false: all of it is written
    void keep(uint64_t page, const PageBits& left);   // what is left of it behind a launch

  private:
    mutable std::mutex mutex_;
    std::unordered_map<uint64_t, PageBits> pages_;  // without a set bit: left out
};

Unwritten& unwritten();

}  // namespace emu
