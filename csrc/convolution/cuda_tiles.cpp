// Convolutions as products of matrices on CUDA: operands with channels side by side, launches, the sums of parts of k.
#include <algorithm>
#include <cstdlib>

#include "convolution/cuda_pack.h"

namespace nk::convolution::on_cuda {

std::string only_tiles;
int64_t most_packed = kMostPacked;

namespace {

using cuda::WindowParams;

constexpr int64_t kMost = (int64_t{1} << 31) - 1024;
constexpr int64_t kTableMore = 512;  // rows behind the last pixel: those of the tile in which k ends, and one ahead

// The window's side of a product. `rows`: its pixels, `taps`: of each dim.
void set_window(const Context& c, WindowParams& q, const Packed& source, const Sizes& size, const Sizes& rows,
                const Sizes& taps, const Sizes& begin, const Sizes& step, const Sizes& tap_step) {
    q.source = source.data, q.source_group = source.group * c.element(), q.source_image = source.image / c.unit;
    for (int d = 0; d < kSpatial; ++d) {
        cuda::WindowDim& dim = q.dim[d];
        dim.pixels = cuda::make_divisor(static_cast<uint32_t>(rows[d]));
        dim.taps = cuda::make_divisor(static_cast<uint32_t>(taps[d]));
        dim.size = static_cast<int32_t>(size[d]), dim.begin = static_cast<int32_t>(begin[d]);
        dim.step = static_cast<int32_t>(step[d]), dim.tap_step = static_cast<int32_t>(tap_step[d]);
        dim.source = static_cast<int32_t>(source.pixel[d] / c.unit);
    }
    q.unit = static_cast<int32_t>(c.unit * c.element());
    q.depth = cuda::make_divisor(static_cast<uint32_t>(source.depth));
}

// Whether offsets in the images fit into 32 bits of units.
bool reaches(const Context& c, const Packed& source, int64_t images, const Sizes& size, const Geometry& g) {
    double units = static_cast<double>(images) * std::abs(static_cast<double>(source.image));
    for (int d = 0; d < kSpatial; ++d) {
        const double around = static_cast<double>(g.pad[d] + g.dilation[d] * g.kernel[d] + size[d]);
        units += around * std::abs(static_cast<double>(source.pixel[d]));
    }
    return units / c.unit < static_cast<double>(kMost);
}

bool small_enough(const Geometry& g, int64_t channels) {
    double product = static_cast<double>(channels) * static_cast<double>(g.taps());
    for (int d = 0; d < kSpatial; ++d)
        if (std::max({g.in[d], g.out[d], g.pad[d] + g.in[d] + g.stride[d], g.dilation[d] * g.kernel[d]}) > kMost / 4)
            return false;
    return product < static_cast<double>(kMost) && g.pixels_in() < kMost && g.pixels_out() < kMost &&
           g.kernel[0] + g.kernel[1] + g.kernel[2] <= cuda::kMostTaps && g.groups <= 65535;
}

// Results among pixels that lie `stride` apart from pixel `first` on.
cuda::ResultsRef results(const Context& c, const TensorView* t, const Sizes& first, const Sizes& stride) {
    cuda::ResultsRef r;
    if (t == nullptr) return r;
    int64_t offset = 0;
    for (int d = 0; d < kSpatial; ++d) {
        offset += first[d] * t->stride[2 + d];
        r.pixel[d] = stride[d] * t->stride[2 + d];
    }
    r.data = static_cast<char*>(t->data) + offset * c.element();
    r.image = t->stride[0], r.channel = t->stride[1];
    return r;
}

// The step between pixels of which all lie evenly; 0 where they don't.
int64_t even_row(const cuda::ResultsRef& r, int64_t images, const Sizes& rows, bool with_images) {
    int64_t step = 0, count = 1;
    const auto joins = [&](int64_t size, int64_t stride) {
        if (size == 1) return true;
        if (count == 1) step = stride;
        const bool ok = count == 1 || stride == step * count;
        count *= size;
        return ok;
    };
    for (int d = kSpatial - 1; d >= 0; --d)
        if (!joins(rows[d], r.pixel[d])) return 0;
    if (with_images && !joins(images, r.image)) return 0;
    return count == 1 ? 1 : step;
}

// How results are written: `rows` pixels of `images`, by tensors that may be null.
void set_results(const Context& c, WindowParams& q, int64_t images, const Sizes& rows) {
    const int lanes = c.dtype == DType::f64 ? 2 : 4;
    cuda::ResultsRef* const all[] = {&q.out, &q.preact, &q.residual};
    q.even_rows = 1, q.even_pieces = product(rows) % lanes == 0;
    q.order = q.out.channel == 1 || q.channels == 1 ? cuda::kPixelsDown : cuda::kChannelsDown;
    for (cuda::ResultsRef* r : all) {
        if (r->data == nullptr) continue;
        r->row = even_row(*r, images, rows, true);
        q.even_rows = q.even_rows && r->row != 0;
        q.even_pieces = q.even_pieces && even_row(*r, images, rows, false) == 1;
    }
    const auto wide = [&](const cuda::ResultsRef& r) {
        if (r.data == nullptr) return false;
        bool even =
            reinterpret_cast<uintptr_t>(r.data) % (lanes * c.element()) == 0 && (images == 1 || r.image % lanes == 0);
        if (q.order == cuda::kChannelsDown) return even && q.even_pieces && r.channel % lanes == 0;
        for (int d = 0; d < kSpatial; ++d) even = even && (rows[d] == 1 || r.pixel[d] % lanes == 0);
        return even && r.channel == 1 && q.channels % lanes == 0;
    };
    q.wide_out = wide(q.out), q.wide_preact = wide(q.preact), q.wide_residual = wide(q.residual);
    q.has_preact = q.preact.data != nullptr, q.has_residual = q.residual.data != nullptr;
    const bool down = q.order == cuda::kChannelsDown;
    q.m = down ? q.channels : q.pixels, q.n = down ? q.pixels : q.channels;
    if (q.bias != nullptr) {
        if (down) q.bias_row = q.bias_column, q.bias_column = 0;
        q.wide_bias = q.bias_column == 1 && q.channels % lanes == 0 &&
                      reinterpret_cast<uintptr_t>(q.bias) % (lanes * c.element()) == 0;
    }
}

void set_plan(WindowParams& q, const plan::ConvolutionPlan& plan) {
    q.tiles_m = plan.tiles_m, q.tiles_n = plan.tiles_n, q.group = plan.group;
    q.k_per_split = plan.k_per_split, q.splits = plan.splits;
}

void run_product(const Context& c, const WindowParams& q, const plan::ConvolutionPlan& plan, const char* kind,
                 int64_t groups, const std::string& what) {
    const plan::ConvolutionTile& t = *plan.tile;
    launch(c.op, "convolution_mma_" + std::string(t.element),
           concat("convolution_", kind, "_", t.element, "_", t.m, "x", t.n),
           {int64_t{plan.tiles_m} * plan.tiles_n, static_cast<unsigned>(t.threads), plan.splits, groups, t.shared},
           c.device, q, concat(what, ", ", plan.describe()));
}

void run_reduce(const Context& c, const WindowParams& q, int64_t groups) {
    const int64_t lanes = c.dtype == DType::f64 ? 2 : 4;
    launch(c.op, "convolution_reduce", concat("convolution_reduce_", cuda::short_name(c.dtype)),
           {ceil_div(q.m * ceil_div(q.n, lanes), 256), 256, 1, groups}, c.device, q, concat(q.splits, " parts of k"));
}

// Results of windows, or the sums of parts of k where they are kept; q has its window, matrix, epilogue and results.
Scratch run_windows(const Context& c, const TensorView& like, WindowParams& q, int64_t groups,
                    const std::string& what) {
    const plan::ConvolutionPlan plan = plan::plan_convolution(
        {q.pixels, q.channels, q.k, groups, c.dtype, c.tf32, q.mode != cuda::kZeros, only_tiles}, c.gpu);
    set_plan(q, plan);
    Scratch workspace;
    if (plan.splits > 1 || q.keeps_sums) {
        q.workspace_pitch = plan::round_up(q.n, 4), q.batches = groups;
        workspace =
            allocate_scratch(like, plan.splits * groups * q.m * q.workspace_pitch * (c.dtype == DType::f64 ? 8 : 4));
        q.workspace = workspace.data;
    }
    run_product(c, q, plan, q.mode == cuda::kZeros ? "mma" : "mapped", groups, what);
    if (q.keeps_sums) return workspace;
    if (plan.splits > 1) run_reduce(c, q, groups);
    return {};
}

// Images of which so many are packed at a time.
int64_t images_at_once(const Context& c, const Packed* lies, int64_t images, const Sizes& size, int64_t channels,
                       int64_t groups, int64_t rows) {
    int64_t most = std::max<int64_t>(kMost / std::max<int64_t>(rows, 1), 1);
    if (lies == nullptr) {
        const int64_t bytes = product(size) * groups * plan::round_up(channels, c.unit) * c.element();
        most = std::min(most, std::max<int64_t>(most_packed / std::max<int64_t>(bytes, 1), 1));
    }
    return std::min(most, images);
}

ImagesRef from_image(const Context& c, ImagesRef t, int64_t image) {
    t.data = static_cast<char*>(t.data) + image * t.image * c.element();
    return t;
}

TensorView from_image(const TensorView& t, int64_t image) {
    TensorView v = t;
    v.data = static_cast<char*>(v.data) + image * v.stride[0] * size_of(v.dtype);
    return v;
}

}  // namespace

bool tiled_forward(const Forward& p) {
    const Geometry& g = p.g;
    const Context c(p.op, p.result);
    const int64_t in = g.image_channels(), out = g.result_channels();
    if (c.unit == 0 || !small_enough(g, plan::round_up(in, c.unit)) || in == 0) return false;
    const Sizes size = sizes(g.in), rows = sizes(g.out), taps = sizes(g.kernel);
    const bool lies = lies_packed(c, reference(&p.image), g.n, size, in);
    Packed probe;
    const int64_t at_once = images_at_once(c, lies ? &probe : nullptr, g.n, size, in, g.groups, g.pixels_out());
    // [o, tap, c]
    ImagesRef weight = reference(&p.weight);
    Scratch scratch;
    if (!lies_dense(c, weight, g.o, taps, in)) {
        scratch = pack(c, p.result, weight, g.o, taps, in, 1);
        weight.data = scratch.data, weight.image = g.taps() * plan::round_up(in, c.unit);
    }
    for (int64_t image = 0; image < g.n; image += at_once) {
        const int64_t images = std::min(at_once, g.n - image);
        const Packed source =
            packed(c, p.result, from_image(c, reference(&p.image), image), images, size, in, g.groups);
        if (!reaches(c, source, images, size, g)) return false;
        WindowParams q;
        q.mode = static_cast<int>(g.mode);
        q.pixels = images * g.pixels_out(), q.channels = out, q.k = g.taps() * source.depth;
        set_window(c, q, source, size, rows, taps, {-g.pad[0], -g.pad[1], -g.pad[2]}, sizes(g.stride),
                   sizes(g.dilation));
        q.matrix = weight.data, q.matrix_row = weight.image * c.element(), q.matrix_group = out * q.matrix_row;
        const TensorView to = from_image(p.result, image);
        TensorView preact, residual;
        if (p.preact != nullptr) preact = from_image(*p.preact, image);
        if (p.residual != nullptr) residual = from_image(*p.residual, image);
        q.out = results(c, &to, {0, 0, 0}, {1, 1, 1});
        q.preact = results(c, p.preact != nullptr ? &preact : nullptr, {0, 0, 0}, {1, 1, 1});
        q.residual = results(c, p.residual != nullptr ? &residual : nullptr, {0, 0, 0}, {1, 1, 1});
        if (p.bias != nullptr) q.bias = p.bias->data, q.bias_column = p.bias->stride[0];
        q.activation = static_cast<int>(p.activation), q.p0 = p.p[0], q.p1 = p.p[1], q.beta = 1;
        set_results(c, q, images, rows);
        run_windows(c, p.result, q, g.groups, "result");
    }
    return true;
}

namespace {

// The product of one phase of each dim; returns the memory of its matrix.
Scratch set_phase(const Context& c, const DataGradient& p, WindowParams& q, const Packed& source, int64_t images,
                  const plan::Phase* const (&dim)[kSpatial]) {
    const Geometry& g = p.g;
    const int64_t in = g.image_channels(), out = g.result_channels();
    Sizes rows, taps, begin, tap_step;
    ImagesRef weight = reference(&p.weight);
    int64_t offset = 0;
    for (int d = 0; d < kSpatial; ++d) {
        rows[d] = dim[d]->pixels, taps[d] = dim[d]->taps;
        begin[d] = dim[d]->begin, tap_step[d] = -dim[d]->step;
        offset += dim[d]->tap * weight.pixel[d];
        weight.pixel[d] *= dim[d]->tap_step;
    }
    q.pixels = images * product(rows), q.channels = in, q.k = product(taps) * source.depth;
    Scratch matrix;
    if (q.k > 0) {  // [c, tap, o]
        weight.data = static_cast<char*>(weight.data) + offset * c.element();
        matrix = pack_transposed(c, p.image, weight, g.groups, out, in, taps);
    } else {
        taps = {1, 1, 1};  // zeros
    }
    set_window(c, q, source, sizes(g.out), rows, taps, begin, {1, 1, 1}, tap_step);
    q.matrix = q.k > 0 ? matrix.data : source.data;
    q.matrix_row = q.k * c.element(), q.matrix_group = in * q.matrix_row;
    return matrix;
}

// With a padding mode, the gradient of the padded image stays in f32 (f64) and is then added up where pixels are read.
void fold_padded(const Context& c, const DataGradient& p, const Packed& source, const TensorView& to, int64_t images,
                 const Sizes& padded) {
    const Geometry& g = p.g;
    plan::Phase phase[kSpatial];
    for (int d = 0; d < kSpatial; ++d)
        phase[d] = plan::data_gradient_phases(padded[d], g.kernel[d], 1, g.dilation[d], 0).front();
    WindowParams q;
    const Scratch matrix = set_phase(c, p, q, source, images, {&phase[0], &phase[1], &phase[2]});
    q.keeps_sums = 1, q.m = q.pixels, q.n = q.channels;
    const Scratch sums = run_windows(c, p.image, q, g.groups, "data gradient of the padded image");
    cuda::FoldParams f;
    static_cast<cuda::EpilogueParams&>(f) = q;
    f.image = reference(&to), f.images = images, f.groups = g.groups, f.channels = q.channels;
    std::copy_n(g.in, kSpatial, f.in), std::copy_n(g.pad, kSpatial, f.pad),
        std::copy_n(padded.begin(), kSpatial, f.padded);
    f.mode = static_cast<int>(g.mode);
    if (p.bias != nullptr) f.bias = p.bias->data, f.bias_column = p.bias->stride[0];
    const int64_t pieces = ceil_div(f.channels, c.dtype == DType::f64 ? 2 : 4);
    launch(c.op, "convolution_reduce", concat("convolution_fold_", cuda::short_name(c.dtype)),
           {ceil_div(images * g.pixels_in() * g.groups * pieces, 256), 256}, c.device, f, "sums of places");
}

}  // namespace

bool tiled_data_gradient(const DataGradient& p) {
    const Geometry& g = p.g;
    const Context c(p.op, p.image);
    const int64_t out = g.result_channels();
    const bool folds = g.mode != PaddingMode::zeros;
    if (c.unit == 0 || out == 0 || g.pixels_out() == 0 || !small_enough(g, plan::round_up(out, c.unit))) return false;
    if (folds && std::any_of(g.stride, g.stride + kSpatial, [](int64_t s) { return s != 1; })) return false;
    const Sizes size = sizes(g.out);
    const bool lies = lies_packed(c, reference(&p.result), g.n, size, out);
    Packed probe;
    int64_t at_once = images_at_once(c, lies ? &probe : nullptr, g.n, size, out, g.groups, g.pixels_in());
    std::vector<plan::Phase> phases[kSpatial];
    Sizes padded;
    for (int d = 0; d < kSpatial; ++d) {
        phases[d] = plan::data_gradient_phases(g.in[d], g.kernel[d], g.stride[d], g.dilation[d], g.pad[d]);
        padded[d] = g.out[d] + g.dilation[d] * (g.kernel[d] - 1);
    }
    if (folds) {  // partial sums, as the packed image, stay within bounds
        const int64_t bytes = product(padded) * (g.c + 4 * g.groups) * (c.dtype == DType::f64 ? 8 : 4);
        at_once = std::min(at_once, std::max<int64_t>(std::min(most_packed / bytes, kMost / product(padded)), 1));
    }
    for (int64_t image = 0; image < g.n; image += at_once) {
        const int64_t images = std::min(at_once, g.n - image);
        const Packed source =
            packed(c, p.image, from_image(c, reference(&p.result), image), images, size, out, g.groups);
        if (!reaches(c, source, images, size, g)) return false;
        const TensorView to = from_image(p.image, image);
        if (folds) {
            fold_padded(c, p, source, to, images, padded);
            continue;
        }
        for (const plan::Phase& z : phases[0])
            for (const plan::Phase& y : phases[1])
                for (const plan::Phase& x : phases[2]) {
                    WindowParams q;
                    const Scratch matrix = set_phase(c, p, q, source, images, {&z, &y, &x});
                    q.out = results(c, &to, {z.first, y.first, x.first}, sizes(g.stride));
                    if (p.bias != nullptr) q.bias = p.bias->data, q.bias_column = p.bias->stride[0];
                    set_results(c, q, images, {z.pixels, y.pixels, x.pixels});
                    run_windows(c, p.image, q, g.groups, "data gradient");
                }
    }
    return true;
}

bool tiled_weight_gradient(const WeightGradient& p) {
    const Geometry& g = p.g;
    const Context c(p.op, p.weight);
    const int64_t in = g.image_channels(), out = g.result_channels();
    const int64_t depth = c.unit > 0 ? plan::round_up(in, c.unit) : 0;
    if (c.unit == 0 || g.n == 0 || g.pixels_out() == 0 || !small_enough(g, depth)) return false;
    const Sizes size = sizes(g.in), rows = sizes(g.out), taps = sizes(g.kernel);
    const ImagesRef all_results = reference(&p.result), all_images = reference(&p.image);
    cuda::ResultsRef pixels;
    pixels.image = all_results.image;
    std::copy(all_results.pixel, all_results.pixel + kSpatial, pixels.pixel);
    const bool image_lies = lies_packed(c, all_images, g.n, size, in);
    bool result_lies = lies_packed(c, all_results, g.n, rows, out);
    const int64_t even = even_row(pixels, g.n, rows, true);
    result_lies = result_lies && even != 0 && even % c.unit == 0;
    Packed probe;
    int64_t at_once = images_at_once(c, image_lies ? &probe : nullptr, g.n, size, in, g.groups, g.pixels_out());
    at_once = std::min(at_once, images_at_once(c, result_lies ? &probe : nullptr, g.n, rows, out, g.groups, 1));
    const int64_t chunks = ceil_div(g.n, at_once);

    WindowParams q;
    q.mode = static_cast<int>(g.mode);
    q.pixels = q.k = at_once * g.pixels_out();
    q.m = out, q.n = g.taps() * depth;
    const plan::ConvolutionPlan plan =
        plan::plan_convolution({q.m, q.n, q.k, g.groups, c.dtype, c.tf32, false, only_tiles}, c.gpu, chunks);
    set_plan(q, plan);
    q.splits = static_cast<int>(plan.splits * chunks);
    q.workspace_pitch = plan.workspace_pitch, q.batches = g.groups;
    const int64_t part = g.groups * q.m * q.workspace_pitch * (c.dtype == DType::f64 ? 8 : 4);
    Scratch workspace;
    if (q.splits > 1) workspace = allocate_scratch(p.weight, q.splits * part);
    q.order = cuda::kWeights, q.real_depth = static_cast<int32_t>(in);
    q.out.data = p.weight.data, q.out.image = p.weight.stride[0], q.out.channel = p.weight.stride[1];
    std::copy(p.weight.stride + 2, p.weight.stride + 2 + kSpatial, q.out.pixel);
    {
        const int lanes = c.dtype == DType::f64 ? 2 : 4;
        bool wide = q.out.channel == 1 && in % lanes == 0 && q.out.image % lanes == 0 &&
                    reinterpret_cast<uintptr_t>(q.out.data) % (lanes * c.element()) == 0;
        for (int d = 0; d < kSpatial; ++d) wide = wide && (taps[d] == 1 || q.out.pixel[d] % lanes == 0);
        q.wide_out = wide;
    }
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        const int64_t image = chunk * at_once, images = std::min(at_once, g.n - image);
        const Packed source = packed(c, p.weight, from_image(c, all_images, image), images, size, in, g.groups);
        if (!reaches(c, source, images, size, g)) return false;
        q.pixels = q.k = images * g.pixels_out();
        Packed result;
        if (result_lies) {
            result.data = static_cast<const char*>(from_image(c, all_results, image).data);
            q.matrix_row = even * c.element(), q.matrix_group = out * all_results.channel * c.element();
        } else {
            result.scratch = pack(c, p.weight, from_image(c, all_results, image), images, rows, out, g.groups);
            result.data = static_cast<const char*>(result.scratch.data);
            q.matrix_group = plan::round_up(out, c.unit) * c.element(), q.matrix_row = g.groups * q.matrix_group;
        }
        q.matrix = result.data;
        q.matrix_access = (reinterpret_cast<uintptr_t>(q.matrix) | q.matrix_row | q.matrix_group) % 16 == 0 ? 16 : 0;
        set_window(c, q, source, size, rows, taps, {-g.pad[0], -g.pad[1], -g.pad[2]}, sizes(g.stride),
                   sizes(g.dilation));
        q.table_rows = q.pixels + kTableMore;
        const int64_t tables = q.mode == cuda::kZeros ? 1 : g.taps();
        const Scratch table = allocate_scratch(p.weight, tables * q.table_rows * int64_t{sizeof(cuda::WindowRow)});
        q.table = static_cast<const cuda::WindowRow*>(table.data);
        launch(c.op, "convolution_reduce", "convolution_table", {ceil_div(q.table_rows, 256), 256, tables}, c.device, q,
               "windows of pixels");
        q.workspace = q.splits > 1 ? static_cast<char*>(workspace.data) + chunk * plan.splits * part : nullptr;
        run_product(c, q, plan, "weight", g.groups, "weight gradient");
    }
    q.workspace = workspace.data;
    if (q.splits > 1) run_reduce(c, q, g.groups);
    return true;
}

}  // namespace nk::convolution::on_cuda
