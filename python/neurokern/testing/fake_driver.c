// A CUDA driver of devices that are not there, for tests: it writes down which functions are called, can fail in each
// of them, and hands on to the emulator what runs kernels. NK_EMULATOR is the emulator's path; NK_WITHOUT_LIBRARIES
// makes a driver from before CUDA 12.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define API __attribute__((visibility("default")))
enum { MOST = 8, PRIMARY = 0x1000, GREEN = 0x2000, RELAXED = 2 };
enum { INVALID_DEVICE = 101, INVALID_CONTEXT = 201, CAPTURE_UNSUPPORTED = 900 };

static struct {
    char name[64];
    int major, minor;
} devices[MOST];
static struct {
    char name[64];
    int code, times, milliseconds;
} rules[16];
static int count, version, capturing, rule_count;
static char text[1 << 20];
static size_t used;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static __thread uintptr_t current;  // PRIMARY + device, GREEN + device
static __thread int mode;

static void* emulator(const char* name) {
    static void* library;
    if (library == NULL) library = dlopen(NK_EMULATOR, RTLD_NOW | RTLD_LOCAL);
    return library == NULL ? NULL : dlsym(library, name);
}
#define EMULATED(name, types, ...) (((int(*) types)emulator(#name))(__VA_ARGS__))

API void fakeReset(int driver_version) {
    count = capturing = rule_count = 0, version = driver_version, used = 0, text[0] = 0, current = 0, mode = 0;
}
API void fakeDevice(const char* name, int major, int minor) {
    snprintf(devices[count].name, sizeof devices[count].name, "%s", name);
    devices[count].major = major, devices[count++].minor = minor;
}
// The next `times` calls of the function (-1: all) return the code, after so many milliseconds.
API void fakeRule(const char* function, int code, int times, int milliseconds) {
    snprintf(rules[rule_count].name, sizeof rules[rule_count].name, "%s", function);
    rules[rule_count].code = code, rules[rule_count].times = times, rules[rule_count++].milliseconds = milliseconds;
}
API void fakeCapture(int on) { capturing = on; }
API void fakeCurrent(int device, int green) { current = device < 0 ? 0 : (green ? GREEN : PRIMARY) + device; }
API const char* fakeLog(void) { return text; }
API void fakeClear(void) { used = 0, text[0] = 0; }

static int enter(const char* name, const char* format, ...) {
    int code = 0, milliseconds = 0;
    pthread_mutex_lock(&lock);
    char detail[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(detail, sizeof detail, format, arguments);
    va_end(arguments);
    if (used < sizeof text - 512)
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%s%s\n", name, *detail ? " " : "", detail);
    for (int i = 0; i < rule_count; ++i)
        if (rules[i].times != 0 && strcmp(rules[i].name, name) == 0) {
            if (rules[i].times > 0) --rules[i].times;
            code = rules[i].code, milliseconds = rules[i].milliseconds;
            break;
        }
    pthread_mutex_unlock(&lock);
    if (milliseconds > 0) nanosleep(&(struct timespec){milliseconds / 1000, milliseconds % 1000 * 1000000L}, NULL);
    return code;
}
#define ENTER(...)                                     \
    do {                                               \
        const int code = enter(__func__, __VA_ARGS__); \
        if (code != 0) return code;                    \
    } while (0)

static int load_forbidden(void) { return capturing && mode != RELAXED ? CAPTURE_UNSUPPORTED : 0; }
// The memory of the tensors is not the emulator's to check.
static void any_memory(void) { EMULATED(emuSetOption, (const char*, int), "memory", 0); }
static void emulator_context(void) { EMULATED(cuCtxSetCurrent, (void*), &count); }

API int cuInit(unsigned flags) {
    ENTER("");
    return EMULATED(cuInit, (unsigned), flags);
}
API int cuDriverGetVersion(int* to) { return *to = version, 0; }
API int cuGetErrorName(int error, const char** to) {
    if (error == CAPTURE_UNSUPPORTED) return *to = "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", 0;
    return EMULATED(cuGetErrorName, (int, const char**), error, to);
}
API int cuGetErrorString(int error, const char** to) {
    return EMULATED(cuGetErrorString, (int, const char**), error, to);
}
API int cuDeviceGetCount(int* to) { return *to = count, 0; }
API int cuDeviceGet(int* to, int ordinal) { return *to = ordinal, ordinal < count ? 0 : INVALID_DEVICE; }
API int cuDeviceGetName(char* to, int length, int device) {
    return snprintf(to, (size_t)length, "%s", devices[device].name), 0;
}
API int cuDeviceGetAttribute(int* to, int attribute, int device) {
    if (attribute == 75) return *to = devices[device].major, 0;
    if (attribute == 76) return *to = devices[device].minor, 0;
    return EMULATED(cuDeviceGetAttribute, (int*, int, int), to, attribute, 0);
}
API int cuDevicePrimaryCtxRetain(void** to, int device) {
    ENTER("%d", device);
    return *to = (void*)(uintptr_t)(PRIMARY + device), 0;
}
API int cuCtxGetCurrent(void** to) {
    ENTER("");
    return *to = (void*)current, 0;
}
API int cuCtxSetCurrent(void* context) {
    ENTER("%#lx", (unsigned long)(uintptr_t)context);
    return current = (uintptr_t)context, 0;
}
API int cuCtxGetDevice(int* to) {
    ENTER("");
    return *to = (int)(current % PRIMARY), current == 0 ? INVALID_CONTEXT : 0;
}
API int cuCtxSynchronize(void) {
    ENTER("");
    return 0;
}
API int cuStreamSynchronize(void* stream) {
    ENTER("%#lx", (unsigned long)(uintptr_t)stream);
    return 0;
}
API int cuThreadExchangeStreamCaptureMode(int* with) {
    ENTER("%d", *with);
    const int former = mode;
    return mode = *with, *with = former, 0;
}
#ifndef NK_WITHOUT_LIBRARIES
API int cuLibraryLoadData(void** to, const void* image, void* a, void* b, unsigned n, void* c, void* d, unsigned m) {
    ENTER("");
    if (load_forbidden()) return load_forbidden();
    return EMULATED(cuLibraryLoadData, (void**, const void*, void*, void*, unsigned, void*, void*, unsigned), to, image,
                    a, b, n, c, d, m);
}
API int cuLibraryGetKernel(void** to, void* library, const char* name) {
    ENTER("%s", name);
    return EMULATED(cuLibraryGetKernel, (void**, void*, const char*), to, library, name);
}
#endif
API int cuKernelGetFunction(void** to, void* kernel) {
    ENTER("in %#lx", (unsigned long)current);
    if (load_forbidden()) return load_forbidden();
    if (current == 0) return INVALID_CONTEXT;
    emulator_context();
    return EMULATED(cuKernelGetFunction, (void**, void*), to, kernel);
}
API int cuFuncLoad(void* function) {
    ENTER("");
    return function != NULL ? load_forbidden() : 1;
}
API int cuKernelSetAttribute(int attribute, int value, void* kernel, int device) {
    ENTER("%d %d on %d", attribute, value, device);
    return EMULATED(cuKernelSetAttribute, (int, int, void*, int), attribute, value, kernel, device);
}
API int cuLaunchKernel(void* f, unsigned gx, unsigned gy, unsigned gz, unsigned x, unsigned y, unsigned z,
                       unsigned shared, void* stream, void** params, void** extra) {
    ENTER("stream %#lx in %#lx", (unsigned long)(uintptr_t)stream, (unsigned long)current);
    any_memory();
    return EMULATED(
        cuLaunchKernel,
        (void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*, void**, void**), f, gx, gy,
        gz, x, y, z, shared, stream, params, extra);
}
API int cuLaunchKernelEx(const void* config, void* f, void** params, void** extra) {
    const struct {
        unsigned grid[3], block[3], shared;
        void* stream;
        const struct {
            int id, unused;
            unsigned value[16];
        }* attributes;
        unsigned count;
    }* c = config;
    char said[128] = "";
    for (unsigned i = 0; i < c->count; ++i)
        snprintf(said + strlen(said), sizeof said - strlen(said), " %d:%u,%u,%u", c->attributes[i].id,
                 c->attributes[i].value[0], c->attributes[i].value[1], c->attributes[i].value[2]);
    ENTER("stream %#lx in %#lx%s", (unsigned long)(uintptr_t)c->stream, (unsigned long)current, said);
    any_memory();
    return EMULATED(cuLaunchKernelEx, (const void*, void*, void**, void**), config, f, params, extra);
}
API int cuMemHostRegister_v2(void* memory, size_t bytes, unsigned flags) {
    return memory == NULL || bytes + flags == 0;
}
API int cuMemHostUnregister(void* memory) { return memory == NULL; }
API int cuTensorMapEncodeTiled(void* map, int type, unsigned rank, void* data, const uint64_t* sizes,
                               const uint64_t* strides, const unsigned* box, const unsigned* steps, int interleave,
                               int swizzle, int promotion, int fill) {
    ENTER("");
    return EMULATED(cuTensorMapEncodeTiled,
                    (void*, int, unsigned, void*, const uint64_t*, const uint64_t*, const unsigned*, const unsigned*,
                     int, int, int, int),
                    map, type, rank, data, sizes, strides, box, steps, interleave, swizzle, promotion, fill);
}
