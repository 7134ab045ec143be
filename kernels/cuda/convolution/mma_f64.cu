// The products of f64 on the tensor cores.
#include "../product/f64.h"
#include "elements.h"

using namespace nk::cuda;

namespace {

template <class Tile, bool Mapped>
__device__ __forceinline__ void windows(const WindowParams& p) {
    const auto turned = [](const F64Sums& sums, const auto& staging) { sums.put(staging); };
    using Staging =
        nk::tile::Transposed<nk::tile::Staging<double, Tile::BN, Tile::BM, nk::tile::TransposeSwizzle<Tile::BM * 8>>>;
    element_windows<nk::DType::f64, Tile, F64Sums, Mapped, Staging>(p, turned);
}

}  // namespace

NK_ELEMENT_KERNELS(f64, f64, F64Tile, F64Sums, 64x64)
NK_ELEMENT_MAPPED(f64, F64Tile, 64x64)
