// One question to torch for all of torch_state.h's.
#pragma once

#include <pybind11/pytypes.h>

#include <cstdint>

namespace nk {

// What all these questions said of an op's tensors last time, for one question that covers them: do they dispatch as
// those did? torch.compile guards its graphs by it.
class Seen {
  public:
    // Whether nothing has changed but shapes, strides and values since `keep`; `wants`: what was kept then.
    bool again(PyObject* const* tensors, Py_ssize_t count, bool& wants);
    // All are plain or None, nobody watches, autocast is off; wants: one of them requires a gradient.
    void keep(PyObject* const* tensors, Py_ssize_t count, bool wants);

  private:
    struct Guard {
        pybind11::object check;
        uint64_t pattern = 0;  // which arguments were None, or came twice
        bool wants = false;
        int trust = 0;
    };
    Guard guards_[2];  // an op is called in turn with and without a gradient, or on images and on rows
};

}  // namespace nk
