// The global memory that a launch may touch: ranges of the host's memory that were allocated here or registered.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace emu {

struct Range {
    uint64_t begin = 0, end = 0;
};

// What was valid when a launch began: disjoint, sorted.
class Ranges {
  public:
    void assign(std::vector<Range> any);
    // The range that holds all of [begin, begin + bytes), or null.
    const Range* find(uint64_t begin, uint64_t bytes) const;
    const std::vector<Range>& list() const { return list_; }
    std::string describe(uint64_t address) const;  // how an address lies to the nearest range

  private:
    std::vector<Range> list_;
};

class MemoryMap {
  public:
    void add(const void* data, uint64_t bytes);
    bool remove(const void* data);                   // the latest of this address
    void discard(const void* data, uint64_t bytes);  // what is there is no longer wanted, where no other range lies
    void* allocate(uint64_t bytes);
    bool release(void* data);
    Ranges snapshot(std::vector<Range> more) const;  // with a module's own variables

  private:
    mutable std::mutex mutex_;
    std::multimap<uint64_t, uint64_t> ranges_;  // begin -> bytes
    std::map<uint64_t, std::vector<char>> owned_;
};

MemoryMap& memory();

}  // namespace emu
