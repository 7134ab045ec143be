#include "driver/table.h"

#include <dlfcn.h>

#include "driver/stand_in.h"

namespace nk::driver {

namespace {

DriverTable own;  // of the machine
bool tried = false;
std::string reason;

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

}  // namespace

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

const DriverTable* table() { return is_emulated() ? stand_in_table() : load_own(); }

const std::string& why_not() { return reason; }

}  // namespace nk::driver
