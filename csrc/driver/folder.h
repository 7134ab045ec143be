// What the build says of the kernels' folder: build.txt, which cmake/nvcc.py writes, and the files themselves.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

namespace nk::driver {

// sm_80, or sm_90a, whose code runs on that one alone.
struct Arch {
    int number = 0;  // ten times the major part of the compute capability, and the minor one
    bool exact = false;

    bool runs_machine_code(int capability) const {
        return exact ? capability == number : capability / 10 == number / 10 && capability >= number;
    }
    bool compiles_ptx(int capability) const { return exact ? capability == number : capability >= number; }
};

struct Fatbin {
    Arch ptx;                   // what the driver can compile
    std::vector<Arch> machine;  // what is compiled
    bool runs_machine_code(int capability) const {
        for (const Arch& a : machine)
            if (a.runs_machine_code(capability)) return true;
        return false;
    }
};

struct KernelFolder {
    std::string path;
    bool has_kernels = false;
    int toolkit = 0;  // of the compiler, as cuDriverGetVersion counts; 0 where the build does not say
    Arch ptx{80};     // what the build is for: the least that its kernels need
    std::map<std::string, Fatbin, std::less<>> fatbins;  // by name, where the build says

    // The fatbins that are for one architecture, by the name of those for all.
    std::map<std::string, std::vector<std::pair<int, std::string>>, std::less<>> variants;

    explicit KernelFolder(std::string folder);

    const Fatbin* find(std::string_view fatbin) const {
        const auto it = fatbins.find(fatbin);
        return it == fatbins.end() ? nullptr : &it->second;
    }
    std::string file(std::string_view fatbin, const char* ending) const {
        return path + "/" + std::string(fatbin) + ending;
    }
    // <fatbin>_sm90a on 9.0, where there is such a file: kernels with instructions of one architecture. Otherwise the
    // name given.
    const char* variant(const char* fatbin, int capability) const;
};

// Null where the file is not there.
std::optional<std::vector<char>> read_file(const std::string& path);

// The image of one kernel in <fatbin>.kernels (cmake/images.py); null where there is none.
std::optional<std::vector<char>> read_kernel(const KernelFolder& folder, std::string_view fatbin,
                                             std::string_view kernel);

}  // namespace nk::driver
