// What is known of each byte of global memory during a launch: whether it was ever written, and which warps touched it
// last. Blocks run on several threads: each page has a lock.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "../memory/buffer.h"
#include "../memory/map.h"
#include "order.h"
#include "unwritten.h"

namespace emu {

enum class Touch : uint8_t { read, write, update };

// What is wrong with an access.
struct Finding {
    const char* what = nullptr;  // null: nothing
    uint64_t address = 0;
    GlobalStamp other = 0;    // 0: nobody
    bool both_wrote = false;  // two stores of one block, and no more
};

class GlobalShadow {
  public:
    void begin(const Ranges& ranges, bool races);
    void end();  // says which bytes were written

    // An access of these bytes, all within one range, by a warp of a cluster. `strong` of a volatile or atomic access
    // (kStrong, kDeviceWide).
    Finding touch(const GlobalOrder& order, uint32_t warp, uint64_t address, uint64_t bytes, Touch kind,
                  GlobalStamp strong);

    Variables variables;

  private:
    struct Cell {
        GlobalStamp writer = 0;
        GlobalStamp reader = 0;  // the latest, the latest of another warp of its cluster, the latest of another cluster
        GlobalStamp beside = 0, elsewhere = 0;
    };
    struct Page {
        std::atomic_flag busy;
        uint32_t shift = 2;  // bytes of a cell, as a power of two: as fine as the accesses are
        Buffer cells;
        bool some_unwritten = false;
        uint64_t number = 0;
        PageBits unwritten;

        explicit Page(uint64_t number);
        void refine(uint32_t to);
    };
    struct Area {
        uint64_t begin = 0, end = 0;
        std::vector<std::atomic<Page*>> pages;
    };
    class Visit;

    Page& page(Area& a, uint64_t number);
    Area* area(uint64_t address);

    bool races_ = true;                         // are looked for
    std::vector<std::unique_ptr<Area>> areas_;  // by address
    std::mutex mutex_;
    std::vector<std::unique_ptr<Page>> pages_;
};

}  // namespace emu
