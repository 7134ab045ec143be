#include "table.h"

#include <dlfcn.h>

#include <atomic>
#include <mutex>

namespace nk::driver {

namespace {

std::mutex table_mutex;
DriverTable native;
bool tried = false;
std::string reason;
std::atomic<const DriverTable*> current{nullptr};
std::atomic<unsigned> replacements{0};

const DriverTable* load_native() {
    if (tried) return reason.empty() ? &native : nullptr;
    tried = true;
    void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
        reason = "no CUDA driver (libcuda.so.1 is not on this machine)";
        return nullptr;
    }
#define NK_RESOLVE(name, arguments)                                               \
    native.name = reinterpret_cast<decltype(native.name)>(dlsym(library, #name)); \
    if (native.name == nullptr && reason.empty()) reason = "the CUDA driver has no function " #name;
    NK_DRIVER_FUNCTIONS(NK_RESOLVE)
#undef NK_RESOLVE
    if (!reason.empty()) return nullptr;
    if (const Result r = native.cuInit(0); r != 0) {
        const char* name = nullptr;
        native.cuGetErrorName(r, &name);
        reason = std::string("the CUDA driver does not start: ") + (name ? name : "unknown error");
        return nullptr;
    }
    return &native;
}

}  // namespace

const DriverTable* table() {
    if (const DriverTable* t = current.load(std::memory_order_acquire)) return t;
    const std::lock_guard lock(table_mutex);
    const DriverTable* t = load_native();
    if (t != nullptr) current.store(t, std::memory_order_release);
    return t;
}

const std::string& why_not() { return reason; }

void replace_table(const DriverTable* t) {
    const std::lock_guard lock(table_mutex);
    ++replacements;
    current.store(t, std::memory_order_release);
}

bool replaced() {
    const DriverTable* t = current.load(std::memory_order_acquire);
    return t != nullptr && t != &native;
}

unsigned generation() { return replacements.load(std::memory_order_acquire); }

}  // namespace nk::driver
