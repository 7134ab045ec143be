// What Python asks of CUDA as a whole: is there a driver, which devices, where are the kernels.
#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bindings.h"
#include "driver/cuda_hooks.h"
#include "driver/launch.h"
#include "driver/stand_in.h"
#include "driver/tensor_map.h"
#include "tensor/check.h"
#include "tensor/read.h"

namespace py = pybind11;

namespace nk {

namespace {

// Fatbins are installed in the folder _cuda beside the extension module itself.
std::string default_kernel_dir() {
    Dl_info self;
    if (dladdr(reinterpret_cast<void*>(&default_kernel_dir), &self) == 0) return "_cuda";
    return (std::filesystem::path(self.dli_fname).parent_path() / "_cuda").string();
}

py::dict cuda_info() {
    py::dict info;
    const driver::DriverTable* table = driver::table();
    int version = 0;
    if (table != nullptr) table->cuDriverGetVersion(&version);
    info["driver"] = version ? py::object(py::str(driver::version_text(version))) : py::object(py::none());
    py::list devices;
    for (int i = 0; i < driver::device_count(); ++i) {
        const driver::DeviceInfo& d = driver::device_info(i);
        py::dict row;
        row["name"] = d.name;
        row["capability"] = py::make_tuple(d.major, d.minor);
        row["multiprocessors"] = d.multiprocessors;
        row["shared_per_block"] = d.shared_per_block;
        row["shared_per_multiprocessor"] = d.shared_per_multiprocessor;
        row["l2_bytes"] = d.l2_bytes;
        row["missing"] = driver::device("cuda", i).missing;
        devices.append(row);
    }
    info["devices"] = devices;
    info["kernel_dir"] = driver::kernel_dir();
    py::list kernels;
    bool any_runs = false;
    std::string why = "no CUDA device";
    for (int i = driver::device_count() - 1; i >= 0; --i) {
        const driver::DeviceState& d = driver::device("cuda", i);
        any_runs = any_runs || d.missing.empty();
        if (!d.missing.empty()) why = d.text() + ": " + d.missing;
    }
    std::error_code ignored;
    for (const auto& file : std::filesystem::directory_iterator(driver::kernel_dir(), ignored))
        if (file.path().extension() == ".fatbin") kernels.append(file.path().stem().string());
    kernels.attr("sort")();
    info["fatbins"] = kernels;
    info["reason"] = table == nullptr        ? driver::why_not()
                     : py::len(kernels) == 0 ? "built without the CUDA kernels"
                     : any_runs              ? ""
                                             : why;
    const int toolkit = driver::kernel_folder().toolkit;
    info["nvcc"] = toolkit ? py::object(py::str(driver::version_text(toolkit))) : py::object(py::none());
    return info;
}

std::string cuda_missing(int index) {
    if (driver::table() == nullptr) return driver::why_not();
    const int count = driver::device_count();
    if (count == 0) return "no CUDA device";
    if (index < 0 || index >= count) return concat("no device cuda:", index, ", there are ", count);
    const driver::DeviceState& d = driver::device("cuda", index);
    return d.missing.empty() ? "" : d.text() + ": " + d.missing;
}

std::string lost_devices() {
    std::string text;
    if (driver::is_emulated()) return text;
    if (const driver::DriverTable* t = driver::table())
        for (driver::DeviceState* d : driver::known_devices())
            if (const std::string why = d->why_lost(*t); !why.empty()) text += (text.empty() ? "" : "; ") + why;
    return text;
}

using Extent = std::array<unsigned, 3>;

// A launch as tests and tools make it: each parameter in its bytes.
void launch_kernel(const std::string& fatbin, const std::string& kernel, const std::vector<std::string>& parameters,
                   Extent grid, Extent block, unsigned shared, Extent cluster, bool overlaps_former, uintptr_t stream,
                   int index) {
    driver::Launch l{"launch_kernel", fatbin.c_str(), kernel.c_str()};
    std::copy(grid.begin(), grid.end(), l.grid);
    std::copy(block.begin(), block.end(), l.block);
    std::copy(cluster.begin(), cluster.end(), l.cluster);
    l.shared = shared, l.overlaps_former = overlaps_former, l.stream = reinterpret_cast<void*>(stream);
    l.device = {driver::is_emulated() ? Device::cpu : Device::cuda, index};
    l.fatbin = driver::variant(l.fatbin, l.device);
    std::vector<void*> pointers;
    for (const std::string& p : parameters) pointers.push_back(const_cast<char*>(p.data()));
    driver::launch(l, pointers.data());
}

py::bytes tensor_map(const py::object& tensor, const std::vector<int64_t>& box, int swizzle, bool nan_outside) {
    TensorView t;
    read_tensor(tensor.ptr(), "tensor_map", "tensor", t);
    if (static_cast<int>(box.size()) != t.ndim)
        fail_value("tensor_map", "argument box has ", box.size(), " sizes, expected ", t.ndim);
    const int spans[] = {0, 32, 64, 128};
    const auto* span = std::find(std::begin(spans), std::end(spans), swizzle);
    if (span == std::end(spans))
        fail_value("tensor_map", "argument swizzle is ", swizzle, ", expected 0, 32, 64 or 128");
    const driver::TensorMap map =
        driver::make_tensor_map("tensor_map", "tensor",
                                {t.data, t.dtype, t.ndim, t.shape, t.stride, box.data(),
                                 static_cast<driver::MapSwizzle>(span - std::begin(spans)), nan_outside});
    return {reinterpret_cast<const char*>(&map), sizeof map};
}

}  // namespace

void register_driver(py::handle module) {
    auto m = py::reinterpret_borrow<py::module_>(module);
    driver::set_kernel_dir(default_kernel_dir());
    m.def("set_kernel_dir", &driver::set_kernel_dir, py::arg("path"),
          "Load CUDA kernels from this folder instead of _cuda beside the module.");
    m.def("load_stand_in", &driver::load_stand_in, py::arg("path"), py::arg("set_option"), py::arg("take_launch"),
          "Load the library that launches within emulate(): it exports the functions of CUDA's driver API, and two of "
          "these names, which set an option and take a launch off the record.");
    m.def("set_driver", &driver::use_driver, py::arg("path"),
          "Take this library for CUDA's driver, instead of libcuda.so.1 (\"\").");
    m.def("cuda_missing", &cuda_missing, py::arg("index"),
          "Why our kernels don't run on that CUDA device, or nothing.");
    m.def("lost_devices", &lost_devices,
          "Which CUDA devices an illegal access or the like has lost to this process, and why; or nothing. Waits for "
          "them.");
    m.def(
        "load_kernel",
        [](const std::string& fatbin, const std::string& kernel, int index) {
            driver::load_kernel("warm_up", fatbin.c_str(), kernel.c_str(), {Device::cuda, index});
        },
        py::arg("fatbin"), py::arg("kernel"), py::arg("index"),
        "Load a kernel on a CUDA device, compiling it if need be.");
    m.def("launch_kernel", &launch_kernel, py::arg("fatbin"), py::arg("kernel"), py::arg("parameters"), py::arg("grid"),
          py::arg("block"), py::arg("shared") = 0, py::arg("cluster") = Extent{}, py::arg("overlaps_former") = false,
          py::arg("stream") = 0, py::arg("index") = 0,
          "Launch a kernel with these bytes for its parameters, from the fatbin or its variant for the device's "
          "architecture: for tests.");
    m.def("tensor_map", &tensor_map, py::arg("tensor"), py::arg("box"), py::arg("swizzle") = 0,
          py::arg("nan_outside") = false,
          "The 128 bytes by which cp.async.bulk.tensor copies boxes of the tensor: for tests.");
    m.def(
        "kernel_variant",
        [](const std::string& fatbin, int index) -> std::string {
            return driver::variant(fatbin.c_str(), {driver::is_emulated() ? Device::cpu : Device::cuda, index});
        },
        py::arg("fatbin"), py::arg("index") = 0,
        "The fatbin whose kernels a device takes: the one given, or one for its architecture alone.");
    m.def("cuda_info", &cuda_info,
          "What there is of CUDA: driver version or None, devices, kernel folder, fatbins, and what is missing (or "
          "None).");
    register_cuda_hooks(m);
}

}  // namespace nk
