// Which pixels of the source each made pixel reads, as lists for each axis: strides, dilation, padding of any mode.
#pragma once

#include <cstdint>
#include <vector>

#include "convolution/problem.h"
#include "kernels/cpu/convolution/depthwise.h"

namespace nk::convolution {

// The rows of one axis; `shape` points into the lists.
class DepthwiseRows {
  public:
    // image: the image is made (data gradient), of the result; otherwise the result, of the image.
    DepthwiseRows(const Geometry& g, int axis, bool image);
    // For `band` rows that are made together; of those slots, any band's rows have one each.
    cpu::DepthwiseAxis shape(int64_t band) const;
    int64_t most() const;  // that one made row reads

  private:
    int64_t made_, source_;
    std::vector<int32_t> start_, tap_, at_;
};

class DepthwiseWidth {
  public:
    DepthwiseWidth(const Geometry& g, bool image);
    cpu::DepthwiseColumns shape() const;
    int64_t indices() const { return (c_.made + c_.step - 1) / c_.step; }  // of columns within a phase

  private:
    cpu::DepthwiseColumns c_;
    std::vector<int32_t> at_, order_, fold_;
    std::vector<cpu::DepthwisePhase> phases_;
};

}  // namespace nk::convolution
