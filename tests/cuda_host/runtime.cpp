#include "runtime.h"

#include <dlfcn.h>
#include <ucontext.h>

#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "csrc/driver/table.h"

Dim threadIdx, blockIdx;

namespace nk::cuda {
alignas(1024) char shared[host::kSharedBytes];  // what kernels declare as extern __shared__
}

namespace host {

long bank_conflicts = 0;
unsigned shared_used = 0;

namespace {

struct Copy {
    uint32_t dst;
    const void* src;
    int bytes, valid;
};

struct Thread {
    ucontext_t context;
    std::vector<char> stack;
    bool done = false;
    void* state = nullptr;  // what a warp-wide instruction works on
    std::vector<Copy> open;
    std::deque<std::vector<Copy>> groups;
};

struct Warp {
    int arrived = 0;
    unsigned turn = 0;
};

std::vector<Thread> threads;
std::vector<Warp> warps;
ucontext_t scheduler;
unsigned current = 0, arrived = 0, turn = 0;
void (*kernel_call)(void**) = nullptr;
void** kernel_arguments = nullptr;

void yield() { swapcontext(&threads[current].context, &scheduler); }

void run_thread() {
    kernel_call(kernel_arguments);
    if (!threads[current].open.empty()) fail("copies without a group at the end of the kernel");
    threads[current].done = true;
    yield();
}

void run_block(unsigned count) {
    threads.resize(std::max<size_t>(threads.size(), count));
    warps.assign(count / 32, {});
    arrived = 0;
    memset(nk::cuda::shared, 0xff, sizeof nk::cuda::shared);  // NaN in every format
    for (unsigned i = 0; i < count; ++i) {
        Thread& t = threads[i];
        t.stack.resize(256 * 1024);
        t.done = false;
        t.open.clear(), t.groups.clear();
        getcontext(&t.context);
        t.context.uc_stack.ss_sp = t.stack.data();
        t.context.uc_stack.ss_size = t.stack.size();
        t.context.uc_link = nullptr;
        makecontext(&t.context, run_thread, 0);
    }
    for (unsigned alive = count; alive > 0;) {
        alive = 0;
        // Warps run far ahead of one another between barriers, in changing order, as they may on a device.
        for (unsigned j = 0; j < count; ++j) {
            const unsigned i = (turn % 2 ? count - 1 - j : j);
            if (threads[i].done) continue;
            current = i, threadIdx.x = i;
            swapcontext(&scheduler, &threads[i].context);
            alive += !threads[i].done;
        }
    }
}

}  // namespace

void sync_block() {
    const unsigned mine = turn;
    if (++arrived == warps.size() * 32) {
        arrived = 0, ++turn;
        return;
    }
    while (turn == mine) yield();
}

void warp_collective(void* mine, void (*work)(void** lanes)) {
    threads[current].state = mine;
    Warp& warp = warps[current / 32];
    const unsigned turn_before = warp.turn, first = current / 32 * 32;
    if (++warp.arrived == 32) {
        void* lanes[32];
        for (int i = 0; i < 32; ++i) lanes[i] = threads[first + i].state;
        work(lanes);
        warp.arrived = 0, ++warp.turn;
        return;
    }
    while (warp.turn == turn_before) yield();
}

void async_copy(uint32_t dst, const void* src, int bytes, int valid) {
    check_shared(dst, bytes, bytes);
    if (reinterpret_cast<uintptr_t>(src) % bytes != 0 && valid > 0) fail("misaligned source of cp.async");
    if (valid < 0 || valid > bytes) fail("cp.async of an impossible number of bytes");
    memset(nk::cuda::shared + dst, 0xff, bytes);  // whoever still reads the old contents sees NaN
    threads[current].open.push_back({dst, src, bytes, valid});
}

void async_commit() {
    Thread& t = threads[current];
    t.groups.push_back(std::move(t.open));
    t.open.clear();
}

void async_wait(int pending) {
    Thread& t = threads[current];
    for (; static_cast<int>(t.groups.size()) > pending; t.groups.pop_front())
        for (const Copy& c : t.groups.front()) {
            memset(nk::cuda::shared + c.dst, 0, c.bytes);
            memcpy(nk::cuda::shared + c.dst, c.src, c.valid);
        }
}

}  // namespace host

void call_matmul_kernel(void* function, void** arguments);  // kernels.cpp

namespace {

using namespace nk::driver;
void* function_in_force;
uint64_t most_blocks = UINT64_MAX;  // larger launches are taken and not run

Result init(unsigned) { return 0; }
Result version(int* v) { return *v = 13000, 0; }
Result error_name(Result, const char** name) { return *name = "CUDA_ERROR_UNKNOWN", 0; }
Result device_count(int* count) { return *count = 1, 0; }
Result device(DeviceId* d, int ordinal) { return *d = 0, ordinal == 0 ? 0 : 101; }
Result device_name(char* name, int length, DeviceId) { return snprintf(name, length, "this CPU"), 0; }
Result attribute(int* value, DeviceAttribute a, DeviceId) {
    switch (a) {
        case kMajor:
            return *value = 8, 0;
        case kMinor:
            return *value = 0, 0;
        case kMultiprocessors:
            return *value = 8, 0;  // few, so that small problems are split and grouped
        case kSharedPerBlockOptin:
            return *value = 163 * 1024, 0;
        case kSharedPerMultiprocessor:
            return *value = 164 * 1024, 0;
        default:
            return *value = 32, 0;
    }
}
Result retain(Context* c, DeviceId) { return *c = &function_in_force, 0; }
Result get_current(Context* c) { return *c = &function_in_force, 0; }
Result set_current(Context) { return 0; }
Result load_module(Module* m, const void*) { return *m = &function_in_force, 0; }
Result get_function(Function* f, Module, const char* name) {
    *f = dlsym(RTLD_DEFAULT, name);
    if (*f == nullptr) {
        Dl_info self;
        dladdr(reinterpret_cast<void*>(&init), &self);
        *f = dlsym(dlopen(self.dli_fname, RTLD_NOW | RTLD_NOLOAD), name);
    }
    return *f != nullptr ? 0 : 500;
}
Result set_attribute(Function, FunctionAttribute, int) { return 0; }
Result launch(Function f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
              Stream, void** params, void**) {
    if (by != 1 || bz != 1 || bx % 32 != 0 || shared > 163 * 1024 || gy > 65535 || gz > 65535) return 1;
    if (uint64_t{gx} * gy * gz > most_blocks) return 0;
    function_in_force = f;
    host::shared_used = shared;
    host::kernel_call = [](void** p) { call_matmul_kernel(function_in_force, p); };
    host::kernel_arguments = params;
    for (unsigned z = 0; z < gz; ++z)
        for (unsigned y = 0; y < gy; ++y)
            for (unsigned x = 0; x < gx; ++x) {
                blockIdx = {x, y, z};
                host::run_block(bx);
            }
    return 0;
}

}  // namespace

extern "C" const void* cuda_host_table() {
    static DriverTable t;
    t = {init,   version,     error_name,  error_name,  device_count, device,        device_name, attribute,
         retain, get_current, set_current, load_module, get_function, set_attribute, launch};
    return &t;
}
extern "C" void cuda_host_run_at_most(uint64_t blocks) { most_blocks = blocks; }
extern "C" long cuda_host_bank_conflicts() { return std::exchange(host::bank_conflicts, 0); }
