// The products of f32 in full precision, on the ordinary cores.
#include "../product/simt.h"
#include "elements.h"

using namespace nk::cuda;

namespace {

template <class Tile, bool Mapped>
__device__ __forceinline__ void windows(const WindowParams& p) {
    const auto turned = [](const SimtSums<Tile>& sums, const auto& staging) { sums.put_transposed(staging); };
    using Staging = nk::tile::Staging<float, Tile::BN, Tile::BM, nk::tile::FourthSwizzle<Tile::BM * 4>>;
    element_windows<nk::DType::f32, Tile, SimtSums<Tile>, Mapped, Staging>(p, turned);
}

}  // namespace

NK_ELEMENT_KERNELS(f32, f32, Simt128x128, SimtSums<Simt128x128>, 128x128)
NK_ELEMENT_KERNELS(f32, f32, Simt64x64, SimtSums<Simt64x64>, 64x64)
NK_ELEMENT_MAPPED(f32, Simt64x64, 64x64)
