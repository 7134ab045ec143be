#include "driver/table.h"

#include <dlfcn.h>

#include <atomic>
#include <mutex>
#include <stdexcept>

#include "driver/host_memory.h"

namespace nk::driver {

namespace {

std::mutex table_mutex;
DriverTable own;  // of the machine
bool tried = false;
std::string reason;
std::atomic<const DriverTable*> current{nullptr};
std::atomic<unsigned> replacements{0};

// Fills the table from a library; says what is missing, or nothing.
std::string resolve(void* library, DriverTable& to) {
    std::string missing;
#define NK_RESOLVE(name, arguments)                                       \
    to.name = reinterpret_cast<decltype(to.name)>(dlsym(library, #name)); \
    if (to.name == nullptr && missing.empty()) missing = "the CUDA driver has no function " #name;
    NK_DRIVER_FUNCTIONS(NK_RESOLVE)
#undef NK_RESOLVE
#define NK_RESOLVE(name, arguments) to.name = reinterpret_cast<decltype(to.name)>(dlsym(library, #name));
    NK_DRIVER_OPTIONAL(NK_RESOLVE)
#undef NK_RESOLVE
    if (!missing.empty()) return missing;
    if (const Result r = to.cuInit(0); r != 0) {
        const char *name = nullptr, *text = nullptr;
        to.cuGetErrorName(r, &name), to.cuGetErrorString(r, &text);
        return std::string("the CUDA driver does not start: ") + (name ? name : "unknown error") +
               (text ? std::string(" (") + text + ")" : "");
    }
    return "";
}

const DriverTable* load_own() {
    if (tried) return reason.empty() ? &own : nullptr;
    tried = true;
    void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
        reason = "no CUDA driver (libcuda.so.1 is not on this machine)";
        return nullptr;
    }
    reason = resolve(library, own);
    return reason.empty() ? &own : nullptr;
}

// Puts another table in force; null: the machine's own again.
void install(const DriverTable* t) {
    current.store(t, std::memory_order_release);
    listen_to_host_memory(t != nullptr);
}

}  // namespace

const DriverTable* table() {
    if (const DriverTable* t = current.load(std::memory_order_acquire)) return t;
    const std::lock_guard lock(table_mutex);
    const DriverTable* t = load_own();
    if (t != nullptr) current.store(t, std::memory_order_release);
    return t;
}

const std::string& why_not() { return reason; }

void replace_table(const DriverTable* t) {
    const std::lock_guard lock(table_mutex);
    if (t != nullptr) ++replacements;
    install(t);
}

void replace_library(const std::string& path) {
    static DriverTable other;
    static std::string loaded;
    if (loaded != path) {
        void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
        if (library == nullptr) throw std::runtime_error(std::string("neurokern: ") + dlerror());
        loaded.clear();
        if (const std::string missing = resolve(library, other); !missing.empty())
            throw std::runtime_error("neurokern: " + path + ": " + missing);
        loaded = path;
        return replace_table(&other);
    }
    // The same table again: what was loaded through it stays.
    install(&other);
}

bool replaced() {
    const DriverTable* t = current.load(std::memory_order_acquire);
    return t != nullptr && t != &own;
}

unsigned generation() { return replacements.load(std::memory_order_acquire); }

}  // namespace nk::driver
