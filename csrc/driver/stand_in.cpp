#include "driver/stand_in.h"

#include <dlfcn.h>

#include <algorithm>
#include <stdexcept>

#include "driver/host_memory.h"

namespace nk::driver {

namespace {

struct StandIn {
    DriverTable table;
    bool loaded = false;
    int (*set_option)(const char* name, int value) = nullptr;
    int (*take_launch)(char* name, int name_bytes, uint64_t* numbers, int most) = nullptr;
} stand_in;

constexpr int kGeometry = 7;  // numbers of a launch before its counters: grid, block, shared bytes

// To the last launch on record: kernels that finish its work have no row of their own.
void record_counters() {
    char name[2];
    uint64_t numbers[64];
    while (const int count = stand_in.take_launch(name, sizeof name, numbers, 64)) {
        const std::shared_ptr<trace::Launch> launch = trace::last();
        if (launch == nullptr) continue;
        launch->counters.resize(std::max<size_t>(launch->counters.size(), static_cast<size_t>(count - kGeometry)));
        for (int i = kGeometry; i < count; ++i) launch->counters[static_cast<size_t>(i - kGeometry)] += numbers[i];
    }
}

}  // namespace

void load_stand_in(const std::string& path, const std::string& set_option, const std::string& take_launch) {
    if (stand_in.loaded) return;
    void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) throw std::runtime_error(std::string("neurokern: ") + dlerror());
    const std::string missing = resolve(library, stand_in.table);
    if (!missing.empty()) throw std::runtime_error("neurokern: " + path + ": " + missing);
    stand_in.set_option = reinterpret_cast<decltype(stand_in.set_option)>(dlsym(library, set_option.c_str()));
    stand_in.take_launch = reinterpret_cast<decltype(stand_in.take_launch)>(dlsym(library, take_launch.c_str()));
    if (stand_in.set_option == nullptr || stand_in.take_launch == nullptr)
        throw std::runtime_error("neurokern: " + path + " has no " + set_option + " or no " + take_launch);
    listen_to_host_memory();
    stand_in.loaded = true;
}

const DriverTable* stand_in_table() { return stand_in.loaded ? &stand_in.table : nullptr; }

EmulatedLaunch::EmulatedLaunch() {
    if (!is_emulated()) return;
    for (const auto& [name, value] : *context::settings().emulator) stand_in.set_option(name.c_str(), value);
    counts_ = trace::active();
    if (counts_) stand_in.set_option("record", 1);
}

EmulatedLaunch::~EmulatedLaunch() {
    if (!counts_) return;
    record_counters();
    stand_in.set_option("record", 0);
}

}  // namespace nk::driver
