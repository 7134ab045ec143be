#include "driver/table.h"

#include <dlfcn.h>

#include "driver/device.h"
#include "driver/stand_in.h"

namespace nk::driver {

namespace {

DriverTable own;  // of the machine
bool tried = false;
std::string reason;
std::string named;  // see use_driver

const DriverTable* load_own() {
    if (tried) return reason.empty() ? &own : nullptr;
    tried = true;
    const char* name = named.empty() ? "libcuda.so.1" : named.c_str();
    void* library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
        reason = std::string("no CUDA driver (") + name + " is not on this machine)";
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
    if (!missing.empty()) {
        int version = 0;
        if (to.cuDriverGetVersion != nullptr) to.cuDriverGetVersion(&version);
        return missing + ", which came with CUDA 12; this driver is for CUDA " + version_text(version);
    }
    if (const Result r = to.cuInit(0); r != 0) {
        const char *name = nullptr, *text = nullptr;
        to.cuGetErrorName(r, &name), to.cuGetErrorString(r, &text);
        return std::string("the CUDA driver does not start: ") + (name ? name : "unknown error") +
               (text ? std::string(" (") + text + ")" : "");
    }
    return "";
}

std::string version_text(int version) {
    return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

void use_driver(std::string path) {
    named = std::move(path), reason.clear(), own = {}, tried = false;
    forget_devices();
}

const DriverTable* table() { return is_emulated() ? stand_in_table() : load_own(); }

const std::string& why_not() { return reason; }

}  // namespace nk::driver
