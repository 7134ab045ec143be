#include "device.h"

#include <cstdlib>
#include <cstring>
#include <deque>
#include <mutex>
#include <string>

#include "api.h"

namespace emu {

namespace {

struct Attribute {
    int number, value;
};

// An A100 of 40 GB: the kernels' PTX is compute_80.
Attribute attributes[] = {
    {1, 1024},  {2, 1024},  {3, 1024}, {4, 64},      {5, 0x7fffffff}, {6, 65535},   {7, 65535},
    {8, 49152}, {9, 65536}, {10, 32},  {12, 65536},  {13, 1410000},   {16, 108},    {38, 40 << 20},
    {39, 2048}, {75, 8},    {76, 0},   {81, 167936}, {82, 65536},     {97, 166912}, {106, 32},
};

std::mutex mutex;
Options current;
uint64_t launches = 0;

struct Row {
    std::string kernel;
    uint32_t grid[3], block[3], shared;
    Counters counters;
};
std::deque<Row> rows;
bool keeps_rows = false;

}  // namespace

bool device_attribute(int attribute, int& value) {
    for (const Attribute& a : attributes)
        if (a.number == attribute) return value = a.value, true;
    return false;
}

Options options() {
    const std::lock_guard lock(mutex);
    return current;
}

void record(const Launch& l) {
    const std::lock_guard lock(mutex);
    ++launches;
    if (!keeps_rows) return;
    Row r{l.code->name, {}, {}, l.shared_bytes(), l.counters};
    std::memcpy(r.grid, l.grid, sizeof r.grid);
    std::memcpy(r.block, l.block, sizeof r.block);
    rows.push_back(std::move(r));
}

}  // namespace emu

using namespace emu;

// Sets "memory", "shared", "global", "count", "threads" or "record", or "attribute <number>" of the device. 0: done.
EMU_API int emuSetOption(const char* name, int value) {
    const std::lock_guard lock(mutex);
    const std::string n(name);
    if (n == "memory")
        current.check_memory = value;
    else if (n == "shared")
        current.check_shared = value;
    else if (n == "global")
        current.check_global = value;
    else if (n == "count")
        current.count = value;
    else if (n == "threads")
        current.threads = value;
    else if (n == "seconds")
        current.seconds = value;
    else if (n == "shuffle")
        current.shuffle = static_cast<uint64_t>(value);
    else if (n == "record")
        keeps_rows = value;
    else if (n.starts_with("attribute ")) {
        for (Attribute& a : attributes)
            if (a.number == std::atoi(n.c_str() + 10)) return a.value = value, 0;
        return 1;
    } else
        return 1;
    return 0;
}

// The oldest launch on record, taken off it: its kernel's name into `name`, and grid, block, shared bytes and the
// Counters in their order into `numbers`. How many numbers; 0: no launch left.
EMU_API int emuTakeLaunch(char* name, int name_bytes, uint64_t* numbers, int most) {
    const std::lock_guard lock(mutex);
    if (rows.empty()) return 0;
    const Row r = std::move(rows.front());
    rows.pop_front();
    std::strncpy(name, r.kernel.c_str(), static_cast<size_t>(name_bytes));
    name[name_bytes - 1] = 0;
    int n = 0;
    auto put = [&](uint64_t x) {
        if (n < most) numbers[n++] = x;
    };
    for (const uint32_t x : r.grid) put(x);
    for (const uint32_t x : r.block) put(x);
    put(r.shared);
    const auto* counters = reinterpret_cast<const uint64_t*>(&r.counters);
    for (size_t k = 0; k < sizeof(Counters) / sizeof(uint64_t); ++k) put(counters[k]);
    return n;
}
