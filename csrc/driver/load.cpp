#include "driver/load.h"

#include <pybind11/gil_simple.h>

#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <thread>

#include "driver/fail.h"
#include "tensor/check.h"

namespace nk::driver {

namespace {

// Says on stderr what is compiled once it takes so long that somebody may wonder: the driver keeps what it has
// compiled, and loads it at once the next time.
class Progress {
  public:
    Progress(const DeviceState& d, std::string_view kernel)
        : line_(concat("neurokern: compiling ", kernel, " for sm_", d.info.capability(),
                       " ..., kept by the driver's cache\n")),
          clock_([this] {
              std::unique_lock lock(mutex_);
              if (!changed_.wait_for(lock, std::chrono::milliseconds(300), [this] { return done_; }))
                  std::fputs(line_.c_str(), stderr);
          }) {}
    ~Progress() {
        {
            const std::lock_guard lock(mutex_);
            done_ = true;
        }
        changed_.notify_one();
        clock_.join();
    }
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;

  private:
    const std::string line_;
    std::mutex mutex_;
    std::condition_variable changed_;
    bool done_ = false;
    std::thread clock_;
};

}  // namespace

Kernel& load(const DriverTable& t, const char* op, DeviceState& d, const char* fatbin, const char* kernel) {
    const pybind11::gil_scoped_release_simple released;
    const std::lock_guard lock(d.loading);
    if (Kernel* known = d.find(fatbin, kernel)) return *known;  // another thread was first

    const std::string what = concat("kernel ", kernel, " of ", fatbin, ".fatbin on ", d.text());
    const Fatbin* built = d.folder->find(fatbin);
    const bool compiles = built != nullptr && !built->runs_machine_code(d.info.capability());
    std::string key = fatbin;
    std::optional<std::vector<char>> image;
    if (compiles && (image = read_kernel(*d.folder, fatbin, kernel))) key = concat(fatbin, "/", kernel);
    Library& library = d.libraries[key];
    if (library == nullptr && !image) {
        const std::string path = d.folder->file(fatbin, ".fatbin");
        image = read_file(path);
        if (!image) fail_runtime(op, "can't read ", path, ": this build of neurokern lacks it (see `neurokern info`)");
    }
    auto fresh = std::make_unique<Kernel>();
    fresh->fatbin = fatbin, fresh->name = kernel;
    std::optional<Progress> progress;
    if (compiles && !d.emulated) progress.emplace(d, kernel);
    const RelaxedCapture relaxed(t);
    const ContextGuard guard(t, op, d);
    if (library == nullptr)
        NK_DEVICE_CALL(t, op, d, what,
                       t.cuLibraryLoadData(&library, image->data(), nullptr, nullptr, 0, nullptr, nullptr, 0));
    NK_DEVICE_CALL(t, op, d, what, t.cuLibraryGetKernel(&fresh->function, library, kernel));
    // Loading is put off until a context needs it: here, and not in the first launch, which may be captured.
    Function in_context = nullptr;
    NK_DEVICE_CALL(t, op, d, what, t.cuKernelGetFunction(&in_context, fresh->function));
    if (t.cuFuncLoad != nullptr) NK_DEVICE_CALL(t, op, d, what, t.cuFuncLoad(in_context));
    return d.add(std::move(fresh));
}

}  // namespace nk::driver
