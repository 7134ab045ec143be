// The plan of convolutions on CUDA as Python sees it, for tests and tuning.
#include <pybind11/pybind11.h>

#include "convolution/bind.h"
#include "convolution/cuda.h"
#include "convolution/plan_cuda.h"

namespace py = pybind11;

namespace nk::convolution {

void register_plan(py::handle handle) {
    py::module_ m = py::reinterpret_borrow<py::module_>(handle);
    m.def(
        "convolution_tiles",
        [] {
            py::list rows;
            for (const plan::ConvolutionTile& t : plan::convolution_tiles()) {
                py::dict row;
                row["element"] = t.element, row["dtype"] = name_of(t.dtype);
                row["tile"] = py::make_tuple(t.m, t.n, t.k);
                row["threads"] = t.threads, row["shared"] = t.shared, row["blocks"] = t.blocks;
                rows.append(row);
            }
            return rows;
        },
        "The tiles that the CUDA kernels of convolutions were compiled for.");
    m.def(
        "convolution_plan",
        [](int64_t rows, int64_t columns, int64_t k, int64_t groups) {
            const plan::ConvolutionPlan p =
                plan::plan_convolution({rows, columns, k, groups, DType::bf16}, plan::Gpu{});
            return py::make_tuple(p.tile->m, p.tile->n, p.splits, p.k_per_split);
        },
        py::arg("m"), py::arg("n"), py::arg("k"), py::arg("groups") = 1,
        "The tile and the parts of k of a bfloat16 product on an H200, which need not be there.");
    m.def(
        "convolution_only",
        [](std::string tile, int64_t packed) {
            on_cuda::only_tiles = std::move(tile);
            on_cuda::most_packed = packed > 0 ? packed : on_cuda::kMostPacked;
        },
        py::arg("tile"), py::arg("packed") = 0,
        "Let CUDA plans of convolutions take only this tile, as 128x128 (\"\": all), to test or tune it, and images "
        "be packed so many bytes at a time (0: 256 MB).");
}

}  // namespace nk::convolution
