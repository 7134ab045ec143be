// Memory that kernels allocate themselves, by malloc. As on a device it outlives the launch.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <shared_mutex>
#include <string>

namespace emu {

class Heap {
  public:
    uint64_t allocate(uint64_t bytes);  // 0: there is no room
    bool release(uint64_t address);     // false: nothing was allocated there
    bool holds(uint64_t address, uint64_t bytes) const;
    std::string describe(uint64_t address) const;  // how it lies to what was allocated; empty: far from that

  private:
    struct Block {
        std::unique_ptr<char[]> data;
        uint64_t bytes = 0;
    };

    mutable std::shared_mutex mutex_;
    std::map<uint64_t, Block> blocks_;
    std::map<uint64_t, uint64_t> freed_;  // begin -> bytes, until they are given out again
    uint64_t used_ = 0;
};

Heap& heap();

}  // namespace emu
