// What Python asks of CUDA as a whole: is there a driver, which devices, where are the kernels.
#include <dlfcn.h>

#include <filesystem>

#include <pybind11/pybind11.h>

#include "bindings.h"
#include "driver/cuda_hooks.h"
#include "driver/launch.h"
#include "driver/stand_in.h"

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
    info["driver"] =
        version ? py::object(py::str(std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10)))
                : py::object(py::none());
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
        devices.append(row);
    }
    info["devices"] = devices;
    info["kernel_dir"] = driver::kernel_dir();
    py::list kernels;
    std::error_code ignored;
    for (const auto& file : std::filesystem::directory_iterator(driver::kernel_dir(), ignored))
        if (file.path().extension() == ".fatbin") kernels.append(file.path().stem().string());
    kernels.attr("sort")();
    info["fatbins"] = kernels;
    const char* missing = table == nullptr        ? driver::why_not().c_str()
                          : py::len(kernels) == 0 ? "built without the CUDA kernels"
                          : py::len(devices) == 0 ? "no CUDA device"
                                                  : nullptr;
    info["reason"] = missing == nullptr ? "" : missing;
    return info;
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
    m.def("cuda_info", &cuda_info,
          "What there is of CUDA: driver version or None, devices, kernel folder, fatbins, and what is missing (or "
          "None).");
    register_cuda_hooks(m);
}

}  // namespace nk
