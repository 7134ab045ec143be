// grid_sample and its gradients: check as torch does, make the outputs, which are contiguous, run.
#include "resampling/grid_sample.h"

#include "call/kernel_entry.h"
#include "call/run.h"
#include "resampling/bind.h"

namespace nk {

namespace {

using resampling::GridProblem;
using resampling::GridWork;

constexpr const char* const kGridModeNames[] = {"bilinear", "nearest", "bicubic"};
constexpr const char* const kGridPaddingNames[] = {"zeros", "border", "reflection"};
using GridModeName = NameOf<GridMode, 3, kGridModeNames>;
using GridPaddingName = NameOf<GridPadding, 3, kGridPaddingNames>;

// `shape`: of the image.
GridRule check_grid(const Call& call, const char* image, const int64_t* shape, int ndim, const Input& grid,
                    GridMode mode, GridPadding padding, bool align_corners, bool gradient) {
    const auto dims = [&] { return concat("argument ", image, " has shape ", shape_string(shape, ndim)); };
    if (ndim != 4 && ndim != 5) call.fail(dims(), ", expected 4 or 5 dimensions");
    if (grid->ndim != ndim)
        call.fail("argument grid has shape ", shape_string(grid), ", expected as many dimensions as argument ", image,
                  " of shape ", shape_string(shape, ndim));
    if (grid->shape[0] != shape[0])
        call.fail("argument grid has shape ", shape_string(grid), ", expected the batch of argument ", image,
                  " of shape ", shape_string(shape, ndim));
    if (grid->shape[ndim - 1] != ndim - 2)
        call.fail("argument grid has shape ", shape_string(grid), ", expected a last size of ", ndim - 2,
                  ", the coordinates of a point");
    for (int d = 2; d < ndim; ++d)
        if (shape[d] == 0) call.fail(dims(), ", expected no size of 0 behind the channels");
    if (mode == GridMode::bicubic && ndim == 5)
        call.fail("argument mode is 'bicubic', expected 'bilinear' or 'nearest' for argument ", image, " of shape ",
                  shape_string(shape, ndim));
    return {mode, padding, align_corners ? 1 : 0, ndim - 2, gradient ? 1 : 0};
}

void check_result(const Call& call, const Input& g, const int64_t* shape, const Input& grid) {
    bool fits = g->ndim == grid->ndim && g->shape[0] == shape[0] && g->shape[1] == shape[1];
    for (int d = 2; fits && d < g->ndim; ++d) fits = g->shape[d] == grid->shape[d - 1];
    if (!fits)
        call.fail("argument ", g.name, " has shape ", shape_string(g), ", expected a point of each channel for grid ",
                  shape_string(grid));
}

void run_grid(const Call& call, std::initializer_list<PyObject*> outputs, std::initializer_list<GridProblem> problems) {
    const auto each = [&](auto run) {
        for (const GridProblem& p : problems)
            if (p.out.numel() != 0) run(p);
    };
    run(
        call, problems.begin()->grid.device, outputs, [&] { each([](const GridProblem& p) { run_cpu(p); }); },
        [&] { each([](const GridProblem& p) { run_cuda(p); }); });
}

Output new_samples(const Call& call, const Input& grid, int64_t channels) {
    int64_t shape[5] = {grid->shape[0], channels};
    for (int d = 2; d < grid->ndim; ++d) shape[d] = grid->shape[d - 1];
    return Output(call, "output", grid, shape, grid->ndim);
}

TensorView shape_only(const TensorView& like, const int64_t* shape, int ndim) {
    TensorView t = like;
    t.ndim = ndim, t.data = nullptr;
    for (int d = 0; d < ndim; ++d) t.shape[d] = shape[d], t.stride[d] = 0;
    return t;
}

py::object grid_sample(const Call& call, Input& x, Input& grid, GridModeName mode, GridPaddingName padding,
                       bool align_corners) {
    check_floating(x);
    check_kind(grid, x);
    const GridRule rule = check_grid(call, x.name, x->shape, x->ndim, grid, mode, padding, align_corners, false);
    const Output y = new_samples(call, grid, x->shape[1]);
    run_grid(call, {y.object.ptr()}, {{call.op, GridWork::sample, rule, x, grid, {}, y}});
    return y.object;
}

py::object grid_sample_backward(const Call& call, Input& g, Input& x, Input& grid, GridModeName mode,
                                GridPaddingName padding, bool align_corners, const Wants& wants) {
    check_floating(x);
    check_kind(grid, x);
    check_kind(g, x);
    const GridRule rule = check_grid(call, x.name, x->shape, x->ndim, grid, mode, padding, align_corners, true);
    check_result(call, g, x->shape, grid);
    std::optional<Output> gx, gg;
    if (wants[0]) gx.emplace(call, "gradient", x, x->shape, x->ndim);
    if (wants[1]) gg.emplace(call, "gradient", grid, grid->shape, grid->ndim);
    PyObject* const objects[2] = {gx ? gx->object.ptr() : Py_None, gg ? gg->object.ptr() : Py_None};
    const TensorView none = shape_only(x, x->shape, 0);
    GridProblem image{call.op, GridWork::image_gradient, rule, x, grid, g, gx ? gx->view : none};
    GridProblem points{call.op, GridWork::grid_gradient, rule, x, grid, g, gg ? gg->view : none};
    if (gx && gg)
        run_grid(call, {objects[0], objects[1]}, {image, points});
    else if (gx || gg)
        run_grid(call, {objects[0], objects[1]}, {gx ? image : points});
    return py::make_tuple(py::handle(objects[0]), py::handle(objects[1]));
}

// The shape of the image that g is the gradient of samples of: `size` is behind the channels.
Ints image_shape(const Call& call, const Input& g, const Ints& size) {
    if (g->ndim != size.count + 2 || g->ndim > 5)
        call.fail("argument ", g.name, " has shape ", shape_string(g), ", expected two dimensions more than size ",
                  shape_string(size.begin(), size.count));
    Ints shape = size;
    shape.count = g->ndim;
    std::copy(g->shape, g->shape + 2, shape.values);
    std::copy(size.begin(), size.end(), shape.values + 2);
    return shape;
}

// The gradient of grid_sample to its image of that size, which is linear in g.
py::object grid_sample_gradient(const Call& call, Input& g, Input& grid, GridModeName mode, GridPaddingName padding,
                                bool align_corners, Ints& spatial) {
    check_floating(g);
    const Ints size = image_shape(call, g, spatial);
    check_kind(grid, g);
    const GridRule rule = check_grid(call, "size", size.begin(), size.count, grid, mode, padding, align_corners, true);
    check_result(call, g, size.begin(), grid);
    const Output gx(call, "output", g, size.begin(), size.count);
    run_grid(call, {gx.object.ptr()},
             {{call.op, GridWork::image_gradient, rule, shape_only(g, size.begin(), size.count), grid, g, gx}});
    return gx.object;
}

// `h`: the gradient of what grid_sample_gradient returns, an image.
py::object grid_sample_gradient_backward(const Call& call, Input& h, Input& g, Input& grid, GridModeName mode,
                                         GridPaddingName padding, bool align_corners, Ints& spatial,
                                         const Wants& wants) {
    check_floating(g);
    const Ints size = image_shape(call, g, spatial);
    check_kind(grid, g);
    check_kind(h, g);
    const GridRule rule = check_grid(call, "size", size.begin(), size.count, grid, mode, padding, align_corners, true);
    check_result(call, g, size.begin(), grid);
    if (h->ndim != size.count || !std::equal(size.begin(), size.end(), h->shape))
        call.fail("argument ", h.name, " has shape ", shape_string(h), ", expected ",
                  shape_string(size.begin(), size.count));
    std::optional<Output> made_g, made_grid;
    if (wants[0]) made_g.emplace(new_samples(call, grid, size.values[1]));
    if (wants[1]) made_grid.emplace(call, "gradient", grid, grid->shape, grid->ndim);
    PyObject* const objects[2] = {made_g ? made_g->object.ptr() : Py_None,
                                  made_grid ? made_grid->object.ptr() : Py_None};
    const TensorView none = shape_only(h, h->shape, 0);
    GridProblem sample{call.op, GridWork::sample, rule, h, grid, {}, made_g ? made_g->view : none};
    GridProblem points{call.op, GridWork::grid_gradient, rule, h, grid, g, made_grid ? made_grid->view : none};
    if (made_g && made_grid)
        run_grid(call, {objects[0], objects[1]}, {sample, points});
    else if (made_g || made_grid)
        run_grid(call, {objects[0], objects[1]}, {made_g ? sample : points});
    return py::make_tuple(py::handle(objects[0]), py::handle(objects[1]));
}

}  // namespace

void register_grid_sample(py::handle m) {
    constexpr const char* tensors = "tuple[Tensor | None, ...]";
    def_entry<&grid_sample>(m, "grid_sample", "input grid mode padding_mode align_corners",
                            "An image at the points of a grid: each a weighted sum of the elements around it.");
    def_entry<&grid_sample_backward>(m, "grid_sample_backward", "g input grid mode padding_mode align_corners wants",
                                     "The gradients of grid_sample to input and grid.", tensors);
    def_entry<&grid_sample_gradient>(m, "grid_sample_gradient", "g grid mode padding_mode align_corners size",
                                     "The gradient of grid_sample to an input of that size.");
    def_entry<&grid_sample_gradient_backward>(m, "grid_sample_gradient_backward",
                                              "gg g grid mode padding_mode align_corners size wants",
                                              "The gradients of grid_sample_gradient to g and grid.", tensors);
}

}  // namespace nk
