// Padding and its gradient on the CPU: tables of where rows come from, and kernels for the rows of a plane.
#include "rearrangement/plan_pad.h"
#include "rearrangement/run_cpu.h"

namespace nk::rearrangement {

namespace {

// Where the rows of one plane begin in `from`: an offset of each combination of outer places.
struct Planes {
    std::vector<PadDim> dims;
    std::vector<std::vector<int64_t>> offsets;  // of padded dims

    Planes(std::vector<PadDim> outer, PadMode mode) : dims(std::move(outer)) {
        for (const PadDim& d : dims) offsets.push_back(d.padded() ? offsets_of(d, mode) : std::vector<int64_t>());
    }
    // {offset in `to`, in `from`}; -1 where the plane is filler.
    std::pair<int64_t, int64_t> operator()(int64_t plane) const {
        int64_t to = 0, from = 0;
        for (size_t k = 0; k < dims.size(); ++k) {
            const int64_t i = plane % dims[k].size;
            plane /= dims[k].size;
            to += i * dims[k].to;
            const int64_t step = offsets[k].empty() ? i * dims[k].from : offsets[k][static_cast<size_t>(i)];
            from = step < 0 || from < 0 ? -1 : from + step;
        }
        return {to, from};
    }
};

int64_t product(const std::vector<PadDim>& dims, int64_t PadDim::* size) {
    int64_t n = 1;
    for (const PadDim& d : dims) n *= d.*size;
    return n;
}

}  // namespace

void run_cpu(const Pad& p) {
    const PadLoops loops = pad_loops(pad_dims(p.out, p.in, p.lo, false), false);
    const Middle middle = middle_of_result(loops.row);
    const Planes planes(loops.planes, p.mode);
    const std::vector<int64_t> rows = offsets_of(loops.rows, p.mode);
    std::vector<int64_t> edge;
    if (p.mode != PadMode::constant)
        for (int64_t o = 0; o < loops.row.size; ++o) {
            if (o == middle.front) o += middle.count;
            if (o < loops.row.size) edge.push_back(pad_source(p.mode, o, loops.row.n, loops.row.lo, loops.row.size));
        }
    uint64_t filler = 0;
    cpu::table().elementwise.round_one[static_cast<int>(p.out.dtype)](&filler, p.value);

    cpu::PadRows a{};
    a.to_apart = loops.rows.to;
    a.unit = loops.unit;
    a.from_step = loops.row.from;
    a.size = loops.row.size;
    a.front = middle.front, a.middle = middle.count, a.first = middle.count > 0 ? middle.first : 0;
    a.edge = p.mode == PadMode::constant ? nullptr : edge.data();
    a.filler = filler;
    const auto kernel = cpu::table().rearrangement.pad[index_of_size(p.out.dtype)];
    const bool nothing = p.in.numel() == 0;
    const int64_t count = loops.rows.size;
    share_out(p.op, "pad", p.out, product(loops.planes, &PadDim::size) * count, kCostPerByte,
              [&](int64_t first, int64_t last) {
                  each_plane(first, last, count, [&](int64_t plane, int64_t begin, int64_t end) {
                      const auto [to, from] = planes(plane);
                      cpu::PadRows b = a;
                      b.to = at(p.out, to + begin * a.to_apart);
                      b.from = from < 0 || nothing ? nullptr : at(p.in, from);
                      b.row = rows.data() + begin;
                      b.rows = end - begin;
                      kernel(b);
                  });
              });
}

namespace {

// The planes of g that one plane of the gradient is a sum of: one place of each outer dim in all combinations.
std::vector<int64_t> planes_of(const std::vector<PadDim>& dims, const std::vector<Together>& places, int64_t plane,
                               int64_t& to) {
    std::vector<int64_t> made{0};
    to = 0;
    for (size_t k = 0; k < dims.size(); ++k) {
        const PadDim& d = dims[k];
        const int64_t i = plane % d.n;
        plane /= d.n;
        to += i * d.to;
        if (!d.padded()) {
            for (int64_t& at : made) at += i * d.from;
            continue;
        }
        std::vector<int64_t> next;
        const auto index = static_cast<size_t>(i);
        for (int64_t m = places[k].of[index]; m < places[k].of[index + 1]; ++m)
            for (const int64_t at : made) next.push_back(at + places[k].among[static_cast<size_t>(m)]);
        made = std::move(next);
    }
    return made;
}

}  // namespace

void run_cpu(const PadBackward& p) {
    const PadLoops loops = pad_loops(pad_dims(p.gx, p.g, p.lo, true), true);
    const Middle middle = middle_of_gradient(loops.row);
    const Together edges = edges_of(loops.row, p.mode), rows = places_of(loops.rows, p.mode);
    std::vector<Together> places;
    for (const PadDim& d : loops.planes) places.push_back(d.padded() ? places_of(d, p.mode) : Together());

    cpu::PadSums a{};
    a.g = p.g.data;
    a.source = rows.among.data();
    a.to_apart = loops.rows.to;
    a.unit = loops.unit, a.inner = loops.unit > 1 ? loops.inner : 1, a.step = loops.row.from;
    a.size = loops.row.n;
    a.front = middle.front, a.middle = middle.count, a.first = middle.count > 0 ? middle.first : 0;
    a.at = edges.at.data(), a.of = edges.of.data(), a.among = edges.among.data();
    a.edges = static_cast<int64_t>(edges.at.size());
    const auto kernel = cpu::table().rearrangement.pad_sums[static_cast<int>(p.gx.dtype)];
    const int64_t count = loops.rows.n;
    share_out(p.op, "pad_sums", p.gx, product(loops.planes, &PadDim::n) * count, 2 * kCostPerByte,
              [&](int64_t first, int64_t last) {
                  each_plane(first, last, count, [&](int64_t plane, int64_t begin, int64_t end) {
                      int64_t to = 0;
                      const std::vector<int64_t> from = planes_of(loops.planes, places, plane, to);
                      cpu::PadSums b = a;
                      b.to = at(p.gx, to + begin * a.to_apart);
                      b.plane = from.data(), b.planes = static_cast<int64_t>(from.size());
                      b.start = rows.of.data() + begin;
                      b.rows = end - begin;
                      kernel(b);
                  });
              });
}

}  // namespace nk::rearrangement
