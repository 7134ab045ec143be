// The matmul plan as Python sees it: for tests, for `neurokern info` and for anybody who asks what would run.
#include <pybind11/pybind11.h>

#include "matmul/bind.h"
#include "matmul/plan_cuda.h"
#include "tensor/check.h"

namespace py = pybind11;

namespace nk {

namespace {

DType dtype_named(const std::string& name) {
    for (int i = 0; i < kFloatTypes; ++i)
        if (name == name_of(static_cast<DType>(i))) return static_cast<DType>(i);
    fail_value("matmul_plan", "there is no floating dtype ", name);
}

py::dict kernel_row(const plan::MatmulKernel& kernel) {
    py::dict row;
    row["tile"] = py::make_tuple(kernel.m, kernel.n, kernel.k);
    row["threads"] = kernel.threads;
    row["stages"] = kernel.stages;
    row["shared"] = kernel.shared;
    row["blocks"] = kernel.blocks;
    return row;
}

py::dict plan_row(const plan::MatmulPlan& p) {
    py::dict row = kernel_row(*p.kernel);
    row["kernel"] = p.name();
    row["fatbin"] = p.fatbin();
    row["tiles"] = py::make_tuple(p.tiles_m, p.tiles_n);
    row["group"] = p.group;
    row["splits"] = p.splits;
    row["k_per_split"] = p.k_per_split;
    row["workspace_pitch"] = p.workspace_pitch;
    row["workspace_bytes"] = p.workspace_bytes;
    row["access"] = py::make_tuple(p.a_access, p.b_access);
    row["clocks"] = p.clocks;
    row["text"] = p.describe();
    return row;
}

}  // namespace

void register_plan(py::handle module) {
    auto m = py::reinterpret_borrow<py::module_>(module);
    m.def(
        "matmul_plan",
        [](int64_t rows, int64_t columns, int64_t depth, const std::string& dtype, int64_t batches, bool tf32,
           bool may_split, std::pair<bool, int> a, std::pair<bool, int> b, int multiprocessors, int shared_per_block,
           int shared_per_multiprocessor, int major, bool all) -> py::object {
            plan::MatmulProblem p{rows,
                                  columns,
                                  depth,
                                  batches,
                                  dtype_named(dtype),
                                  tf32,
                                  may_split,
                                  {a.first, a.second},
                                  {b.first, b.second}};
            const plan::Gpu gpu{multiprocessors, shared_per_block, shared_per_multiprocessor, major};
            if (all) {
                py::list rows_of_plans;
                for (const plan::MatmulPlan& plan : plan::enumerate_matmul(p, gpu))
                    rows_of_plans.append(plan_row(plan));
                return rows_of_plans;
            }
            const plan::MatmulPlan best = plan::plan_matmul(p, gpu);
            return best.kernel == nullptr ? py::object(py::none()) : py::object(plan_row(best));
        },
        py::arg("m"), py::arg("n"), py::arg("k"), py::arg("dtype"), py::arg("batches") = 1, py::arg("tf32") = false,
        py::arg("may_split") = true, py::arg("a") = std::pair(true, 16), py::arg("b") = std::pair(true, 16),
        py::arg("multiprocessors") = plan::Gpu{}.multiprocessors,
        py::arg("shared_per_block") = plan::Gpu{}.shared_per_block,
        py::arg("shared_per_multiprocessor") = plan::Gpu{}.shared_per_multiprocessor,
        py::arg("major") = plan::Gpu{}.major, py::arg("all") = false,
        "The CUDA plan of a product [m, k] x [k, n] on a GPU that need not be there, as a dict; with `all` every plan "
        "that was weighed. `a` and `b` are (k is the contiguous dimension, bytes that one load may take).");
    m.def(
        "matmul_kernels",
        [] {
            py::dict names;
            for (const auto& [name, fatbin] : plan::matmul_kernel_names()) names[py::str(name)] = fatbin;
            return names;
        },
        "Every CUDA matmul kernel that a plan can name, with the fatbin it lies in.");
    m.def("matmul_only", &set_matmul_only, py::arg("part"),
          "Let CUDA plans take only kernels whose name contains this (\"\": all), to test or tune one of them.");
}

}  // namespace nk
