// The part of the CUDA driver API that a launcher uses, on this machine's CPU. Streams are in order and finished when
// a call returns. cuGetErrorString says of the latest error of the thread what exactly went wrong.
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>

#include "../exec/block.h"
#include "api.h"
#include "device.h"
#include "fatbin.h"

namespace {

using namespace emu;

struct Function;

struct Module {
    std::shared_ptr<Program> program;
    std::vector<std::unique_ptr<Function>> functions;
};

struct Function {
    Module* module;
    const Code* code;
    uint32_t most_dynamic_shared = 48 * 1024;
    bool any_cluster_size = false;  // up to 16 blocks, which not every device can do
};

constexpr size_t kKeptPrograms = 64;

std::mutex mutex;
std::vector<std::unique_ptr<Module>> modules;
// Decoded programs without variables of their own, by their text: loading a module again costs nothing.
std::deque<std::pair<size_t, std::shared_ptr<Program>>> programs;
int context_object;
thread_local void* current_context = nullptr;
thread_local int capture_mode = 0;  // global
thread_local std::string latest_text;
thread_local int latest_code = 0;

std::shared_ptr<Program> load(std::string text) {
    const size_t key = std::hash<std::string>{}(text);
    for (const auto& [k, p] : programs)
        if (k == key && p->module->text.size() == text.size()) return p;
    const size_t bytes = text.size();
    std::shared_ptr<Program> p = decode(std::move(text));
    if (p->globals.empty() && p->module->text.size() == bytes) {
        if (programs.size() == kKeptPrograms) programs.pop_front();
        programs.emplace_back(key, p);
    }
    return p;
}

struct ErrorName {
    int code;
    const char *name, *text;
};
constexpr ErrorName kErrors[] = {
    {success, "CUDA_SUCCESS", "no error"},
    {invalid_value, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {out_of_memory, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {not_initialized, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {no_device, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {invalid_device, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {invalid_image, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {invalid_context, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {no_binary_for_gpu, "CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image is available for execution on the device"},
    {invalid_ptx, "CUDA_ERROR_INVALID_PTX", "a PTX JIT compilation failed"},
    {unsupported_ptx, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "the provided PTX has what the emulator does not execute"},
    {not_found, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {illegal_address, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {out_of_resources, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", "too many resources requested for launch"},
    {assertion, "CUDA_ERROR_ASSERT", "device-side assert triggered"},
    {misaligned_address, "CUDA_ERROR_MISALIGNED_ADDRESS", "misaligned address"},
    {launch_failed, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {not_supported, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {invalid_cluster_size, "CUDA_ERROR_INVALID_CLUSTER_SIZE", "the requested cluster size is not possible"},
};

const ErrorName* find_error(int code) {
    for (const ErrorName& e : kErrors)
        if (e.code == code) return &e;
    return nullptr;
}

Ranges valid_ranges(const Program& p) {
    std::vector<Range> own;
    for (const auto& [name, g] : p.globals) {
        const auto begin = reinterpret_cast<uint64_t>(g.data);
        own.push_back({begin, begin + g.bytes});
    }
    return memory().snapshot(std::move(own));
}

void copy_parameters(const Code& code, void** params, void** extra, std::vector<char>& to) {
    to.assign(code.parameter_bytes, 0);
    if (extra != nullptr) throw Error(not_supported, "kernel parameters through `extra`");
    for (size_t k = 0; k < code.parameter_slots.size(); ++k) {
        const auto [offset, bytes] = code.parameter_slots[k];
        std::memcpy(to.data() + offset, params[k], bytes);
    }
}

}  // namespace

int emu::guarded(const std::function<void()>& f) {
    try {
        f();
        return success;
    } catch (const Error& e) {
        latest_text = e.what(), latest_code = e.code;
    } catch (const std::bad_alloc&) {
        latest_text = "out of memory", latest_code = out_of_memory;
    } catch (const std::exception& e) {
        latest_text = e.what(), latest_code = launch_failed;
    }
    return latest_code;
}

EMU_API int cuInit(unsigned) {
    return guarded([] {
        if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("f16c"))
            throw Error(no_device, "the emulator needs a processor with AVX2, FMA and F16C");
    });
}

EMU_API int cuDriverGetVersion(int* version) {
    *version = 13000;
    return success;
}

EMU_API int cuGetErrorName(int error, const char** name) {
    const ErrorName* e = find_error(error);
    *name = e ? e->name : nullptr;
    return e ? success : invalid_value;
}

EMU_API int cuGetErrorString(int error, const char** text) {
    const ErrorName* e = find_error(error);
    *text = error == latest_code && error != success ? latest_text.c_str() : e ? e->text : nullptr;
    return *text ? success : invalid_value;
}

EMU_API int cuDeviceGetCount(int* count) {
    *count = 1;
    return success;
}

EMU_API int cuDeviceGet(int* device, int ordinal) {
    *device = 0;
    return ordinal == 0 ? success : invalid_device;
}

EMU_API int cuDeviceGetName(char* name, int length, int) {
    if (length <= 0) return invalid_value;
    std::strncpy(name, "neurokern emulator", static_cast<size_t>(length));
    name[length - 1] = 0;
    return success;
}

EMU_API int cuDeviceGetAttribute(int* value, int attribute, int) {
    return device_attribute(attribute, *value) ? success : invalid_value;
}

EMU_API int cuDevicePrimaryCtxRetain(void** context, int) {
    *context = &context_object;
    return success;
}

EMU_API int cuDevicePrimaryCtxRelease_v2(int) { return success; }

EMU_API int cuCtxGetCurrent(void** context) {
    *context = current_context;
    return success;
}

EMU_API int cuCtxSetCurrent(void* context) {
    current_context = context;
    return success;
}

EMU_API int cuCtxGetDevice(int* device) {
    *device = 0;
    return current_context != nullptr ? success : invalid_context;
}

EMU_API int cuCtxSynchronize() { return success; }

// Nothing is captured here: the mode is kept, for whoever exchanges it.
EMU_API int cuThreadExchangeStreamCaptureMode(int* mode) {
    if (*mode < 0 || *mode > 2) return invalid_value;
    std::swap(*mode, capture_mode);
    return success;
}

EMU_API int cuModuleLoadData(void** module, const void* image) {
    return guarded([&] {
        const std::lock_guard lock(mutex);
        auto m = std::make_unique<Module>();
        m->program = load(ptx_of_image(image));
        *module = m.get();
        modules.push_back(std::move(m));
    });
}

EMU_API int cuModuleLoadDataEx(void** module, const void* image, unsigned, int*, void**) {
    return cuModuleLoadData(module, image);
}

EMU_API int cuModuleUnload(void* module) {
    const std::lock_guard lock(mutex);
    return std::erase_if(modules, [&](const auto& m) { return m.get() == module; }) ? success : invalid_value;
}

EMU_API int cuModuleGetFunction(void** function, void* module, const char* name) {
    return guarded([&] {
        const std::lock_guard lock(mutex);
        auto* m = static_cast<Module*>(module);
        const auto it = m->program->functions.find(name);
        if (it == m->program->functions.end() || !it->second->source->entry)
            throw Error(not_found, concat("the module has no kernel ", name));
        m->functions.push_back(std::make_unique<Function>(Function{m, it->second.get()}));
        *function = m->functions.back().get();
    });
}

EMU_API int cuModuleGetGlobal_v2(uint64_t* address, size_t* bytes, void* module, const char* name) {
    return guarded([&] {
        const auto& globals = static_cast<Module*>(module)->program->globals;
        const auto it = globals.find(name);
        if (it == globals.end()) throw Error(not_found, concat("the module has no variable ", name));
        if (address != nullptr) *address = reinterpret_cast<uint64_t>(it->second.data);
        if (bytes != nullptr) *bytes = it->second.bytes;
    });
}

EMU_API int cuFuncSetAttribute(void* function, int attribute, int value) {
    constexpr int kMaxDynamicShared = 8, kNonPortableClusters = 14;
    return guarded([&] {
        auto* f = static_cast<Function*>(function);
        if (attribute == kNonPortableClusters) f->any_cluster_size = value != 0;
        if (attribute != kMaxDynamicShared) return;
        int limit = 0;
        device_attribute(kSharedPerBlockOptin, limit);
        if (value < 0 || static_cast<uint32_t>(value) + f->code->static_shared > static_cast<uint32_t>(limit))
            throw Error(invalid_value, concat(value, " bytes of shared memory, the device has ", limit));
        f->most_dynamic_shared = static_cast<uint32_t>(value);
    });
}

// A library is a module that belongs to no context, and its kernels are launched as functions are.
EMU_API int cuLibraryLoadData(void** library, const void* image, void*, void*, unsigned jit_options, void*, void*,
                              unsigned options) {
    if (jit_options != 0 || options != 0) return not_supported;
    return cuModuleLoadData(library, image);
}

EMU_API int cuLibraryUnload(void* library) { return cuModuleUnload(library); }

EMU_API int cuLibraryGetKernel(void** kernel, void* library, const char* name) {
    return cuModuleGetFunction(kernel, library, name);
}

EMU_API int cuKernelGetFunction(void** function, void* kernel) {
    *function = kernel;
    return current_context != nullptr ? success : invalid_context;
}

EMU_API int cuFuncLoad(void*) { return success; }

EMU_API int cuKernelSetAttribute(int attribute, int value, void* kernel, int) {
    return cuFuncSetAttribute(kernel, attribute, value);
}

namespace {

// CUlaunchConfig and CUlaunchAttribute.
struct Attribute {
    int id;
    uint32_t pad;
    uint32_t value[16];
};
struct Config {
    uint32_t grid[3], block[3], shared;
    void* stream;
    const Attribute* attributes;
    uint32_t attribute_count;
};

void set_cluster(Launch& l, const Function& f, const Config& c) {
    constexpr int kClusterDimension = 4;
    const ptx::Function& source = *f.code->source;
    const auto refuse = [&](const std::string& why) {
        throw Error(invalid_cluster_size, concat("kernel ", f.code->name, ": ", why));
    };
    bool given = source.cluster[0] != 0;
    if (given) std::copy(source.cluster, source.cluster + 3, l.cluster);
    for (uint32_t k = 0; k < c.attribute_count; ++k) {
        if (c.attributes[k].id != kClusterDimension) continue;
        if (given && !std::equal(l.cluster, l.cluster + 3, c.attributes[k].value))
            refuse("the launch's cluster is not the one of .reqnctapercluster");
        std::copy(c.attributes[k].value, c.attributes[k].value + 3, l.cluster);
        given = true;
    }
    l.explicit_cluster = given;
    if (!given && source.explicit_cluster) refuse(".explicitcluster, and the launch names no cluster");
    if (source.blocks_are_clusters)
        for (int d = 0; d < 3; ++d) l.grid[d] *= l.cluster[d];
    const uint64_t blocks = uint64_t{l.cluster[0]} * l.cluster[1] * l.cluster[2];
    if (blocks == 0 || blocks > (f.any_cluster_size ? 16 : 8)) refuse(concat("a cluster of ", blocks, " blocks"));
    if (source.max_cluster_rank != 0 && blocks > source.max_cluster_rank)
        refuse(concat("a cluster of ", blocks, " blocks, .maxclusterrank is ", source.max_cluster_rank));
    for (int d = 0; d < 3; ++d)
        if (l.grid[d] % l.cluster[d] != 0) refuse("the grid is no multiple of the cluster");
}

void launch(void* function, const Config& c, void** params, void** extra) {
    const auto* f = static_cast<Function*>(function);
    Launch l;
    l.program = f->module->program.get(), l.code = f->code;
    constexpr uint32_t most_grid[] = {0x7fffffff, 65535, 65535}, most_block[] = {1024, 1024, 64};
    for (int d = 0; d < 3; ++d) {
        if (c.grid[d] == 0 || c.block[d] == 0 || c.grid[d] > most_grid[d] || c.block[d] > most_block[d])
            throw Error(invalid_value,
                        concat("kernel ", f->code->name, ": a grid or block out of the device's limits"));
        l.grid[d] = c.grid[d], l.block[d] = c.block[d];
    }
    if (l.threads() > 1024) throw Error(invalid_value, concat("kernel ", f->code->name, ": more than 1024 threads"));
    if (const uint32_t most = f->code->source->max_threads; most != 0 && l.threads() > most)
        throw Error(invalid_value, concat("kernel ", f->code->name, ": ", l.threads(), " threads, it allows ", most));
    if (c.shared > f->most_dynamic_shared)
        throw Error(invalid_value, concat("kernel ", f->code->name, ": ", c.shared,
                                          " bytes of dynamic shared memory, allowed are ", f->most_dynamic_shared));
    set_cluster(l, *f, c);
    l.dynamic_shared = c.shared;
    copy_parameters(*f->code, params, extra, l.parameters);
    l.options = options();
    l.ranges = valid_ranges(*f->module->program);
    run(l);
    record(l);
}

}  // namespace

EMU_API int cuLaunchKernel(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                           unsigned block_y, unsigned block_z, unsigned shared, void* stream, void** params,
                           void** extra) {
    const Config c{{grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared, stream, nullptr, 0};
    return guarded([&] { launch(function, c, params, extra); });
}

EMU_API int cuLaunchKernelEx(const void* config, void* function, void** params, void** extra) {
    return guarded([&] { launch(function, *static_cast<const Config*>(config), params, extra); });
}

EMU_API int cuMemAlloc_v2(uint64_t* address, size_t bytes) {
    return guarded([&] { *address = reinterpret_cast<uint64_t>(memory().allocate(bytes)); });
}

EMU_API int cuMemFree_v2(uint64_t address) {
    return memory().release(reinterpret_cast<void*>(address)) ? success : invalid_value;
}

EMU_API int cuMemHostRegister_v2(void* data, size_t bytes, unsigned) {
    return guarded([&] { memory().add(data, bytes); });
}

EMU_API int cuMemHostUnregister(void* data) { return memory().remove(data) ? success : invalid_value; }

// What is there is no longer wanted: a kernel that reads it before it writes is wrong.
EMU_API int cuMemDiscardBatchAsync(uint64_t* addresses, size_t* bytes, size_t count, unsigned long long, void*) {
    return guarded([&] {
        for (size_t k = 0; k < count; ++k) memory().discard(reinterpret_cast<void*>(addresses[k]), bytes[k]);
    });
}

EMU_API int cuMemcpyHtoD_v2(uint64_t to, const void* from, size_t bytes) {
    unwritten().clear(to, bytes);
    std::memcpy(reinterpret_cast<void*>(to), from, bytes);
    return success;
}

EMU_API int cuMemcpyDtoH_v2(void* to, uint64_t from, size_t bytes) {
    std::memcpy(to, reinterpret_cast<const void*>(from), bytes);
    return success;
}

EMU_API int cuStreamCreate(void** stream, unsigned) {
    *stream = &context_object;
    return success;
}
EMU_API int cuStreamDestroy_v2(void*) { return success; }
EMU_API int cuStreamSynchronize(void*) { return success; }
EMU_API int cuEventCreate(void** event, unsigned) {
    *event = &context_object;
    return success;
}
EMU_API int cuEventRecord(void*, void*) { return success; }
EMU_API int cuEventSynchronize(void*) { return success; }
EMU_API int cuEventDestroy_v2(void*) { return success; }
