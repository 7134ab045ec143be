#include "driver/folder.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace nk::driver {

namespace {

Arch arch_of(const std::string& text) {
    char* end = nullptr;
    const long number = std::strtol(text.c_str(), &end, 10);
    return {static_cast<int>(number), *end != 0};
}

}  // namespace

// nvcc 13.0
// ptx 80
// <fatbin> <of its PTX> <of its machine code>...
KernelFolder::KernelFolder(std::string folder) : path(std::move(folder)) {
    std::error_code ignored;
    for (const auto& file : std::filesystem::directory_iterator(path, ignored))
        has_kernels = has_kernels || file.path().extension() == ".fatbin";
    std::ifstream lines(path + "/build.txt");
    for (std::string line; std::getline(lines, line);) {
        std::istringstream words(line);
        std::string name, value;
        words >> name >> value;
        if (name == "nvcc") {
            const size_t dot = value.find('.');
            toolkit = 1000 * std::atoi(value.c_str());
            if (dot != std::string::npos) toolkit += 10 * std::atoi(value.c_str() + dot + 1);
        } else if (name == "ptx") {
            ptx = arch_of(value);
        } else if (!value.empty()) {
            Fatbin& f = fatbins[name];
            f.ptx = arch_of(value);
            while (words >> value) f.machine.push_back(arch_of(value));
            const std::string ending = "_sm" + std::to_string(f.ptx.number) + "a";
            if (f.ptx.exact && name.ends_with(ending))
                variants[name.substr(0, name.size() - ending.size())].emplace_back(f.ptx.number, name);
        }
    }
}

const char* KernelFolder::variant(const char* fatbin, int capability) const {
    if (const auto it = variants.find(fatbin); it != variants.end())
        for (const auto& [number, name] : it->second)
            if (number == capability) return name.c_str();
    return fatbin;
}

std::optional<std::vector<char>> read_file(const std::string& path) {
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    if (!file) return std::nullopt;
    std::vector<char> bytes(static_cast<size_t>(file.tellg()));
    file.seekg(0);
    file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    if (!file) return std::nullopt;
    return bytes;
}

std::optional<std::vector<char>> read_kernel(const KernelFolder& folder, std::string_view fatbin,
                                             std::string_view kernel) {
    std::ifstream file(folder.file(fatbin, ".kernels"), std::ios::binary);
    std::string line, name;
    std::streamoff offset = 0, found = -1;
    size_t bytes = 0;
    while (std::getline(file, line) && !line.empty()) {
        size_t size = 0;
        std::istringstream words(line);
        words >> name >> offset >> size;
        if (name == kernel) found = offset, bytes = size;
    }
    if (!file || found < 0) return std::nullopt;
    std::vector<char> image(bytes);
    file.seekg(found, std::ios::cur);
    file.read(image.data(), static_cast<std::streamsize>(bytes));
    if (!file) return std::nullopt;
    return image;
}

}  // namespace nk::driver
