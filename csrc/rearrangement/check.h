// What these ops take, checked, and the sizes of what they make.
#pragma once

#include "call/call.h"
#include "rearrangement/problem.h"

namespace nk::rearrangement {

inline constexpr const char* kPadModes[] = {"constant", "reflect", "replicate", "circular"};
using PadName = NameOf<PadMode, 4, kPadModes>;

// Elements added around each dim, negative where they are cut off.
struct Padding {
    PadMode mode;
    int ndim, batch;  // batch: dims in front of the channel
    int64_t lo[kMaxDims], hi[kMaxDims];

    bool only_crops() const;
};

Padding checked_padding(const Call& call, const Input& t, const Ints& amounts, PadMode mode);
// Of a value that is given: the mode takes one, and the dtype holds it.
void check_value(const Call& call, const Input& x, PadMode mode, std::optional<double> value);
// The shape of padded x, and that of what was padded into g; both throw where the mode can't.
void padded_shape(const Call& call, const Input& x, const Padding& pad, int64_t* shape);
void unpadded_shape(const Call& call, const Input& g, const Padding& pad, int64_t* shape);

// A shuffle as dims of both tensors that are split and ordered anew, so that the views have one shape.
struct Shuffle {
    int64_t shape[kMaxDims];          // of the output
    int first, dims;                  // of the tensors' dims: the first that is split, and how many are
    int count;                        // dims that they become
    int64_t sizes[5];                 // in the output's order
    int out_dim[5], in_dim[5];        // which dim of the tensors each is a part of
    int64_t out_step[5], in_step[5];  // in elements of that dim

    void split(TensorView& out, TensorView& in) const;
};

Shuffle checked_pixel_shuffle(const Call& call, const Input& x, int64_t factor);
Shuffle checked_pixel_unshuffle(const Call& call, const Input& x, int64_t factor);
Shuffle checked_channel_shuffle(const Call& call, const Input& x, int64_t groups, bool backward);

Window checked_unfold(const Call& call, const Input& x, const Ints& kernel, const Ints& dilation, const Ints& padding,
                      const Ints& stride);
Window checked_fold(const Call& call, const Input& x, const Ints& size, const Ints& kernel, const Ints& dilation,
                    const Ints& padding, const Ints& stride);

}  // namespace nk::rearrangement
